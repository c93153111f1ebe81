"""Files in a .zip or an uncompressed .tar."""

from __future__ import annotations

import math
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from transferscope.images.file_tree import FileTree, check_size, is_clutter, plain, printable, unsafe_reason
from transferscope.system.errors import UserError

MAX_NAME = 4096
"""Characters in the path of an archive's member; no file system has longer ones."""

_COMPRESSION = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_ENCRYPTED, _UTF8 = 0x1, 0x800


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
        check_size(self._infos[path].file_size, self.where(path))
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
        check_size(size, self.where(path))
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


def _reason(error: Exception) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__
