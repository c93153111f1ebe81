"""One run at a time on a folder."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from transferscope.system.errors import UserError
from transferscope.system.temporaries import HOLDER, LOCK, Held

DYING_SECONDS = 20.0
"""Seconds to wait for the processes of a run that was killed; they end by themselves soon after it."""

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

OWN_DATA = "give this one a folder of its own (`data` in conf/<env>/globals.yml)"
OWN_MODELS = "give this one a `models_folder` of its own"

logger = logging.getLogger(__name__)


class FolderLock:
    """Holds a folder until `release`, or until this process, and those that inherit the lock, end, however they end.

    The system's lock on the file `.running` counts, not that the file exists: a file that is left over locks nothing.
    `release` removes it. A shared lock is for the machines of one training, which all run one command on one folder;
    it keeps others out, and names the last of the machines to them.

    Raises:
        UserError: Another process holds the folder, it cannot be written, or `.running` is something else.
    """

    def __init__(self, folder: Path, *, shared: bool = False, remedy: str = OWN_DATA) -> None:
        self._path = folder / LOCK
        try:
            self._made = _make(folder)
            self._file = _open(self._path)
            deadline = time.monotonic() + DYING_SECONDS
            while not self._is_locked(shared=shared):
                holder = _read(self._file)
                self._file.close()
                if not _is_dead(holder) or time.monotonic() > deadline:
                    who = holder.strip() or "an unknown process"
                    raise UserError(f"{folder} is in use by another run ({who}): wait until it has ended, or {remedy}")
                time.sleep(0.1)
                self._file = _open(self._path)
        except FileExistsError as error:
            what = f"a link to {os.readlink(folder)}, which does not exist" if folder.is_symlink() else "a file"
            raise UserError(f"{folder} is {what}: results go there, so put a folder in its place") from error
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error.strerror}): results go there") from error
        os.ftruncate(self._file.fileno(), 0)
        os.pwrite(self._file.fileno(), f"{HOLDER.decode()}{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        atexit.register(self.release)

    def release(self) -> None:
        """Give the folder back. Once more does nothing."""
        atexit.unregister(self.release)
        if self._file.closed:
            return
        with suppress(OSError):
            if self._file.try_lock():  # not where another machine shares it
                self._path.unlink()
                if self._made:
                    self._path.parent.rmdir()  # where nothing was written
        self._file.close()

    def fileno(self) -> int:
        """The descriptor; a process that inherits it keeps the lock for as long as it lives."""
        return self._file.fileno()

    def _is_locked(self, *, shared: bool) -> bool:
        try:
            if not self._file.try_lock(shared=shared):
                return False
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            logger.warning("%s: this file system has no locks; nothing keeps a second run away", self._path.parent)
        if os.fstat(self._file.fileno()).st_nlink > 0:
            return True
        # Who held it before has removed the file since it was opened here.
        self._file.close()
        self._file = _open(self._path)
        return self._is_locked(shared=shared)


@contextmanager
def run_folder_held(folder: Path, *, shared: bool = False) -> Iterator[FolderLock]:
    """Inside, no other training has the folder of this run: UserError where one has."""
    lock = FolderLock(folder, shared=shared, remedy=OWN_MODELS)
    try:
        yield lock
    finally:
        lock.release()


def forget_dead_holder(folder: Path) -> None:
    """Remove the note that a process has left in a folder which was killed after its last file; a live one keeps it."""
    if (folder / LOCK).exists():
        with suppress(UserError):
            FolderLock(folder).release()


def _make(folder: Path) -> bool:
    """True if the folder had to be made."""
    missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _open(path: Path) -> Held:
    """The lock's file, made if need be; nothing else that bears its name is opened, followed or overwritten."""
    wrong = UserError(f"{path} is not the file by which a run holds this folder: remove it, or call it something else")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = Held(os.open(path, flags, 0o666))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise wrong from error
        raise
    facts = os.fstat(file.fileno())
    is_plain = stat.S_ISREG(facts.st_mode) and facts.st_nlink <= 1
    if not is_plain or not (_read(file) or HOLDER.decode()).startswith(HOLDER.decode()):
        file.close()
        raise wrong
    return file


def _read(file: Held) -> str:
    return os.pread(file.fileno(), 300, 0).decode(errors="replace")


def _is_dead(holder: str) -> bool:
    """True if the process that has noted itself in a lock's file ran on this machine and has ended."""
    match = re.fullmatch(r"process (\d+) on (.+)\n", holder)
    return match is not None and match[2] == socket.gethostname() and not psutil.pid_exists(int(match[1]))
