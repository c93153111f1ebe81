"""Temporary files and folders that are locked while they are in use, so that those of a killed process can be removed.

The system gives a lock back when the process that holds it ends, however it ends. A file that bears the name of a
temporary and can be locked is in use no more; one that cannot, or lies where no locks are, is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import uuid
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)
LOCK = ".running"
"""The file by which a run holds a folder; see `folder_lock`."""
HOLDER = b"process "
"""The first bytes of such a file."""

WORK_NAME = re.compile(r"transferscope-[0-9a-f]{8}\.tmp")


class Held:
    """An open file or folder for the sake of its lock, which goes when every copy of the descriptor is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _held.add(self)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    @property
    def closed(self) -> bool:
        """True if it was closed."""
        return self._descriptor < 0

    def close(self) -> None:
        """Give the lock back. Once more does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def try_lock(self, *, shared: bool = False) -> bool:
        """Lock it at once; False where another holds it. OSError where there are no locks."""
        if fcntl is None:
            return True
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_at(self, path: Path) -> bool:
        """True if this is what `path` leads to now."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(path))
        except FileNotFoundError:
            return False


_held: weakref.WeakSet[Held] = weakref.WeakSet()


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Yield an empty hidden file beside `path` and remove it at the end, unless it was renamed."""

    def create(name: Path) -> int:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    temporary, lock = _claim(lambda: hidden_sibling(path), create)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        lock.close()


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside `path` and remove it at the end, unless it was renamed."""

    def create(name: Path) -> int:
        name.mkdir()
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC)

    temporary, lock = _claim(lambda: hidden_sibling(path), create)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.close()


@contextmanager
def work_folder() -> Iterator[Path]:
    """Yield a folder in the system's temporary folder, for the files of one job, and remove it at the end."""

    def create(name: Path) -> int:
        name.mkdir(mode=0o700)
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC)

    folder, lock = _claim(lambda: Path(tempfile.gettempdir()) / f"transferscope-{_token()}.tmp", create)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def hidden_sibling(path: Path) -> Path:
    """A new name for a temporary beside `path`."""
    return path.parent / f".{path.name}.{_token()}.tmp"


def _token() -> str:
    return uuid.uuid4().hex[:8]


def remove_leftovers(folder: Path, *, deep: bool = False, but: Collection[Path] = ()) -> list[Path]:
    """Remove the temporaries that killed processes have left in `folder`; the paths that were removed.

    deep: also below it, but not in the folders `but`, which hold what others put there, nor behind symbolic links.
    """
    removed: list[Path] = []
    left_out = {os.path.abspath(path) for path in but}
    stack = [str(folder)]
    while stack:
        try:
            entries = list(os.scandir(stack.pop()))
        except OSError:  # is not there, or may not be read
            continue
        for entry in entries:
            if NAME.fullmatch(entry.name) or entry.name == LOCK:
                if _remove_dead(Path(entry.path)):
                    removed.append(Path(entry.path))
            elif deep and entry.is_dir(follow_symlinks=False) and os.path.abspath(entry.path) not in left_out:
                stack.append(entry.path)
    return removed


def remove_dead_work() -> list[Path]:
    """Remove the work folders that killed processes have left in the system's temporary folder."""
    paths = Path(tempfile.gettempdir()).glob("transferscope-*.tmp")
    return [path for path in paths if WORK_NAME.fullmatch(path.name) and _remove_dead(path)]


def _close_copies() -> None:
    """In a forked process, which would keep the locks when this one is dead."""
    for file in list(_held):
        with suppress(OSError):
            file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)


def _claim(name: Callable[[], Path], create: Callable[[Path], int]) -> tuple[Path, Held]:
    """A new temporary, and the open file that holds its lock."""
    while True:
        temporary = name()
        file = Held(create(temporary))
        with suppress(OSError):  # no locks here
            file.try_lock(shared=True)
        if file.is_at(temporary):  # else it was taken for a leftover before it was locked
            return temporary, file
        file.close()


def _remove_dead(path: Path) -> bool:
    """Remove a file or folder of this user that is not locked; whether it was removed."""
    if fcntl is None:
        return False
    try:
        known = os.lstat(path)
        is_folder = stat.S_ISDIR(known.st_mode)
        if known.st_uid != os.getuid() or not (is_folder or stat.S_ISREG(known.st_mode)):
            return False
        # Some network storage gives a lock that excludes others only to who may write.
        flags = os.O_RDONLY if is_folder else os.O_RDWR
        file = Held(os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    try:
        if not file.try_lock() or not file.is_at(path):
            return False
        if path.name == LOCK and os.pread(file.fileno(), len(HOLDER), 0) != HOLDER:
            return False
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    finally:
        file.close()
    return True
