"""Reading files below one root, which is a folder, a .zip or an uncompressed .tar.

Every path given here is relative to the root, uses forward slashes and may not leave the root. Hidden files and what
file managers, storage systems and editors leave behind (`is_clutter`) are never listed.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from transferscope.system.errors import UserError

MAX_FILE_BYTES = 1 << 30
"""Larger files are refused: no list and no image is that large, a crafted archive member may be."""

MAX_NAME = 4096
"""Characters in the path of an archive's member; no file system has longer ones."""

CLUTTER = frozenset(
    {
        "__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin",
        "recycler", "system volume information", "lost+found", "network trash folder", "temporary items",
        "cvs", "node_modules", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
    }
)  # fmt: skip
"""Files and folders, in lower case, that file managers, storage systems and tools of programmers leave behind."""

_KINDS = {
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a named pipe",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}
_COMPRESSION = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_ENCRYPTED, _UTF8 = 0x1, 0x800


class FileTree(ABC):
    """Files below a root; safe to read from several threads."""

    notes: tuple[str, ...] = ()
    """Sentences on what the tree holds and does not show."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._start = f"{root}/"
        self.unreadable: set[str] = set()
        """Paths met so far that lead to no regular file, such as links to nothing and pipes."""

    def where(self, path: str) -> str:
        """The name of a file in messages; unprintable characters are escaped, so that a message stays one line."""
        return printable(f"{self.root}/{path}" if path else str(self.root))

    @abstractmethod
    def stamp(self, path: str) -> tuple[int, ...] | None:
        """Numbers that change when the file is written anew, the size first; None: there is no such file."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The bytes of a file."""

    @abstractmethod
    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        """Sorted names of the (folders, files) directly in `folder`, clutter left out."""

    def files(self, folder: str = "") -> Iterator[str]:
        """Paths of all files anywhere below `folder`, in a fixed order, clutter left out."""
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            folders, names = self.entries(folder)
            start = f"{folder}/" if folder else ""
            yield from (start + name for name in names)
            waiting.extend(start + name for name in reversed(folders))

    def no_file(self, path: str) -> str:
        """The reason why `path` names no regular file."""
        return "does not exist"

    def is_file(self, path: str) -> bool:
        """True if there is a regular file, or a link to one."""
        return self.stamp(path) is not None

    def read_text(self, path: str) -> str:
        """A UTF-8 text, with or without byte order mark."""
        return decode_text(self.read(path), self.where(path))

    def first_missing(self, paths: Iterable[str]) -> tuple[int, int]:
        """(position of the first path without a file, how many there are); (-1, 0) when every file exists."""
        missing = [i for i, path in enumerate(paths) if self.stamp(path) is None]
        return (missing[0], len(missing)) if missing else (-1, 0)


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


class ArchiveTree(FileTree):
    """Common to archives: an index of all members, built once."""

    def __init__(self, root: Path, members: dict[str, tuple[int, ...]]) -> None:
        super().__init__(root)
        self._members = members
        self._folders = _by_folder(members)

    def stamp(self, path: str) -> tuple[int, ...] | None:
        return self._members.get(path)

    def entries(self, folder: str = "") -> tuple[list[str], list[str]]:
        folders, files = self._folders.get(folder, (set(), []))
        return sorted(folders), sorted(files)


def _by_folder(members: Iterable[str]) -> dict[str, tuple[set[str], list[str]]]:
    """Folder -> names of the (folders, files) directly in it, clutter left out."""
    inside: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}
    for member in members:
        folder, _, name = member.rpartition("/")
        if is_clutter(name):
            continue
        new, holder = [], folder
        while holder not in inside:
            new.append(holder)
            holder = holder.rpartition("/")[0]
        for holder in reversed(new):
            above, _, own_name = holder.rpartition("/")
            inside[holder] = (set(), [])
            if not is_clutter(own_name):
                inside[above][0].add(own_name)
        inside[folder][1].append(name)
    return inside


