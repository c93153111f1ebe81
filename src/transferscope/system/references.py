"""References to a user's own code: `package.module:name`, or `folder/file.py:name`.

A reference that stands in a file from elsewhere, such as a checkpoint, is never followed of itself: the user must have
named it, in the study or in a call. An environment variable hands it on to other processes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from transferscope.system.errors import UserError
from transferscope.system.imported_files import imported_names, with_imported_files
from transferscope.system.near import near_matches

ALLOWED = "TRANSFERSCOPE_OWN_CODE"
"""Environment variable with the references that the user has named, and the folder in which relative files lie."""


def allow(reference: str, folder: Path | None = None) -> None:
    """Note that the user has named a reference.

    Args:
        reference: `module:name` or `file.py:name`.
        folder: where the path of a file begins; None: the working folder.
    """
    known = _allowed()
    if folder is not None or reference not in known:
        os.environ[ALLOWED] = json.dumps(known | {reference: str((folder or Path.cwd()).resolve())}, sort_keys=True)


def is_allowed(reference: str) -> bool:
    """True if the user has named a reference."""
    return reference in _allowed()


def source_file(reference: str, folder: Path) -> Path | None:
    """The file that holds the code of a reference, which is not run; packages around its module are imported.

    None where there is no such file, or a package fails, which `resolve` reports.
    """
    place = reference.rpartition(":")[0]
    if place.endswith(".py"):
        return folder / Path(place).expanduser()
    try:
        spec = importlib.util.find_spec(place)
    except Exception:  # a package around the module may raise anything
        return None
    return Path(spec.origin) if spec is not None and spec.origin not in (None, "built-in", "frozen") else None


def source_files(reference: str, folder: Path) -> list[Path]:
    """The file of `source_file`, and those beside it that it imports; empty where there is none."""
    file, place = source_file(reference, folder), reference.rpartition(":")[0]
    return [] if file is None else with_imported_files(file, "" if place.endswith(".py") else place)


def _allowed() -> dict[str, str]:
    known: dict[str, str] = json.loads(os.environ.get(ALLOWED, "{}"))
    return known


def is_reference(text: str) -> bool:
    """True if a text names something in a module or a file; names of model hubs, `hf-hub:owner/model`, do not."""
    return ":" in text and "/" not in text.rpartition(":")[2]


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
    if place.endswith(".py"):
        module = _module_of_file(Path(_allowed().get(reference, "")) / Path(place).expanduser(), key)
    else:
        module = load_module(place, key)
    try:
        return getattr(module, name)
    except AttributeError:
        known = (other for other in vars(module) if not other.startswith("_"))
        raise UserError(f"{key}: {place} has no {name!r}{near_matches(name, known)}") from None


def load_module(name: str, key: str) -> ModuleType:
    """Import a module of the user's by its dotted name.

    Raises:
        UserError: it does not exist, a package that it needs is missing, or it fails.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{key}: module {name} needs the package {error.name}, which is not installed") from error
        raise UserError(f"{key}: no module is named {name!r}; put it into src/ or install it") from None
    except (Exception, SystemExit) as error:
        raise _broken(name, key, error) from error


def _module_of_file(path: Path, key: str) -> ModuleType:
    """The module of a file, executed once in a process under a name that follows from its full path.

    It can import the modules beside it, as under `python file.py`.
    """
    full = path.resolve()
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
        with _importable(full.parent):
            specification.loader.exec_module(module)
        _check_siblings(full, key)
    except UserError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _broken(str(path), key, error) from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules of a folder come before all others inside."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _check_siblings(file: Path, key: str) -> None:
    """Refuse a file that got another module of a name that one beside it has; Python keeps one module per name."""
    for name in {name.partition(".")[0] for name in imported_names(file, file.parent)}:
        siblings = (file.parent / f"{name}.py", file.parent / name / "__init__.py")
        sibling = next((path for path in siblings if path.is_file()), None)
        other = getattr(sys.modules.get(name), "__file__", None)
        if sibling is not None and other is not None and Path(other).resolve() != sibling.resolve():
            raise UserError(
                f"{key}: {file} imports {name}, and this process has imported another module of that name, {other}: "
                f"rename {sibling.relative_to(file.parent)}"
            )


def _broken(place: str, key: str, error: BaseException) -> UserError:
    if isinstance(error, SystemExit):
        return UserError(
            f"{key}: {place} ends the program (sys.exit) when it is imported: put that below if __name__ == '__main__'"
        )
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return UserError(
            f"{key}: {place} needs the module {error.name}, which is neither in its folder nor installed: "
            "put it there or install it"
        )
    message = str(error).splitlines()[0] if str(error) else ""
    return UserError(f"{key}: {place} cannot be imported: {type(error).__name__}: {message}")
