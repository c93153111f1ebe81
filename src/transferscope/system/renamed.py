"""Import public modules by the names that they had in version 0.1, with a `DeprecationWarning`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

RENAMED = {
    "transferscope.errors": "transferscope.system.errors",
    "transferscope.images.generated": "transferscope.generated.draw",
    "transferscope.options": "transferscope.experiment.options",
    "transferscope.plan": "transferscope.experiment.plan",
    "transferscope.report.formats": "transferscope.tables.formats",
    "transferscope.report.grid": "transferscope.tables.grid",
    "transferscope.report.terminal": "transferscope.tables.terminal",
    "transferscope.runners": "transferscope.framework.runners",
    "transferscope.study": "transferscope.experiment.study",
}
"""Name in version 0.1 -> name now."""


class _RenamedModules(MetaPathFinder, Loader):
    """Stands last on `sys.meta_path`, so only names that no file has come here."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in RENAMED else None

    def exec_module(self, module: ModuleType) -> None:
        now = RENAMED[module.__name__]
        warnings.warn(f"{module.__name__} is {now} now", DeprecationWarning, stacklevel=2)
        public = {name: value for name, value in vars(import_module(now)).items() if not name.startswith("__")}
        vars(module).update(public)


def install() -> None:
    """Make the old names importable; a second call changes nothing."""
    if not any(isinstance(finder, _RenamedModules) for finder in sys.meta_path):
        sys.meta_path.append(_RenamedModules())
