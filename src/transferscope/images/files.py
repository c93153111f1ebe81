"""Reading files below one root, which is a folder, a .zip or an uncompressed .tar.

Every path given here is relative to the root, uses forward slashes and may not leave the root.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from transferscope.system.errors import UserError

MAX_FILE_BYTES = 1 << 30
"""Larger files are refused: no list and no image is that large, a crafted archive member may be."""


class FileTree(ABC):
    """Files below a root; safe to read from several threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._start = f"{root}/"

    def where(self, path: str) -> str:
        """How messages name a file; unprintable characters are escaped, so that a message stays one line."""
        return printable(f"{self.root}/{path}" if path else str(self.root))

    @abstractmethod
    def stamp(self, path: str) -> tuple[int, ...] | None:
        """Numbers that change when the file is written anew, the size first; None: there is no such file."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The bytes of a file."""

    @abstractmethod
    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        """Sorted names of the (folders, files) directly in `folder`."""

    def files(self, folder: str = "") -> Iterator[str]:
        """Paths of all files anywhere below `folder`, in a fixed order."""
        folders, names = self.entries(folder)
        start = f"{folder}/" if folder else ""
        yield from (start + name for name in names)
        for name in folders:
            yield from self.files(start + name)

    def is_file(self, path: str) -> bool:
        """Whether there is a regular file, or a link to one."""
        return self.stamp(path) is not None

    def read_text(self, path: str) -> str:
        """A UTF-8 text, with or without byte order mark."""
        data = self.read(path)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise UserError(f"{self.where(path)}, line {line}: not UTF-8 text: save the file as UTF-8") from error

    def first_missing(self, paths: Iterable[str]) -> tuple[int, int]:
        """(position of the first path without a file, how many there are); (-1, 0) when every file exists."""
        missing = [i for i, path in enumerate(paths) if self.stamp(path) is None]
        return (missing[0], len(missing)) if missing else (-1, 0)


class FolderTree(FileTree):
    """A folder on disk; symbolic links that its owner placed in it are followed."""

    def stamp(self, path: str) -> tuple[int, ...] | None:
        try:
            status = os.stat(self._start + path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"{self.where(path)}: cannot be read ({error.strerror})") from error
        return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def read(self, path: str) -> bytes:
        try:
            with open(self._start + path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                _check_size(size, self.where(path))
                return file.read()
        except OSError as error:
            raise UserError(f"{self.where(path)}: cannot be read ({error.strerror})") from error

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        where = f"{self.root}/{folder}"
        try:
            with os.scandir(where) as found:
                kinds = [(entry.name, entry.is_dir(), entry.is_symlink()) for entry in found]
        except OSError as error:
            raise UserError(f"{self.where(folder)}: cannot be read ({error.strerror})") from error
        for name, is_folder, is_link in kinds:
            if is_folder and is_link and os.path.realpath(where).startswith(os.path.realpath(f"{where}/{name}")):
                raise UserError(f"{self.where(f'{folder}/{name}')}: a link to a folder that holds it: remove the link")
        return (
            sorted(name for name, is_folder, _ in kinds if is_folder),
            sorted(name for name, is_folder, _ in kinds if not is_folder),
        )


class ArchiveTree(FileTree):
    """Common to archives: an index of all members, built once."""

    def __init__(self, root: Path, members: dict[str, tuple[int, ...]]) -> None:
        super().__init__(root)
        self._members = members
        for name in members:
            reason = unsafe_reason(name)
            if reason:
                raise UserError(f"{printable(str(root))}: member {name!r} {reason}: refused")
        self._folders = _by_folder(members)

    def stamp(self, path: str) -> tuple[int, ...] | None:
        return self._members.get(path)

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        folders, files = self._folders.get(folder, (set(), []))
        return sorted(folders), sorted(files)


def _by_folder(members: Iterable[str]) -> dict[str, tuple[set[str], list[str]]]:
    """Folder -> names of the (folders, files) directly in it."""
    found: dict[str, tuple[set[str], list[str]]] = {}
    for member in members:
        folder, _, name = member.rpartition("/")
        if folder not in found:
            _add_folder(found, folder)
        found[folder][1].append(name)
    return found


def _add_folder(found: dict[str, tuple[set[str], list[str]]], folder: str) -> None:
    found[folder] = (set(), [])
    above, _, name = folder.rpartition("/")
    if folder:
        if above not in found:
            _add_folder(found, above)
        found[above][0].add(name)


class ZipTree(ArchiveTree):
    """A .zip; the stamp of a member is its checksum."""

    def __init__(self, root: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(root)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{printable(str(root))}: not a readable .zip archive ({error})") from error
        members = {_plain(info.filename): info for info in self._zip.infolist() if _is_zip_file(info)}
        self._infos = members
        super().__init__(root, {name: (info.file_size, info.CRC) for name, info in members.items()})

    def read(self, path: str) -> bytes:
        if path not in self._infos:
            raise UserError(f"{self.where(path)}: no such file in the archive")
        _check_size(self._infos[path].file_size, self.where(path))
        try:
            return self._zip.read(self._infos[path])
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise UserError(f"{self.where(path)}: cannot be read from the archive ({error})") from error


class TarTree(ArchiveTree):
    """An uncompressed .tar; the stamp of a member is its place in the archive and its time."""

    def __init__(self, root: Path) -> None:
        try:
            with tarfile.open(root, "r:") as archive:
                found = [(_plain(m.name), m.offset_data, m.size, int(m.mtime)) for m in archive if m.isreg()]
        except (OSError, tarfile.TarError, EOFError) as error:
            raise UserError(f"{printable(str(root))}: not a readable, uncompressed .tar archive") from error
        self._places = {name: (offset, size) for name, offset, size, _ in found}
        self._file = open(root, "rb")  # noqa: SIM115 - open as long as the tree lives
        super().__init__(root, {name: (size, offset, time) for name, offset, size, time in found})

    def read(self, path: str) -> bytes:
        if path not in self._places:
            raise UserError(f"{self.where(path)}: no such file in the archive")
        offset, size = self._places[path]
        _check_size(size, self.where(path))
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise UserError(f"{self.where(path)}: cannot be read from the archive (it ends too early)")
        return data

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def open_tree(root: str | Path) -> FileTree:
    """Open a folder, a .zip or a .tar; `UserError` when there is none."""
    root = Path(root)
    if root.is_dir():
        return FolderTree(root)
    if not root.exists():
        raise UserError(f"image folder {printable(str(root))} does not exist: give a folder, a .zip or a .tar")
    kinds = {".zip": ZipTree, ".tar": TarTree}
    if root.suffix.lower() not in kinds:
        raise UserError(
            f"{printable(str(root))}: neither a folder nor a .zip or uncompressed .tar archive: unpack it first"
        )
    return kinds[root.suffix.lower()](root)


def unsafe_reason(path: str) -> str | None:
    """Why `path` may not be used below a root; None: it may."""
    if path.startswith("/"):
        return "is an absolute path"
    if ".." in path and ".." in path.split("/"):
        return "points outside the root"
    if "\0" in path:
        return "holds a NUL character"
    return None


def printable(text: str) -> str:
    """`text` with line breaks and other unprintable characters escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _is_zip_file(info: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(info.external_attr >> 16)
    return not info.is_dir() and kind in (0, stat.S_IFREG)


def _check_size(size: int, where: str) -> None:
    if size > MAX_FILE_BYTES:
        raise UserError(f"{where}: {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read: remove the file")
