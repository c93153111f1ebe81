"""Files below one root, by paths that are relative to it, use forward slashes and may not leave it.

Hidden files and what file managers, storage systems and editors leave behind (`is_clutter`) are never listed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from transferscope.system.errors import UserError

MAX_FILE_BYTES = 1 << 30
"""Larger files are refused: no list and no image is that large, a crafted archive member may be."""

CLUTTER = frozenset(
    {
        "__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin",
        "recycler", "system volume information", "lost+found", "network trash folder", "temporary items",
        "cvs", "node_modules", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
    }
)  # fmt: skip
"""Files and folders, in lower case, that file managers, storage systems and tools of programmers leave behind."""


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


def is_clutter(name: str) -> bool:
    """True if a file or folder is hidden, or left behind by a file manager, a storage system or an editor."""
    return name.startswith((".", "~$")) or name.endswith("~") or name.casefold() in CLUTTER


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


def check_size(size: int, where: str) -> None:
    """Raise UserError for a file of more than `MAX_FILE_BYTES`."""
    if size > MAX_FILE_BYTES:
        raise UserError(f"{where}: {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read: remove the file")


def joined(folder: str, name: str) -> str:
    """The path of what is called `name` in a folder; `""` is the root."""
    return f"{folder}/{name}" if folder else name
