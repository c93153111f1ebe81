from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from transferscope.experiment.options import PictureOptions
from transferscope.images.chexpert import read_chexpert
from transferscope.images.domainnet import read_domainnet
from transferscope.images.pack import pack_split
from transferscope.images.shared_images import contradicting_labels, count_shared_images, image_overlap
from transferscope.images.split import PackedSplit, replace_info
from transferscope.images.summary import (
    drawn_examples,
    dropped_files,
    label_cooccurrence,
    label_counts,
    label_shift,
    patient_overlap,
    summarise_splits,
)
from transferscope.images.union import union_split

PICTURES = PictureOptions(store_size=8)


@pytest.fixture
def photos(make_domain: Callable[..., Path], tmp_path: Path) -> list[PackedSplit]:
    root = make_domain(train=(3, 1), test=(1, 1))
    (root / "clipart/apple/train_0.png").write_bytes(b"")
    source = read_domainnet(root, "clipart")
    return [pack_split(source, part, PICTURES, tmp_path / part, on_bad_image="drop") for part in source.parts]


def test_summary_of_splits(photos: list[PackedSplit]) -> None:
    """Examples, classes, sizes of the originals and refused files, a row per split."""
    table = summarise_splits(photos)
    assert table["num_examples"].tolist() == [3, 2]
    assert table["num_dropped"].tolist() == [1, 0]
    assert table["source_width_median"].tolist() == [12, 12]
    assert table["digest"].tolist() == [split.digest for split in photos]


def test_label_counts_and_shift(photos: list[PackedSplit]) -> None:
    """Train 2/3 and 1/3, test halves: the fractions differ by 1/6 each."""
    counts = label_counts(photos)
    assert counts["count"].tolist() == [2, 1, 1, 1]
    shift = label_shift(*photos)
    assert np.allclose(shift["difference"], [-1 / 6, 1 / 6])


def test_dropped_files(photos: list[PackedSplit]) -> None:
    """Every dropped file has a row with its reason; without any the table is empty but has its columns."""
    table = dropped_files(photos)
    assert table["path"].tolist() == ["clipart/apple/train_0.png"]
    assert "the file is empty" in table["reason"][0]
    assert dropped_files(photos[1:]).columns.tolist() == ["task", "part", "path", "reason"]


def test_findings(make_chexpert: Callable[..., Path], tmp_path: Path) -> None:
    """Counts, ignored labels and co-occurrence of findings, by hand."""
    both = {"Edema": "1.0", "Consolidation": "1.0"}
    rows = [(0, 0, both), (0, 1, both), (1, 0, {"Edema": "1.0"}), (2, 0, {"Edema": "-1.0"}), (3, 0, {})]
    source = read_chexpert(make_chexpert(rows), num_train=4, num_test=1, uncertain="ignore")
    split = pack_split(source, "train", PictureOptions(store_size=8, style="chest"), tmp_path / "train")
    counts = label_counts([split]).set_index("class_name")
    expected = source.train.labels[:, 1]
    assert counts.loc["Edema", ["count", "negatives", "ignored"]].tolist() == [
        (expected == 1).sum(), (expected == 0).sum(), (expected == -1).sum()
    ]  # fmt: skip
    pairs = label_cooccurrence(split).set_index(["class_a", "class_b"])
    positive = source.train.labels == 1
    assert pairs.loc[("Consolidation", "Edema"), "count"] == (positive[:, 1] & positive[:, 2]).sum()
    assert pairs.loc[("Consolidation", "Edema"), "fraction_of_a"] == 1.0
    assert np.isnan(pairs.loc[("Cardiomegaly", "Edema"), "fraction_of_a"])


def test_drawn_examples(make_domain: Callable[..., Path]) -> None:
    """The row of a drawn example leads back to its line in the list."""
    root = make_domain(train=(6, 5))
    table = drawn_examples(read_domainnet(root, "clipart", limit=4))
    lines = (root / "clipart_train.txt").read_text().splitlines()
    train = table[table["part"] == "train"]
    assert train["position"].tolist() == [0, 1, 2, 3]
    assert [lines[row].split(" ")[0] for row in train["row"]] == train["example_id"].tolist()


