"""Names of version 0.1 import what they named."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from transferscope.system.renamed import RENAMED, RENAMED_OBJECTS, install


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_gives_the_objects_of_the_new_one(old: str) -> None:
    """Every public object is the same object under both names, and a warning names the new one."""
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=RENAMED[old]):
        module = import_module(old)
    now = import_module(RENAMED[old])
    public = [name for name in vars(now) if not name.startswith("_")]
    assert public
    assert all(getattr(module, name) is getattr(now, name) for name in public)


@pytest.mark.parametrize(("old", "name"), RENAMED_OBJECTS)
def test_an_object_that_has_another_name_is_imported_by_the_old_one(old: str, name: str) -> None:
    """From the module that had it, be it still there or renamed as well, with a warning."""
    now, name_now = RENAMED_OBJECTS[old, name]
    if old in RENAMED:
        sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"^{old}"):
        moved = getattr(import_module(old), name)
    assert moved is getattr(import_module(now), name_now)


def test_other_names_are_still_refused() -> None:
    """A module that never existed raises ModuleNotFoundError, also after a second installation."""
    install()
    with pytest.raises(ModuleNotFoundError):
        import_module("transferscope.never_there")
    with pytest.raises(AttributeError, match="never_there"):
        import_module("transferscope.training").never_there  # noqa: B018