class ZipTree(ArchiveTree):
    """A .zip; the stamp of a member is its checksum."""

    def __init__(self, root: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(root)
        except Exception as error:  # zipfile raises anything on malformed data
            raise UserError(f"{printable(str(root))}: not a readable .zip archive ({_reason(error)})") from error
        self._infos: dict[str, zipfile.ZipInfo] = {}
        repeated = links = 0
        infos = [info for info in self._zip.infolist() if info.filename and not info.is_dir()]
        windows = not any("/" in info.filename for info in infos)
        for info in infos:
            name = _member_name(root, _zip_name(info, windows=windows))
            if not name:
                continue
            if not _is_zip_file(info):
                links += 1
                continue
            _check_readable(root, name, info)
            other = self._infos.get(name, info)
            repeated += (other.CRC, other.file_size) != (info.CRC, info.file_size)
            self._infos[name] = info
        self.notes = _archive_notes(root, repeated, links)
        super().__init__(root, {name: (info.file_size, info.CRC) for name, info in self._infos.items()})

    def read(self, path: str) -> bytes:
        if path not in self._infos:
            raise UserError(f"{self.where(path)}: no such file in the archive")
        _check_size(self._infos[path].file_size, self.where(path))
        try:
            return self._zip.read(self._infos[path])
        except Exception as error:  # zipfile raises anything on malformed data
            raise UserError(f"{self.where(path)}: cannot be read from the archive ({_reason(error)})") from error


class TarTree(ArchiveTree):
    """An uncompressed .tar; the stamp of a member is its place in the archive and its time."""

    def __init__(self, root: Path) -> None:
        self._places: dict[str, tuple[int, int]] = {}
        members: dict[str, tuple[int, ...]] = {}
        repeated = links = 0
        try:
            for member in _tar_members(root):
                name = _member_name(root, member.name)
                if not name or member.isdir():
                    continue
                place = (member.offset_data, member.size)
                if member.islnk():  # a further name of an earlier member
                    place = self._places.get(plain(member.linkname), (-1, -1))
                elif not member.isreg():
                    place = (-1, -1)
                if place[0] < 0:
                    links += 1
                    continue
                repeated += name in members
                self._places[name] = place
                members[name] = (place[1], place[0], int(member.mtime) if math.isfinite(member.mtime) else 0)
        except UserError:
            raise
        except Exception as error:  # tarfile raises anything on malformed data
            raise UserError(f"{printable(str(root))}: not a readable, uncompressed .tar archive") from error
        self._file = open(root, "rb")  # noqa: SIM115 - open as long as the tree lives
        self.notes = _archive_notes(root, repeated, links)
        super().__init__(root, members)

    def read(self, path: str) -> bytes:
        if path not in self._places:
            raise UserError(f"{self.where(path)}: no such file in the archive")
        offset, size = self._places[path]
        _check_size(size, self.where(path))
        try:
            data = os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise UserError(f"{self.where(path)}: cannot be read from the archive ({error.strerror})") from error
        if len(data) != size:
            raise UserError(f"{self.where(path)}: cannot be read from the archive (it ends too early)")
        return data

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


def _tar_members(root: Path) -> Iterator[tarfile.TarInfo]:
    """Headers in their order; an archive whose headers lead backwards would be read for ever and is refused."""
    last = -1
    with tarfile.open(root, "r:") as archive:
        for member in archive:
            if member.size < 0 or member.offset <= last:
                raise tarfile.ReadError("a header leads backwards")
            if member.issparse():
                raise UserError(f"{printable(str(root))}: member {member.name!r} is a sparse file: unpack the archive")
            last = member.offset
            yield member


def _archive_notes(root: Path, repeated: int, links: int) -> tuple[str, ...]:
    where, notes = printable(str(root)), []
    if repeated:
        members = "1 member comes" if repeated == 1 else f"{repeated} members come"
        notes.append(f"{where}: {members} again under the same name; the last one counts")
    if links:
        members = (
            "1 member is a link or device and is" if links == 1 else f"{links} members are links or devices and are"
        )
        notes.append(f"{where}: {members} not read")
    return tuple(notes)


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


def is_clutter(name: str) -> bool:
    """True if a file or folder is hidden, or left behind by a file manager, a storage system or an editor."""
    return name.startswith((".", "~$")) or name.endswith("~") or name.casefold() in CLUTTER


def read_file(path: str | Path, where: str) -> bytes:
    """The bytes of a regular file; `UserError` for anything else, without waiting for a pipe or a device."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                kind = _KINDS.get(stat.S_IFMT(status.st_mode), "is no file")
                raise UserError(f"{where}: {kind} and no file: remove it")
            _check_size(status.st_size, where)
            return file.read()
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise UserError(f"{where}: is a socket and no file: remove it") from error
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error


def decode_text(data: bytes, where: str) -> str:
    """A UTF-8 text, with or without byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{where}, line {line}: not UTF-8 text: save the file as UTF-8") from error


def unsafe_reason(path: str) -> str | None:
    """The reason why `path` may not be used below a root; None: it may."""
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


def plain(path: str) -> str:
    """`path` without `.` and empty components, so that every file has one spelling; an absolute one stays absolute."""
    if "//" not in path and "./" not in path and path != "." and not path.endswith(("/", "/.")):
        return path
    start = "/" if path.startswith("/") else ""
    return start + "/".join(part for part in path.split("/") if part not in ("", "."))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "other"]:
    """Other: a link to nothing or to itself, a pipe, a socket, a device."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:  # a link that leads to itself
        return "other"


def _member_name(root: Path, name: str) -> str:
    """The path of a member in its one spelling; `UserError` where it would leave the root."""
    reason = unsafe_reason(name) or ("has a name of more characters than any file" if len(name) > MAX_NAME else None)
    if reason:
        raise UserError(f"{printable(str(root))}: member {name[:200]!r} {reason}: refused")
    return plain(name)


def _zip_name(info: zipfile.ZipInfo, *, windows: bool) -> str:
    """The name of a member, with the faults of common packers undone.

    Some write UTF-8 without saying so, which the standard reads as code page 437; some write backslashes.
    """
    name = info.filename
    if not info.flag_bits & _UTF8 and not name.isascii():
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = info.filename
    return name.replace("\\", "/") if windows else name


def _check_readable(root: Path, name: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _COMPRESSION:
        kind = "encrypted" if info.flag_bits & _ENCRYPTED else f"compressed by method {info.compress_type}"
        raise UserError(f"{printable(str(root))}: member {name!r} is {kind}: unpack the archive first")


def _is_zip_file(info: zipfile.ZipInfo) -> bool:
    return stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)


def _check_size(size: int, where: str) -> None:
    if size > MAX_FILE_BYTES:
        raise UserError(f"{where}: {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read: remove the file")


def _reason(error: Exception) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__
