"""Writes that leave the old content or the new, never a half."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transferscope.system.errors import UserError
from transferscope.system.temporaries import hidden_sibling, temporary_file, temporary_folder


@contextmanager
def atomic_file(path: str | Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    Without `flush` a process that is killed still leaves a whole file, but a power cut may take it.
    """
    path = Path(path)
    with space_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            yield temporary
            if flush:
                _flush(temporary)
            try:
                os.replace(temporary, path)
            except IsADirectoryError as error:
                raise UserError(f"{path} is a folder, where a file is to be written: remove or rename it") from error
            if flush:
                _flush(path.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`; on success it takes the place of `path`, on failure it is removed.

    A folder cannot be replaced in one step: between two renames the old content lies in a hidden sibling and
    `path` does not exist, so a reader sees the old folder, none, or the new one, never a mixture.
    """
    path = Path(path)
    with space_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path) as temporary:
            yield temporary
            for file in temporary.rglob("*"):
                _flush(file)
            replace_folder(temporary, path)


def replace_folder(new: Path, path: Path) -> None:
    """Rename `new` to `path`, removing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    old = hidden_sibling(path)
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def space_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into a `UserError` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"no space left on device while writing {path}: free some space and run again") from error
