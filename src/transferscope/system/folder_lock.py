"""One run at a time on a data folder."""

from __future__ import annotations

import errno
import logging
import os
import socket
from pathlib import Path

from transferscope.system.errors import UserError

LOCK = ".running"

logger = logging.getLogger(__name__)


class FolderLock:
    """Holds a folder until `release`, or until this process ends, however it ends.

    The system's lock on the file `.running` counts, not that the file exists: a file that is left over locks nothing.
    A shared lock is for the machines of one training, which all run one command on one folder; it keeps others out,
    and names the last of the machines to them.

    Raises:
        UserError: Another process holds the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / LOCK).open("a+")
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error.strerror}): results go there") from error
        try:
            _lock(self._file.fileno(), shared=shared)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "an unknown process"
            self._file.close()
            raise UserError(
                f"{folder} is in use by another run ({holder}): wait until it has ended, "
                "or give this one a folder of its own (`data` in conf/<env>/globals.yml)"
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def _lock(descriptor: int, *, shared: bool) -> None:
    """Take the lock or raise BlockingIOError; where the file system, or the system, has no locks, warn."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        logger.warning("this file system has no locks: nothing keeps a second run from the same data folder")
