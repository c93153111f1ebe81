"""A data set that is given as the class of every file."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferscope.images.source import ImageSource
from transferscope.system.errors import UserError

TRAIN = [("a.png", "cat"), ("b.png", "dog")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_classes_are_in_alphabetical_order_and_examples_in_their_own(root: Path) -> None:
    """Labels are positions among the classes of the train part."""
    source = ImageSource.from_labels(root, train=reversed(TRAIN), test=[("c.png", "cat")])
    assert source.class_names == ("cat", "dog")
    assert source.train.paths == ("b.png", "a.png")
    assert source.train.labels.tolist() == [1, 0]
    assert source.test.labels.tolist() == [0]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([*TRAIN, ("a.png", "dog")], [], "train: a.png is listed twice, with the classes 'cat' and 'dog'"),
        (TRAIN, [("c.png", "emu")], "test: c.png has the class 'emu', of which there are no images to train on"),
        (TRAIN, [("d.png", "cat")], "test: 1 of 1 files do not exist, the first is d.png"),
        (TRAIN, [], "test: no images are listed"),
        ([("a.png", 1), ("b.png", 2)], [], "'a.png' has the class 1: give paths and names of classes as text"),
        ([("a.png", "cat")], [], "one class only"),
    ],
)
def test_a_wrong_list_is_one_line(
    root: Path, train: list[tuple[str, str]], test: list[tuple[str, str]], message: str
) -> None:
    """Each mistake names the part and the file."""
    with pytest.raises(UserError, match=message):
        ImageSource.from_labels(root, train=train, test=test)
