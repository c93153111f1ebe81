from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from damage import flip
from transferscope.experiment.options import PictureOptions
from transferscope.images import pack as pack_module
from transferscope.images import partial as partial_module
from transferscope.images.decode import decode_image
from transferscope.images.domainnet import read_domainnet
from transferscope.images.pack import is_packed_from, pack_split
from transferscope.images.split import PackedSplit
from transferscope.system.errors import UserError

PICTURES = PictureOptions(store_size=8)
MakeDomain = Callable[..., Path]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that packing decodes, as they are."""
    seen: list[str] = []

    def spy(data: bytes, where: str, *options: Any) -> Image.Image:
        seen.append(where)
        return decode_image(data, where, *options)

    monkeypatch.setattr(pack_module, "decode_image", spy)
    return seen


def test_stored_equals_an_independent_decode(make_domain: MakeDomain, tmp_path: Path) -> None:
    """Every stored image is what Pillow alone makes of the file, in the list's order, with its label and id."""
    root = make_domain(train=(40, 30), suffix=".jpg")
    split = pack_split(read_domainnet(root, "clipart"), "train", PICTURES, tmp_path / "out")
    assert split.images.shape == (70, 3, 8, 8)
    lines = (root / "clipart_train.txt").read_text().splitlines()
    for i, line in enumerate(lines):
        path, label = line.split(" ")
        image = Image.open(root / path).resize((9, 8), Image.Resampling.BILINEAR).crop((0, 0, 8, 8))
        assert (split.images[i].transpose(1, 2, 0) == np.asarray(image)).all()
        assert (split.example_ids[i], split.labels[i]) == (path, int(label))
    assert (split.source_sizes == [12, 10]).all()


def test_digest_depends_on_content_alone(make_domain: MakeDomain, tmp_path: Path) -> None:
    """Place, number of threads and time do not matter; a label, a pixel or a setting does."""
    first = make_domain(folder="a")
    second = make_domain(folder="b")
    reference = pack_split(read_domainnet(first, "clipart"), "train", PICTURES, tmp_path / "1", num_workers=1)
    moved = pack_split(read_domainnet(second, "clipart"), "train", PICTURES, tmp_path / "2", num_workers=3)
    assert reference.digest == moved.digest
    other = PictureOptions(store_size=8, crop_size=6)
    assert pack_split(read_domainnet(first, "clipart"), "train", other, tmp_path / "3").digest != reference.digest
    shutil.copy(second / "clipart/owl/train_0.png", second / "clipart/apple/train_0.png")
    changed = pack_split(read_domainnet(second, "clipart"), "train", PICTURES, tmp_path / "2")
    assert changed.digest != reference.digest


def test_unchanged_split_is_not_packed_again(make_domain: MakeDomain, tmp_path: Path, decoded: list[str]) -> None:
    """The second call decodes nothing; after one file was written anew all is packed anew."""
    root = make_domain()
    source = read_domainnet(root, "clipart")
    first = pack_split(source, "train", PICTURES, tmp_path / "out")
    decoded.clear()
    assert pack_split(source, "train", PICTURES, tmp_path / "out").digest == first.digest
    assert decoded == []
    shutil.copy(root / "clipart/owl/train_0.png", root / "clipart/apple/train_1.png")
    assert pack_split(source, "train", PICTURES, tmp_path / "out").digest != first.digest
    assert len(decoded) == 5


def test_changed_list_is_packed_again(make_domain: MakeDomain, tmp_path: Path) -> None:
    """Other labels of the same files make another split."""
    root = make_domain(train=(2, 2))
    first = pack_split(read_domainnet(root, "clipart"), "train", PICTURES, tmp_path / "out")
    (root / "clipart_train.txt").write_text(
        "".join(f"clipart/{n}/train_0.png {i}\n" for i, n in enumerate(["apple", "owl"]))
    )
    second = pack_split(read_domainnet(root, "clipart"), "train", PICTURES, tmp_path / "out")
    assert (len(first), len(second)) == (4, 2)


