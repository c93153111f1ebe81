"""The files of a user's own code, found by reading it: a file, and the modules beside it that it imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

INSTALLED = {"site-packages", "dist-packages"}
"""Folders of packages, whose versions count, not their files."""
OURS = "transferscope"
"""Beside a module in the project's `src`; its version counts, not its files."""


def with_imported_files(file: Path, dotted: str = "") -> list[Path]:
    """A file and those of the user's modules that it imports, directly or through others, without running any.

    Args:
        file: Python code; of an installed package it counts alone.
        dotted: its name as a module, `package.nets`; empty for a file that is named by its path.

    Returns:
        Paths in their order; of files that cannot be parsed, no imports.
    """
    folder = file.parent
    for _ in range(dotted.count(".") + (file.name == "__init__.py" and bool(dotted))):
        folder = folder.parent
    found: set[Path] = set()
    waiting = [file, *(_files_of(dotted, folder) if INSTALLED.isdisjoint(file.parts) else ())]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            names = imported_names(path, folder) if INSTALLED.isdisjoint(path.parts) else ()
            waiting.extend(part for name in names for part in _files_of(name, folder))
    return sorted(found)


def imported_names(file: Path, folder: Path) -> Iterator[str]:
    """Dotted names that the code of a file imports, as they are below `folder`; both of `from a import b`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, file, folder)
            yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def _base(node: ast.ImportFrom, file: Path, folder: Path) -> str:
    """The module after `from`; of a relative one with the packages around the file."""
    if not node.level:
        return node.module or ""
    package = file.relative_to(folder).parts[: -node.level] if file.is_relative_to(folder) else ()
    return ".".join([*package, *([node.module] if node.module else [])])


def _files_of(name: str, folder: Path) -> Iterator[Path]:
    """The files below `folder` that an import of `name` runs: those of its packages, and its own."""
    path, parts = folder, [part for part in name.split(".") if part]
    for part in parts if parts[:1] != [OURS] else ():
        path = path / part
        yield from (file for file in (path.with_name(f"{part}.py"), path / "__init__.py") if file.is_file())
