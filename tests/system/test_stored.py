"""Stored files prove their content, and what is damaged is one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from damage import flip
from transferscope.system import stored
from transferscope.system.atomic import atomic_file
from transferscope.system.stored import (
    DamagedError,
    check,
    is_whole,
    path_in_data,
    read_json,
    remembered_digests,
    stored_file,
    write_json,
)


def write(path: Path, text: str = "a,b\n1,2\n") -> Path:
    """A table as a dataset writes it."""
    with stored_file(path) as temporary:
        temporary.write_text(text)
    return path


def forget() -> None:
    """As a new process begins."""
    stored._whole.clear()


@pytest.mark.parametrize("name", ["table.csv", "index.json"])
def test_every_bit_counts(tmp_path: Path, name: str) -> None:
    """Any bit of a file, or of the digest beside it, makes it damaged; as it was, it is whole again."""
    path = tmp_path / name
    if name.endswith(".json"):
        write_json(path, {"epochs": [1, 2]})
    else:
        write(path)
    for file in sorted(tmp_path.iterdir()):
        whole = file.read_bytes()
        for position in range(len(whole)):
            flip(file, position, position % 8)
            forget()
            assert not is_whole(path), (file, position)
        file.write_bytes(whole)
    forget()
    check(path)


def test_the_digest_beside_a_file_is_that_of_sha256sum(tmp_path: Path) -> None:
    """So that it can be verified without this package."""
    write(tmp_path / "table.csv")
    beside = (tmp_path / ".table.csv.sha256").read_text()
    expected = subprocess.run(["sha256sum", "table.csv"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert beside == expected.stdout


def test_a_file_of_another_place_is_damaged(tmp_path: Path) -> None:
    """A table with its digest in the place of another task's, below a line that `sha256sum` passes over.

    Moved with its data folder, or copied out of it, it is whole; so is one whose digest holds the name alone, as those
    that were written before.
    """
    data = tmp_path / "data"
    ours, others = (write(data / "07_model_output" / task / "barriers.csv", task) for task in ("clipart", "real"))
    (others.parent / "results").mkdir()
    beside = [path.with_name(".barriers.csv.sha256") for path in (ours, others)]
    assert beside[1].read_text().startswith("# 07_model_output/real/barriers.csv\n")
    subprocess.run(["sha256sum", "--strict", "-c", beside[1].name], cwd=others.parent, capture_output=True, check=True)
    copy = tmp_path / "barriers.csv"
    shutil.copy(others, copy)
    shutil.copy(beside[1], tmp_path)
    check(copy)
    forget()
    check(others.parent / "results" / ".." / others.name)
    shutil.copy(others, ours)
    shutil.copy(beside[1], beside[0])
    with pytest.raises(
        DamagedError, match=r"clipart/barriers\.csv is damaged \(it was written as 07_model_output/real/"
    ):
        check(ours)
    data.rename(tmp_path / "moved")
    check(tmp_path / "moved" / others.relative_to(data))
    assert not is_whole(tmp_path / "moved" / ours.relative_to(data))
    old = tmp_path / "moved" / beside[1].relative_to(data)
    old.write_text(old.read_text().partition("\n")[2])
    forget()
    check(tmp_path / "moved" / others.relative_to(data))


def test_json_of_another_place_is_damaged(tmp_path: Path) -> None:
    """Where it was written with its place, and the name is the same."""
    ours, others = (tmp_path / "08_reporting" / task / "results.json" for task in ("clipart", "real"))
    write_json(others, {"task": "real"}, path_in_data(others))
    assert read_json(others) == {"task": "real"}
    ours.parent.mkdir()
    shutil.copy(others, ours)
    with pytest.raises(DamagedError, match=r"it was written as 08_reporting/real/results\.json"):
        read_json(ours)


def test_a_file_without_digest_is_damaged(tmp_path: Path) -> None:
    """One that somebody has put there, of any kind."""
    for name in ("table.csv", "index.json", "weights.safetensors"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(DamagedError, match=rf"{name} is damaged \(.*digest.*\): `kedro run` makes it anew"):
            check(tmp_path / name)


def test_files_in_each_others_place_are_damaged(tmp_path: Path) -> None:
    """Also where their digests were exchanged too."""
    a, b = write(tmp_path / "a.csv"), write(tmp_path / "b.csv", "b\n")
    for exchanged in [(a, b), (tmp_path / ".a.csv.sha256", tmp_path / ".b.csv.sha256")]:
        os.rename(exchanged[0], tmp_path / "x")
        os.rename(exchanged[1], exchanged[0])
        os.rename(tmp_path / "x", exchanged[1])
        assert not is_whole(a)
        assert not is_whole(b)
    write_json(tmp_path / "series.json", {})
    os.rename(tmp_path / "series.json", tmp_path / "results.json")
    with pytest.raises(DamagedError, match="another file is in its place"):
        read_json(tmp_path / "results.json")


def test_a_kill_between_file_and_digest_leaves_a_damaged_file(tmp_path: Path) -> None:
    """The new content with the old digest is never taken for whole; equal content is."""
    path = write(tmp_path / "table.csv")
    for text, whole in (("a,b\n1,3\n", False), ("a,b\n1,2\n", True)):
        with atomic_file(path) as temporary:
            temporary.write_text(text)
        assert is_whole(path) == whole


def test_a_file_is_read_once_per_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after it was written nor after it was verified is it read again, until it changes."""
    read: list[Path] = []
    original = stored._damage_beside
    monkeypatch.setattr(stored, "_damage_beside", lambda path: read.append(path) or original(path))
    path = write(tmp_path / "table.csv")
    check(path)
    assert not read
    forget()
    check(path)
    check(path)
    assert len(read) == 1
    os.utime(path)
    check(path)
    assert len(read) == 2


def test_json_begins_with_its_digest_and_stays_json(tmp_path: Path) -> None:
    """What is written comes back, without what was added; equal content gives equal bytes."""
    write_json(tmp_path / "a.json", {"x": [1, None, "ç"], "digest": "of something else"})
    assert read_json(tmp_path / "a.json") == {"x": [1, None, "ç"], "digest": "of something else"}
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["seal", "file", "x", "digest"]


def test_a_folder_in_the_place_of_a_file_is_damaged(tmp_path: Path) -> None:
    """And a missing file is missing."""
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(DamagedError, match="it is no file"):
        check(tmp_path / "table.csv")
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "none.csv")


def test_digests_of_large_files_are_remembered_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one command to the next; a damaged memory is forgotten, and a pipe is not read."""
    monkeypatch.setattr(stored, "LARGE", 4)
    path, memory = tmp_path / "b.pth", tmp_path / "cache" / "digests.json"
    read: list[Path] = []
    original = stored.file_digest
    monkeypatch.setattr(stored, "file_digest", lambda path: read.append(path) or original(path))

    def digest() -> str | None:
        stored._digests.clear()
        forget()
        return remembered_digests(memory)(str(path))

    assert digest() is None
    path.write_bytes(b"weights")
    first = digest()
    assert digest() == first
    assert len(read) == 1
    flip(memory, -4)
    assert digest() == first
    assert len(read) == 2
    status = path.stat()
    path.write_bytes(b"weighty")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest() not in (first, None)
    path.unlink()
    os.mkfifo(path)
    assert digest() is None
