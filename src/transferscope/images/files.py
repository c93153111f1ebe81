"""Reading files below one root, which is a folder, a .zip or an uncompressed .tar."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from transferscope.images.archives import TarTree, ZipTree
from transferscope.images.file_tree import FileTree, check_size, is_clutter, printable
from transferscope.system.errors import UserError

_KINDS = {
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a named pipe",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


class FolderTree(FileTree):
    """A folder on disk; symbolic links that its owner placed in it are followed."""

    def stamp(self, path: str) -> tuple[int, ...] | None:
        try:
            status = os.stat(self._start + path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise UserError(f"{self.where(path)}: cannot be read ({error.strerror})") from error
        return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def no_file(self, path: str) -> str:
        try:
            return _KINDS.get(stat.S_IFMT(os.stat(self._start + path).st_mode), "is no file")
        except OSError as error:
            if error.errno == errno.ELOOP:
                return "is a link that leads to itself"
            return "is a link to nothing" if os.path.islink(self._start + path) else "does not exist"

    def read(self, path: str) -> bytes:
        return read_file(self._start + path, self.where(path))

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        try:
            with os.scandir(f"{self.root}/{folder}") as scanned:
                kinds = [(entry.name, _kind(entry)) for entry in scanned if not is_clutter(entry.name)]
        except OSError as error:
            raise UserError(f"{self.where(folder)}: cannot be read ({error.strerror})") from error
        self.unreadable.update(f"{folder}/{name}".lstrip("/") for name, kind in kinds if kind == "other")
        return (
            sorted(name for name, kind in kinds if kind == "folder"),
            sorted(name for name, kind in kinds if kind != "folder"),
        )

    def files(self, folder: str = "") -> Iterator[str]:
        above = [folder[:end] for end, character in enumerate(folder) if character == "/"]
        waiting = [(folder, tuple(self._identity(path) for path in dict.fromkeys(["", *above])) if folder else ())]
        while waiting:
            folder, holders = waiting.pop()
            identity = self._identity(folder)
            if identity in holders:
                raise UserError(f"{self.where(folder)}: a link to a folder that holds it: remove the link")
            folders, names = self.entries(folder)
            start = f"{folder}/" if folder else ""
            yield from (start + name for name in names)
            waiting.extend((start + name, (*holders, identity)) for name in reversed(folders))

    def _identity(self, folder: str) -> tuple[int, int]:
        try:
            status = os.stat(self._start + folder)
        except OSError as error:
            raise UserError(f"{self.where(folder)}: cannot be read ({error.strerror})") from error
        return status.st_dev, status.st_ino


def open_tree(root: str | Path) -> FileTree:
    """Open a folder, a .zip or a .tar; `UserError` when there is none."""
    root = Path(root)
    if os.path.isdir(root):
        return FolderTree(root)
    if not os.path.lexists(root):
        raise UserError(f"image folder {printable(str(root))} does not exist: give a folder, a .zip or a .tar")
    kinds = {".zip": ZipTree, ".tar": TarTree}
    if root.suffix.lower() not in kinds or not os.path.isfile(root):
        raise UserError(
            f"{printable(str(root))}: neither a folder nor a .zip or uncompressed .tar archive: unpack it first"
        )
    return kinds[root.suffix.lower()](root)


def read_file(path: str | Path, where: str) -> bytes:
    """The bytes of a regular file; `UserError` for anything else, without waiting for a pipe or a device."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                kind = _KINDS.get(stat.S_IFMT(status.st_mode), "is no file")
                raise UserError(f"{where}: {kind} and no file: remove it")
            check_size(status.st_size, where)
            return file.read()
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise UserError(f"{where}: is a socket and no file: remove it") from error
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "other"]:
    """Other: a link to nothing or to itself, a pipe, a socket, a device."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:  # a link that leads to itself
        return "other"