def test_continues_where_it_was_stopped(
    make_domain: MakeDomain, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stopped attempt had packed is not decoded again, and the result is that of an unbroken run."""
    monkeypatch.setattr(pack_module, "CHUNK", 4)
    source = read_domainnet(make_domain(train=(20, 20)), "clipart")
    whole = pack_split(source, "train", PICTURES, tmp_path / "whole")
    decoded.clear()
    seen = 0

    def stop(count: int) -> None:
        nonlocal seen
        seen += count
        if seen >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_split(source, "train", PICTURES, tmp_path / "out", num_workers=1, progress=stop)
    assert not (tmp_path / "out").exists()
    before = len(decoded)
    split = pack_split(source, "train", PICTURES, tmp_path / "out")
    assert split.digest == whole.digest
    assert len(decoded) - before <= 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out", "whole"]


def test_torn_images_of_a_stopped_attempt_are_packed_again(make_domain: MakeDomain, tmp_path: Path) -> None:
    """Pixels that are not those the journal noted, and files changed since, are not trusted."""
    root = make_domain(train=(20, 20))
    source = read_domainnet(root, "clipart")
    whole = pack_split(source, "train", PICTURES, tmp_path / "whole")
    bad = root / "clipart/owl/train_19.png"
    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"train_19.png: not an image"):
        pack_split(source, "train", PICTURES, tmp_path / "out", num_workers=1)
    bad.write_bytes(good)
    with open(tmp_path / ".out.partial/images.npy", "r+b") as file:
        file.seek(300)
        file.write(b"torn")
    assert pack_split(source, "train", PICTURES, tmp_path / "out").digest == whole.digest


@pytest.mark.parametrize("field", ["fingerprint", "digest", "size", "checksum"])
def test_a_damaged_journal_is_not_trusted(make_domain: MakeDomain, tmp_path: Path, field: str) -> None:
    """One bit of any field of a row: its image is packed again, with the size of the original."""
    root = make_domain(train=(20, 20))
    source = read_domainnet(root, "clipart")
    whole = pack_split(source, "train", PICTURES, tmp_path / "whole")
    bad = root / "clipart/owl/train_19.png"
    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"train_19.png: not an image"):
        pack_split(source, "train", PICTURES, tmp_path / "out", num_workers=1)
    bad.write_bytes(good)
    dtype = partial_module.JOURNAL_DTYPE
    flip(tmp_path / ".out.partial/journal.bin", 3 * dtype.itemsize + dtype.fields[field][1])
    split = pack_split(source, "train", PICTURES, tmp_path / "out")
    assert split.digest == whole.digest
    assert np.array_equal(split.source_sizes, whole.source_sizes)


@pytest.mark.parametrize(
    "name", ["images.npy", "image_digests.npy", "labels.npy", "source_sizes.npy", "example_ids.json", "split.json"]
)
@pytest.mark.parametrize("damage", ["bit", "cut off", "deleted"])
def test_a_damaged_split_is_packed_again(
    make_domain: MakeDomain, tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the bytes that there were; a warning names the file."""
    source = read_domainnet(make_domain(), "clipart")
    folder = tmp_path / "out"
    pack_split(source, "train", PICTURES, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    time.sleep(0.02)
    if damage == "bit":
        flip(folder / name, -2)
    elif damage == "deleted":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(before[name][:-2])
    pack_split(source, "train", PICTURES, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert f"{name} is damaged" in caplog.text or damage == "deleted"


def test_damage_that_shows_when_an_image_is_read_is_packed_again(make_domain: MakeDomain, tmp_path: Path) -> None:
    """A bad disk changes no time: the image is refused when it is read, and the next packing reads them all."""
    source = read_domainnet(make_domain(), "clipart")
    folder = tmp_path / "out"
    before = pack_split(source, "train", PICTURES, folder).gather([0])
    flip(folder / "images.npy", 130)
    time.sleep(0.02)
    os.utime(folder / "split.json")  # as if the image had been damaged before
    assert pack_split(source, "train", PICTURES, folder).gather([1]).shape[0] == 1
    time.sleep(0.02)
    with pytest.raises(UserError, match="image 0 is not what was packed"):
        PackedSplit.open(folder).gather([0])
    assert (pack_split(source, "train", PICTURES, folder).gather([0]) == before).all()


def test_other_settings_start_anew(make_domain: MakeDomain, tmp_path: Path) -> None:
    """A half-done split of another size is not continued."""
    root = make_domain()
    source = read_domainnet(root, "clipart")
    bad = root / "clipart/owl/train_1.png"
    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"not an image"):
        pack_split(source, "train", PICTURES, tmp_path / "out")
    bad.write_bytes(good)
    split = pack_split(source, "train", PictureOptions(store_size=6), tmp_path / "out")
    assert split.images.shape == (5, 3, 6, 6)
    assert split.digest == pack_split(source, "train", PictureOptions(store_size=6), tmp_path / "again").digest


def test_bad_images_may_be_dropped(make_domain: MakeDomain, tmp_path: Path) -> None:
    """`drop` leaves bad files out, lists them, and keeps the others as if the bad had not been listed."""
    root = make_domain(train=(30, 30))
    for name in ("apple/train_0.png", "apple/train_9.png", "owl/train_29.png"):
        (root / "clipart" / name).write_bytes(b"no image")
    source = read_domainnet(root, "clipart")
    split = pack_split(source, "train", PICTURES, tmp_path / "out", on_bad_image="drop")
    assert [file.path for file in split.dropped] == [
        "clipart/apple/train_0.png", "clipart/apple/train_9.png", "clipart/owl/train_29.png"
    ]  # fmt: skip
    assert "not an image" in split.dropped[0].reason
    lines = (root / "clipart_train.txt").read_text().splitlines(keepends=True)
    (root / "clipart_train.txt").write_text("".join(lines[1:9] + lines[10:59]))
    clean = pack_split(read_domainnet(root, "clipart"), "train", PICTURES, tmp_path / "clean")
    assert split.digest == clean.digest
    assert split.example_ids == clean.example_ids


def test_dropping_is_asked_for_each_time(make_domain: MakeDomain, tmp_path: Path) -> None:
    """A split with dropped files is not taken where bad files shall stop."""
    root = make_domain()
    (root / "clipart/owl/train_0.png").write_bytes(b"")
    source = read_domainnet(root, "clipart")
    pack_split(source, "train", PICTURES, tmp_path / "out", on_bad_image="drop")
    with pytest.raises(UserError, match=r"train_0.png: the file is empty"):
        pack_split(source, "train", PICTURES, tmp_path / "out")
    assert len(PackedSplit.open(tmp_path / "out")) == 4


def test_all_images_bad(make_domain: MakeDomain, tmp_path: Path) -> None:
    """Dropping everything is an error, not an empty split."""
    root = make_domain(train=(1, 1))
    for name in ("apple", "owl"):
        (root / f"clipart/{name}/train_0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"clipart: every image of part train is bad"):
        pack_split(read_domainnet(root, "clipart"), "train", PICTURES, tmp_path / "out", on_bad_image="drop")


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_full_disk(make_domain: MakeDomain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A full disk is told in one line, and nothing is left behind, neither half a split nor its space."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = read_domainnet(make_domain(), "clipart")
    monkeypatch.setattr(partial_module.os, call, full)
    with pytest.raises(
        UserError, match=r"no space left on device while writing .*out: .* GB are needed: free some space"
    ):
        pack_split(source, "train", PICTURES, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_old_split_stays_until_the_new_one_is_whole(make_domain: MakeDomain, tmp_path: Path) -> None:
    """A failed attempt leaves the split that was there."""
    root = make_domain()
    source = read_domainnet(root, "clipart")
    first = pack_split(source, "train", PICTURES, tmp_path / "out")
    (root / "clipart/owl/train_0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"not an image"):
        pack_split(source, "train", PICTURES, tmp_path / "out")
    assert PackedSplit.open(tmp_path / "out").digest == first.digest


def test_two_processes_do_not_pack_into_one_folder(make_domain: MakeDomain, tmp_path: Path) -> None:
    """While one attempt holds the lock another is told to wait."""
    source = read_domainnet(make_domain(), "clipart")
    with (
        partial_module.PartialSplit(tmp_path / "out", "key", (1, 1, 1, 1)),
        pytest.raises(UserError, match=r"another process is packing this split"),
    ):
        pack_split(source, "train", PICTURES, tmp_path / "out")


def test_progress_is_told(make_domain: MakeDomain, tmp_path: Path) -> None:
    """The hook hears of every image once."""
    counts: list[int] = []
    source = read_domainnet(make_domain(train=(30, 30)), "clipart")
    pack_split(source, "train", PICTURES, tmp_path / "out", progress=counts.append)
    assert sum(counts) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_bad_image": "skip"}, "on_bad_image is 'skip': it may be 'stop' or 'drop'"),
        ({"num_workers": 0}, "num_workers is 0: give a positive number"),
        ({"part": "validation"}, "clipart has no part 'validation': it has train, test"),
    ],
)
def test_bad_options(make_domain: MakeDomain, tmp_path: Path, options: dict[str, object], message: str) -> None:
    """A wrong option is named with what it may be."""
    source = read_domainnet(make_domain(), "clipart")
    arguments = {"part": "train", "pictures": PICTURES, "folder": tmp_path / "out", **options}
    with pytest.raises(UserError, match=message):
        pack_split(source, **arguments)


def test_files_of_another_time_are_compared_once(make_domain: MakeDomain, tmp_path: Path, decoded: list[str]) -> None:
    """A copy without times is the same data set; it is decoded once to see that, and a changed pixel is another."""
    source = read_domainnet(make_domain(), "clipart")
    split = pack_split(source, "train", PICTURES, tmp_path / "out")
    for path in source.train.paths:
        os.utime(source.root / path, (1, 1))
    decoded.clear()
    assert is_packed_from(split, source, "train", PICTURES)
    assert len(decoded) == len(split)
    again = PackedSplit.open(tmp_path / "out")
    decoded.clear()
    assert is_packed_from(again, source, "train", PICTURES)
    assert pack_split(source, "train", PICTURES, tmp_path / "out").digest == split.digest
    assert decoded == []
    assert not is_packed_from(again, source, "train", PictureOptions(store_size=8, mean=(0.5,)))
    assert decoded == []
    Image.new("RGB", (12, 10), (1, 2, 3)).save(source.root / source.train.paths[-1])
    assert not is_packed_from(again, source, "train", PICTURES)
    (source.root / source.train.paths[-1]).write_bytes(b"")
    assert not is_packed_from(again, source, "train", PICTURES)
