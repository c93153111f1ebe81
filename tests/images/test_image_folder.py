from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from transferscope.images.image_folder import ImageFolder, read_image_folder
from transferscope.system.errors import UserError


@pytest.fixture
def root(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for path in ("train/cat/1.png", "train/cat/deep/2.JPG", "train/dog/1.png", "val/cat/9.png", "val/dog/8.png"):
        write_image(tmp_path / "images" / path)
    return tmp_path / "images"


def test_classes_are_folders(root: Path) -> None:
    """Classes are the sorted folders of train; images at any depth count, in any case of extension."""
    source = read_image_folder(root)
    assert source.name == "images"
    assert source.class_names == ("cat", "dog")
    assert source.train.paths == ("train/cat/1.png", "train/cat/deep/2.JPG", "train/dog/1.png")
    assert source.test.labels.tolist() == [0, 1]
    assert source.parts == ("train", "test")


def test_val_beside_test_is_validation(root: Path, write_image: Callable[..., Path]) -> None:
    """With val and test, val is for choosing and test for testing."""
    write_image(root / "test/dog/5.png")
    source = read_image_folder(root)
    assert source.test.paths == ("test/dog/5.png",)
    assert source.validation is not None
    assert source.validation.paths == ("val/cat/9.png", "val/dog/8.png")


def test_other_files_are_passed_over(root: Path) -> None:
    """Hidden files and folders and files without an image's extension are no images."""
    (root / "train/cat/.DS_Store").write_text("x")
    (root / "train/cat/._1.png").write_text("x")
    (root / "train/cat/notes.txt").write_text("x")
    (root / "train/.cache").mkdir()
    assert len(read_image_folder(root).train) == 3


def test_newline_in_a_name(root: Path, write_image: Callable[..., Path]) -> None:
    """A name may hold anything that the file system allows."""
    write_image(root / "train/dog/a\nb.png")
    assert "train/dog/a\nb.png" in read_image_folder(root).train.paths


def test_class_only_in_val(root: Path, write_image: Callable[..., Path]) -> None:
    """A class that train lacks is an error that names its folder."""
    write_image(root / "val/emu/1.png")
    with pytest.raises(UserError, match=r"images/val/emu: class 'emu' is not in train/"):
        read_image_folder(root)


def test_empty_class(root: Path) -> None:
    """A class folder without images is an error."""
    (root / "train/emu").mkdir()
    with pytest.raises(UserError, match=r"images/train/emu: no image in this class folder"):
        read_image_folder(root)


def test_missing_part(tmp_path: Path) -> None:
    """Without train/ or without val/ and test/ nothing can be read."""
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"needs the folders train/ and val/ or test/"):
        read_image_folder(tmp_path)


@pytest.fixture
def classes(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for name, count in (("cat", 10), ("dog", 5)):
        for number in range(count):
            write_image(tmp_path / "classes" / name / f"{number}.png")
    return tmp_path / "classes"


def test_class_folders_alone_are_shared_out(classes: Path) -> None:
    """A share of each class is for testing, the same each time; every image is in one part."""
    source = read_image_folder(classes, test_share=0.2)
    assert source.test.labels.tolist() == [0, 0, 1]
    assert sorted([*source.train.paths, *source.test.paths]) == sorted(
        f"{name}/{number}.png" for name, count in (("cat", 10), ("dog", 5)) for number in range(count)
    )
    assert read_image_folder(classes, test_share=0.2).test.paths == source.test.paths
    assert "test_share 0.2" in source.sampling


def test_a_list_gives_the_order_of_the_classes(classes: Path, tmp_path: Path) -> None:
    """Labels are positions in the list, which may name classes that have no folder."""
    (tmp_path / "list.txt").write_text("emu\ndog\ncat\n")
    source = read_image_folder(classes, test_share=0.5, class_list=tmp_path / "list.txt")
    assert source.class_names == ("emu", "dog", "cat")
    assert set(source.train.labels.tolist()) == {1, 2}
    (tmp_path / "list.txt").write_text("emu\ndog\n")
    with pytest.raises(UserError, match=r"classes/cat: class 'cat' is not in .*list.txt"):
        read_image_folder(classes, test_share=0.5, class_list=tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no class in it"), (b"a\nb\na\n", "'a' is there twice"), (b"\xff", "line 1: not UTF-8 text")],
)
def test_lists_that_cannot_be_used(classes: Path, tmp_path: Path, content: bytes, message: str) -> None:
    """Each with what is wrong in it."""
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_image_folder(classes, test_share=0.5, class_list=tmp_path / "list.txt")


def test_a_share_where_there_are_parts(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Parts that are there are taken as they are; a sentence tells who set the share that it is not used."""
    source = read_image_folder(root, test_share=0.2)
    assert source.train.paths == read_image_folder(root).train.paths
    assert source.sampling == "all"
    assert caplog.messages == []
    assert ImageFolder(test_share=0.2).read(root, "photos").train.paths == source.train.paths
    assert caplog.messages == [f"{root}: test_share 0.2 is not used, because there are parts"]


def test_one_image_cannot_be_shared_out(classes: Path, write_image: Callable[..., Path]) -> None:
    """A class needs an image on each side."""
    write_image(classes / "emu/1.png")
    with pytest.raises(UserError, match=r"emu/1.png: the only image of its class"):
        read_image_folder(classes, test_share=0.2)


def test_at_most_so_many_images_of_each_class_alike(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """A fixed draw in proportion to the classes, a rare one among them; parts without a limit stay whole."""
    for part, counts in (("train", {"ant": 40, "bee": 20, "cat": 1}), ("val", {"ant": 6, "bee": 3, "cat": 2})):
        for name, count in counts.items():
            for index in range(count):
                write_image(tmp_path / part / name / f"{index:03d}.png")
    whole = ImageFolder().read(tmp_path, "toy")
    source = ImageFolder(max_train=13).read(tmp_path, "toy")
    assert np.bincount(source.train.labels).tolist() == [8, 4, 1]
    assert source.test.paths == whole.test.paths
    assert set(source.train.paths) < set(whole.train.paths)
    assert list(source.train.paths) == sorted(source.train.paths)
    assert source.train.paths == ImageFolder(max_train=13).read(tmp_path, "toy").train.paths
    assert "13 of 61 train" in source.sampling
    assert ImageFolder(max_train=100, max_test=100).read(tmp_path, "toy").sampling == "all"
    assert len(set(ImageFolder(max_train=3).read(tmp_path, "toy").train.labels)) == 3
