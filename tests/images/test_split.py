from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from damage import flip
from transferscope.experiment.options import PictureOptions
from transferscope.images.domainnet import read_domainnet
from transferscope.images.pack import pack_split
from transferscope.images.seen_images import SeenImages
from transferscope.images.shuffled_images import Shuffle
from transferscope.images.split import PackedSplit
from transferscope.images.union import union_split
from transferscope.images.verified import VerifiedImages
from transferscope.system.errors import UserError
from transferscope.system.stored import DamagedError

PICTURES = PictureOptions(store_size=8)


@pytest.fixture
def split(make_domain: Callable[..., Path], tmp_path: Path) -> PackedSplit:
    return pack_split(read_domainnet(make_domain(), "clipart"), "train", PICTURES, tmp_path / "clipart")


@pytest.fixture
def other(make_domain: Callable[..., Path], tmp_path: Path) -> PackedSplit:
    return pack_split(read_domainnet(make_domain("real"), "real"), "train", PICTURES, tmp_path / "real")


@pytest.fixture
def union(split: PackedSplit, other: PackedSplit, tmp_path: Path) -> PackedSplit:
    return union_split([split, other], "real_clipart", tmp_path / "real_clipart")


def test_opened_split_knows_itself(split: PackedSplit) -> None:
    """What was packed is there when the folder is opened anew."""
    opened = PackedSplit.open(split.folder)
    assert (opened.name, opened.part, opened.class_names) == ("clipart", "train", ("apple", "owl"))
    assert (opened.num_classes, opened.multi_label, opened.generated, opened.pictures) == (2, False, False, PICTURES)
    assert (opened.labels.dtype, opened.images.dtype, len(opened)) == (np.int64, np.uint8, 5)
    assert isinstance(opened.images, VerifiedImages)
    assert isinstance(opened.images._images.base, np.memmap)
    assert not opened.images._images.flags.writeable


@pytest.mark.parametrize("kind", ["split", "union", "subset"])
def test_indexing_is_that_of_an_array(kind: str, split: PackedSplit, union: PackedSplit) -> None:
    """Numbers, slices, arrays, masks and negative indices mean what they mean for an array, in views as well."""
    view = {"split": split, "union": union, "subset": union.subset([7, 2, 2, 9])}[kind]
    images = np.stack([view.images[i] for i in range(len(view))])
    assert view.images.shape == images.shape
    mask = np.arange(len(view)) % 2 == 0
    for index in (slice(1, 3), slice(None, None, -1), np.array([3, 0, 0, -1]), mask, -1, np.array([], dtype=int)):
        assert (np.asarray(view.images[index]) == images[index]).all()
    assert (view.gather(torch.tensor([3, 0, -1])).numpy() == images[[3, 0, -1]]).all()
    assert view.gather([]).shape == (0, 3, 8, 8)
    for outside in (len(view), -len(view) - 1):
        with pytest.raises(IndexError):
            view.gather([outside])


def test_gathered_images_are_a_copy(split: PackedSplit) -> None:
    """Writing into a batch does not touch the split."""
    batch = split.gather([0])
    batch.zero_()
    assert split.gather([0]).any()


def test_union_is_the_parts_in_a_row(split: PackedSplit, other: PackedSplit, union: PackedSplit) -> None:
    """Images, labels and ids of the parts follow each other."""
    assert len(union) == 10
    assert (union.images[:5] == split.images).all()
    assert (union.images[5:] == other.images).all()
    assert union.labels.tolist() == [*split.labels, *other.labels]
    assert union.example_ids == split.example_ids + other.example_ids


def test_union_stores_no_image(union: PackedSplit, tmp_path: Path) -> None:
    """The folder of a union holds its description alone, and moves together with its parts."""
    assert [path.name for path in union.folder.iterdir()] == ["split.json"]
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("clipart", "real", "real_clipart"):
        (tmp_path / name).rename(moved / name)
    assert PackedSplit.open(moved / "real_clipart").digest == union.digest


def test_view_with_other_settings(split: PackedSplit, tmp_path: Path) -> None:
    """A union of one part may show its images otherwise; what is seen is cropped and shuffled, what is stored is not."""
    stored = split.pictures.store_size
    pictures = PictureOptions(store_size=stored, crop_size=stored - 2, shuffle={"block_size": 1, "seed": 3})
    view = union_split([split], "view", tmp_path / "view", pictures=pictures)
    assert np.array_equal(view.images[:], split.images[:])
    assert view.digest != split.digest
    expected = Shuffle((3, stored - 2, stored - 2), 1, seed=3)(split.gather([2])[..., 1:-1, 1:-1])[0]
    assert np.array_equal(SeenImages(PackedSplit.open(tmp_path / "view"))[2], expected)
    with pytest.raises(UserError, match="store_size is 4, but"):
        union_split([split], "view", tmp_path / "other", pictures=PictureOptions(store_size=4))


def test_union_of_unions(union: PackedSplit, make_domain: Callable[..., Path], tmp_path: Path) -> None:
    """A union may be a part."""
    third = pack_split(read_domainnet(make_domain("sketch"), "sketch"), "train", PICTURES, tmp_path / "sketch")
    assert len(union_split([union, third], "all", tmp_path / "all")) == 15


def test_changed_part_is_noticed(union: PackedSplit, make_domain: Callable[..., Path], tmp_path: Path) -> None:
    """A union does not silently show a part that was packed anew with other content."""
    root = make_domain("real", train=(1, 1), folder="other")
    pack_split(read_domainnet(root, "real"), "train", PICTURES, tmp_path / "real")
    with pytest.raises(UserError, match=r"real was packed again after this union was made"):
        PackedSplit.open(union.folder)


