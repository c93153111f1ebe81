"""Atomic writes: the old content or the new, whatever happens between."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from transferscope.system.atomic import atomic_file, atomic_folder
from transferscope.system.errors import UserError


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Success leaves the new content and no temporary file."""
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path) -> None:
    """Fail in the middle of writing a file."""
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError


def write_half_folder(path: Path) -> None:
    """Fail in the middle of writing a folder."""
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("half")
        raise ZeroDivisionError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """An error in the middle leaves the old content and no temporary file."""
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    """It stays, and no temporary file beside it."""
    (tmp_path / "table.csv").mkdir()
    message = r"table\.csv is a folder, where a file is to be written: remove or rename it"
    with pytest.raises(UserError, match=message), atomic_file(tmp_path / "table.csv") as temporary:
        temporary.write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    """The same for folders, with all that they hold."""
    path = tmp_path / "split"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half_folder(path)
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_with_all_it_holds(tmp_path: Path) -> None:
    """Files of the old folder do not survive in the new one."""
    path = tmp_path / "split"
    for name in ("a", "b"):
        with atomic_folder(path) as temporary:
            (temporary / name).write_text(name)
    assert [file.name for file in path.iterdir()] == ["b"]


def test_a_full_disk_is_a_users_error_that_names_the_file(tmp_path: Path) -> None:
    """ENOSPC becomes one line: which file, and what to do."""
    path = tmp_path / "table.csv"
    with (
        pytest.raises(UserError, match=r"no space left on device while writing .*table.csv: free some space"),
        atomic_file(path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not path.exists()


def test_a_really_full_disk(tmp_path: Path) -> None:
    """Writing to a device that is full ends in the same message."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(UserError, match="no space left"), atomic_file(tmp_path / "table.csv"):
        Path("/dev/full").write_bytes(b"x" * 100_000)