def test_patient_overlap_by_hand(make_chexpert: Callable[..., Path]) -> None:
    """One patient of four images, two in each part, is shared by both parts with all images."""
    table = patient_overlap(read_chexpert(make_chexpert([(0, i, {}) for i in range(4)]), num_train=2, num_test=2))
    assert table.iloc[0].tolist() == ["chexpert", "train", "test", 1, 1, 1, 2, 2, 2, 2]


def test_images_in_two_parts(make_domain: Callable[..., Path], tmp_path: Path) -> None:
    """Equal images are counted by content on both sides of every pair of parts, also in unions and subsets."""
    root = make_domain(train=(3, 2), test=(2, 2))
    picture = (root / "clipart/apple/train_1.png").read_bytes()
    for name in ("apple/train_2", "apple/test_0", "owl/test_1"):
        (root / f"clipart/{name}.png").write_bytes(picture)
    source = read_domainnet(root, "clipart")
    train, test = (pack_split(source, part, PICTURES, tmp_path / part) for part in source.parts)
    table = image_overlap([train, test])
    assert table.to_dict("records") == [
        {
            "task": "clipart",
            "part_a": "train",
            "part_b": "test",
            "images_a": 5,
            "images_b": 4,
            "shared_a": 2,
            "shared_b": 2,
        }
    ]
    union = union_split([train], "view", tmp_path / "union")
    assert image_overlap([union, test])["shared_a"].tolist() == [2]
    assert image_overlap([union.subset([0, 1]), test.subset([0])])[["shared_a", "shared_b"]].to_numpy().tolist() == [
        [1, 1]
    ]


@pytest.mark.parametrize("link", [os.link, os.symlink, shutil.copy])
def test_images_with_different_labels_are_warned_of(
    make_domain: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    link: Callable[[Path, Path], object],
) -> None:
    """In one part or two, with their numbers and two examples; equal images of one class are right."""
    root = make_domain(train=(3, 2), test=(2, 2))
    for new, old in {
        "apple/train_2": "apple/train_0",
        "owl/train_0": "apple/train_1",
        "owl/test_1": "apple/test_1",
        "apple/test_0": "apple/train_1",
    }.items():
        (root / f"clipart/{new}.png").unlink()
        link(root / f"clipart/{old}.png", root / f"clipart/{new}.png")
    source = read_domainnet(root, "clipart")
    splits = [pack_split(source, part, PICTURES, tmp_path / part) for part in source.parts]
    labels: dict[bytes, set[int]] = {}
    for split in splits:
        for image, label in zip(split.images, split.labels, strict=True):
            labels.setdefault(np.asarray(image).tobytes(), set()).add(int(label))
    found = contradicting_labels(splits)
    assert found is not None
    assert found.images == sum(len(of) > 1 for of in labels.values()) == 2
    assert found.examples == 5
    count_shared_images(splits)
    assert (
        "clipart: images that are equal pixel for pixel as stored have different labels (2 in 5 examples, such as "
        f"{found.first[0]} and {found.first[1]}); keep each under the label that is right"
    ) in caplog.messages
    names = {
        f"{split.part}: {name}": int(label)
        for split in splits
        for name, label in zip(split.example_ids, split.labels, strict=True)
    }
    assert names[found.first[0]] != names[found.first[1]]
    assert contradicting_labels([splits[0].subset([0, 1, 2])]) is None


def test_shared_images_are_warned_of(photos: list[PackedSplit], caplog: pytest.LogCaptureFixture) -> None:
    """A warning names the number of images in two parts; without any there is none."""
    count_shared_images(photos)
    assert caplog.messages == []
    train = photos[0]
    test = PackedSplit(
        replace_info(train.info, part="test"), train.images, train.labels, train.example_ids, train.source_sizes,
        folder=train.folder,
    )  # fmt: skip
    count_shared_images([train, test])
    assert caplog.messages == [
        "clipart: 3 of 3 images of the test part are in the train part, too, pixel for pixel as stored: "
        "metrics on them say nothing about new images"
    ]