def test_union_needs_one_label_space(split: PackedSplit, make_domain: Callable[..., Path], tmp_path: Path) -> None:
    """Other class names, other settings and shared examples are refused, by name."""
    foreign = read_domainnet(make_domain("real", classes=("apple", "crow")), "real")
    crow = pack_split(foreign, "train", PICTURES, tmp_path / "crow")
    with pytest.raises(UserError, match=r"class_names of real and clipart differ .*class 1 is 'crow' and 'owl'"):
        union_split([split, crow], "both", tmp_path / "both")
    larger = pack_split(foreign, "train", PictureOptions(store_size=9), tmp_path / "larger")
    with pytest.raises(UserError, match=r"pictures of real and real differ"):
        union_split([crow, larger], "both", tmp_path / "both")
    with pytest.raises(UserError, match=r"example 'clipart/apple/train_0.png' is in two of its parts"):
        union_split([split, split], "both", tmp_path / "both")
    with pytest.raises(UserError, match=r"clipart is a view in memory"):
        union_split([split.subset([0])], "both", tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_subset_is_a_view_with_a_digest_of_its_own(split: PackedSplit) -> None:
    """A subset has the chosen examples in the chosen order; its digest follows from parent and choice."""
    subset = split.subset([4, 0])
    assert subset.example_ids == (split.example_ids[4], split.example_ids[0])
    assert subset.labels.tolist() == [1, 0]
    assert (subset.subset([1]).images[0] == split.images[0]).all()
    assert subset.digest == split.subset(torch.tensor([4, 0])).digest != split.subset([0, 4]).digest


def test_pickled_as_a_reference(split: PackedSplit, union: PackedSplit) -> None:
    """A pickle carries folders, not images, and opens to the same content."""
    for view in (split, union, union.subset([7, 1])):
        data = pickle.dumps(view)
        assert len(data) < 1000
        again = pickle.loads(data)
        assert again.digest == view.digest
        assert (again.gather([0, 1]) == view.gather([0, 1])).all()


def test_folder_without_split(tmp_path: Path) -> None:
    """A folder that holds no split is named, with what to do."""
    with pytest.raises(UserError, match=r"nothing: no packed split \(.*split.json does not exist\): run data_prep"):
        PackedSplit.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("split.json", lambda data: data[:50]),
        ("split.json", lambda data: data.replace(b"crop_size", b"crop_sise")),
        ("split.json", lambda data: data.replace(b'"format": 2', b'"format": 1')),
        ("images.npy", lambda data: data[:-1]),
        ("images.npy", lambda data: data.replace(b"|u1", b"<f8", 1)),
        ("images.npy", lambda data: data.replace(b"(5, ", b"(4, ", 1)),
        ("labels.npy", lambda data: data[:20]),
        ("labels.npy", lambda data: data.replace(b"(5,)", b"(9,)", 1)),
        ("labels.npy", lambda data: data[:-8] + bytes([1 - data[-8]]) + data[-7:]),
        ("source_sizes.npy", lambda data: data[:-1] + b"x"),
        ("image_digests.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("example_ids.json", lambda data: b'["a"]'),
    ],
)
def test_damaged_folder(split: PackedSplit, file: str, change: Callable[[bytes], bytes]) -> None:
    """A damaged file is noticed when the split is opened: cut off, of another type or shape, one label changed."""
    path = split.folder / file
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(
        DamagedError, match=rf"{file} is damaged \(.*\): `kedro run --pipelines data_prep` packs it again"
    ):
        PackedSplit.open(split.folder)


@pytest.mark.parametrize("read", ["one", "gather", "slice", "union", "subset"])
def test_a_changed_pixel_is_noticed_when_its_image_is_read(split: PackedSplit, union: PackedSplit, read: str) -> None:
    """However it is read; the others can still be read, and opening reads none."""
    flip(split.folder / "images.npy", -1)  # of the last image, 4
    opened = PackedSplit.open(split.folder)
    assert opened.gather([0, 1, 2, 3]).shape[0] == 4
    place = len(opened) - 1
    reads: dict[str, Callable[[], object]] = {
        "one": lambda: opened.images[place],
        "gather": lambda: opened.gather([0, place]),
        "slice": lambda: opened.images[:],
        "union": lambda: PackedSplit.open(union.folder).images[:],
        "subset": lambda: opened.subset([place]).images[0],
    }
    with pytest.raises(DamagedError, match=rf"images\.npy is damaged \(image {place} is not what was packed\)"):
        reads[read]()


def test_images_are_read_whole_only_where_they_were_written_since(split: PackedSplit) -> None:
    """`check` finds a changed pixel by the file's time of change; a whole split is not read again."""
    split.check()
    time.sleep(0.02)
    os.utime(split.folder / "images.npy")
    opened = PackedSplit.open(split.folder)
    opened.check()
    assert opened.images._verified.all()
    os.utime(split.folder / "split.json")
    again = PackedSplit.open(split.folder)
    time.sleep(0.02)
    flip(split.folder / "images.npy", 128)
    with pytest.raises(DamagedError, match="image 0 is not what was packed"):
        PackedSplit.open(split.folder).check()
    assert again.digest == opened.digest


def test_a_file_that_is_gone_is_named(split: PackedSplit) -> None:
    """With what makes it."""
    (split.folder / "labels.npy").unlink()
    with pytest.raises(UserError, match=r"no packed split \(.*labels\.npy does not exist\): run data_prep"):
        PackedSplit.open(split.folder)


def test_description_is_readable(split: PackedSplit) -> None:
    """split.json is plain JSON that says what the split is."""
    description = json.loads((split.folder / "split.json").read_text())
    assert description["class_names"] == ["apple", "owl"]
    assert description["digest"] == split.digest
