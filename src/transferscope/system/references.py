"""References to a user's own code: `package.module:name`, or `folder/file.py:name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from transferscope.system.errors import UserError
from transferscope.system.near import near_matches


def is_reference(text: str) -> bool:
    """Whether a text names something in a module or a file rather than something built in."""
    return ":" in text


def resolve(reference: str, key: str) -> Any:
    """Import what a reference names.

    Args:
        reference: `package.module:name`, or the path of a Python file in place of the module.
        key: where the user wrote it, for messages.

    Raises:
        UserError: there is no such module or name, or the module cannot be imported.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise UserError(f"{key}: {reference!r} must read module:name, for example mypackage.nets:build")
    module = _module_of_file(Path(place), key) if place.endswith(".py") else _module(place, key)
    try:
        return getattr(module, name)
    except AttributeError:
        known = (other for other in vars(module) if not other.startswith("_"))
        raise UserError(f"{key}: {place} has no {name!r}{near_matches(name, known)}") from None


def _module(name: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{key}: module {name} needs the package {error.name}, which is not installed") from error
        raise UserError(f"{key}: no module is named {name!r}; put it into src/ or install it") from None
    except Exception as error:
        raise _broken(name, key, error) from error


def _module_of_file(path: Path, key: str) -> ModuleType:
    """The module of a file, executed once in a process under a name that follows from its full path."""
    full = path.expanduser().resolve()
    name = f"{path.stem}_{hashlib.sha256(str(full).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if not full.is_file():
        raise UserError(f"{key}: there is no file {full}")
    specification = importlib.util.spec_from_file_location(name, full)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _broken(str(path), key, error) from error
    return module


def _broken(place: str, key: str, error: Exception) -> UserError:
    message = str(error).splitlines()[0] if str(error) else ""
    return UserError(f"{key}: {place} cannot be imported: {type(error).__name__}: {message}")
