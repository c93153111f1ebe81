"""One run at a time on a data folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transferscope.system.errors import UserError
from transferscope.system.folder_lock import FolderLock

HOLD = "import sys, time; from pathlib import Path; from transferscope.system.folder_lock import FolderLock; lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"


def test_a_second_run_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    """Another process holds the folder; the refusal names it; when it is killed the folder is free."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"is in use by another run \(process {holder.pid} on .*wait until it has"):
            FolderLock(tmp_path)
    finally:
        holder.kill()
        holder.wait()
    FolderLock(tmp_path).release()


def test_released_means_free(tmp_path: Path) -> None:
    first = FolderLock(tmp_path / "new")
    with pytest.raises(UserError, match="in use by another run"):
        FolderLock(tmp_path / "new")
    first.release()
    FolderLock(tmp_path / "new").release()


def test_the_machines_of_one_training_share(tmp_path: Path) -> None:
    """Two shared locks go together; an exclusive one does not go with them, and is told who holds them."""
    locks = [FolderLock(tmp_path, shared=True), FolderLock(tmp_path, shared=True)]
    with pytest.raises(UserError, match=rf"in use by another run \(process {os.getpid()} on "):
        FolderLock(tmp_path)
    for lock in locks:
        lock.release()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write everywhere, as root may")
        with pytest.raises(UserError, match="cannot be written"):
            FolderLock(tmp_path / "data")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "data").touch()
    with pytest.raises(UserError, match="data cannot be written"):
        FolderLock(tmp_path / "data")
