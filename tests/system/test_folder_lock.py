"""One run at a time on a data folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
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


def test_a_released_lock_leaves_nothing(tmp_path: Path) -> None:
    """Neither its file nor a folder that was made for it; a folder that was there, or is in use, stays."""
    FolderLock(tmp_path / "new").release()
    assert not (tmp_path / "new").exists()
    lock = FolderLock(tmp_path / "new")
    (tmp_path / "new" / "result").touch()
    lock.release()
    lock.release()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "folder", "fifo", "notes"])
def test_what_is_no_lock_is_neither_followed_nor_overwritten(tmp_path: Path, kind: str) -> None:
    """A link to a file of the user's, or a file of their own, named as the lock: one line, and nothing is changed."""
    precious, name, folder = tmp_path / "precious", tmp_path / "data" / ".running", tmp_path / "data"
    precious.write_text("years of work")
    folder.mkdir()
    makers: dict[str, Callable[[], object]] = {
        "link": lambda: name.symlink_to(precious),
        "dangling link": lambda: name.symlink_to(tmp_path / "elsewhere"),
        "hard link": lambda: name.hardlink_to(precious),
        "folder": name.mkdir,
        "fifo": lambda: os.mkfifo(name),
        "notes": lambda: name.write_text("my notes"),
    }
    makers[kind]()
    with pytest.raises(UserError, match=r"\.running is not the file by which a run holds this folder: remove it"):
        FolderLock(folder)
    assert precious.read_text() == "years of work"
    assert not (tmp_path / "elsewhere").exists()
    assert os.path.lexists(name)
    assert kind != "notes" or name.read_text() == "my notes"


def test_the_lock_of_a_killed_process_does_not_stay(tmp_path: Path) -> None:
    """Not even where a process that it has forked lives on; its file is taken over, and removed in the end."""
    code = HOLD.replace("print", "import os; child = os.fork(); child == 0 and time.sleep(600); print")
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    (orphan,) = psutil.Process(holder.pid).children()
    try:
        holder.kill()
        holder.wait()
        assert (tmp_path / ".running").exists()
        FolderLock(tmp_path).release()
        assert orphan.is_running()
    finally:
        orphan.kill()
    assert not list(tmp_path.iterdir())


def test_whoever_inherits_the_lock_keeps_it_while_it_lives(tmp_path: Path) -> None:
    """The holder is killed and its child ends a second later: the next run waits for that, and then has the folder."""
    code = HOLD.replace(
        "print(",
        "import subprocess; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1.5)'], stdin=lock.fileno()); print(",
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.kill()
    holder.wait()
    begin = time.monotonic()
    FolderLock(tmp_path).release()
    assert time.monotonic() - begin > 0.3


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, also for a user who may write everywhere, as root may, where the storage is read-only."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("transferscope.system.folder_lock.os.open", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Read-only file system\)"):
        FolderLock(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file or a link to nothing is in its place."""
    (tmp_path / "data").touch()
    with pytest.raises(UserError, match="data is a file: results go there, so put a folder in its place"):
        FolderLock(tmp_path / "data")
    (tmp_path / "link").symlink_to("unmounted/disk")
    with pytest.raises(UserError, match="link is a link to unmounted/disk, which does not exist: results go there"):
        FolderLock(tmp_path / "link")
    with pytest.raises(UserError, match=r"deep cannot be written \(Not a directory\)"):
        FolderLock(tmp_path / "data" / "deep")


def test_a_link_to_a_folder_is_that_folder(tmp_path: Path) -> None:
    """Results may lie on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    lock = FolderLock(tmp_path / "data")
    with pytest.raises(UserError, match="is in use by another run"):
        FolderLock(tmp_path / "disk")
    lock.release()
    assert (tmp_path / "disk").is_dir()
