"""Temporary files and folders: gone at the end, and after a kill at the next run; nothing else is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from transferscope.datasets.measurements import MeasurementFolder
from transferscope.system.atomic import atomic_file, atomic_folder
from transferscope.system.temporaries import remove_dead_work, remove_leftovers, temporary_file, work_folder

KILLED = """
import os, sys, tempfile
from pathlib import Path
from transferscope.system.atomic import atomic_file, atomic_folder
from transferscope.datasets import measurements
from transferscope.system.temporaries import work_folder

tempfile.tempdir = sys.argv[2]
folder = Path(sys.argv[1])
os.replace = lambda *_, **__: os.kill(os.getpid(), 9)
with atomic_file(folder / "a" / "table.csv") as file, atomic_folder(folder / "a" / "split") as inside, work_folder() as job:
    (inside / "images.npy").touch()
    (job / "splits.pickle").touch()
    measurements.MeasurementFolder(folder / "measured")["key"] = {"loss": 1}
"""


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder."""
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path, system: Path) -> None:
    """A half-written table, folder and measurement, and the job in the system's temporary folder."""
    data = tmp_path / "data"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(data), str(system)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(files_below(data)) == 3
    assert len(list(system.iterdir())) == 1
    assert len(remove_leftovers(data, deep=True)) == 3
    assert len(remove_dead_work()) == 1
    assert not files_below(data)
    assert not list(system.iterdir())


def test_what_is_in_use_stays(tmp_path: Path, system: Path) -> None:
    """Of this process, and so of any that lives; afterwards it is gone by itself, after an error as well."""

    def fail() -> None:
        with atomic_file(tmp_path / "table.csv"), atomic_folder(tmp_path / "split"), work_folder() as job:
            (job / "file").touch()
            assert not remove_leftovers(tmp_path, deep=True)
            assert not remove_dead_work()
            assert len(list(tmp_path.glob(".*.tmp"))) == 2
            assert (job / "file").exists()
            assert job.stat().st_mode & 0o777 == 0o700
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["system"]
    assert not list(system.iterdir())


def test_what_is_not_ours_stays(tmp_path: Path, system: Path) -> None:
    """Names that only resemble a temporary's, links by such a name and what they lead to, another user's lock file."""
    data = tmp_path / "data"
    (data / "raw").mkdir(parents=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    for name in (".tmp", ".notes.tmp", "x.0123abcd.tmp", ".x.0123ABCD.tmp", ".x.0123abcd.npz"):
        (data / name).touch()
    (data / ".link.0123abcd.tmp").symlink_to(tmp_path / "precious")
    (data / "other").symlink_to(tmp_path / "precious")
    (tmp_path / "precious" / ".x.0123abcd.tmp").touch()
    (data / "raw" / ".x.0123abcd.tmp").touch()
    (data / ".running").write_text("my notes")
    os.mkfifo(data / ".fifo.0123abcd.tmp")
    for name in ("transferscope-analysis", "transferscope-0123abcd", "0123abcd.tmp"):
        (system / name).mkdir()
    (system / "transferscope-0123abcd.tmp").symlink_to(tmp_path / "precious")
    before = files_below(tmp_path)
    assert not remove_leftovers(data, deep=True, but=[data / "raw"])
    assert not remove_dead_work()
    assert files_below(tmp_path) == before
    assert len(list(system.iterdir())) == 4


def test_a_dead_lock_file_is_a_leftover(tmp_path: Path) -> None:
    """Of a training that was killed after it had finished: the next one does not need to lock its folder."""
    (tmp_path / ".running").write_text("process 1 on elsewhere\n")
    assert remove_leftovers(tmp_path) == [tmp_path / ".running"]


def test_a_name_that_is_taken_away_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run may tidy up in just that moment: the writer takes another name."""
    from transferscope.system import temporaries

    names = iter(["00000000", "11111111"])
    monkeypatch.setattr(temporaries, "_token", lambda: next(names))
    really = os.open

    def opened(path: Path, *arguments: int) -> int:
        descriptor = really(path, *arguments)
        if "00000000" in str(path):
            os.unlink(path)
        return descriptor

    monkeypatch.setattr(temporaries.os, "open", opened)
    with temporary_file(tmp_path / "x") as path:
        assert path.name == ".x.11111111.tmp"
        assert path.exists()


def test_measurements_are_read_back(tmp_path: Path) -> None:
    """Written beside their place and renamed, with nothing left beside."""
    store = MeasurementFolder(tmp_path)
    store["key"] = {"loss": [1.0, 2.0]}
    stored = store.get("key")
    assert stored is not None
    assert stored["loss"].tolist() == [1.0, 2.0]
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".safetensors"]
