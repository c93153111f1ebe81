from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from transferscope.experiment.options import PictureOptions
from transferscope.images.domainnet import read_domainnet
from transferscope.images.pack import pack_split
from transferscope.system.errors import UserError


def test_reads_lists_in_their_order(make_domain: Callable[..., Path]) -> None:
    """Paths, labels and ids follow the list; class names come from the paths."""
    source = read_domainnet(make_domain(), "clipart")
    assert source.class_names == ("apple", "owl")
    assert source.train.paths[3] == "clipart/owl/train_0.png"
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.test.example_ids == ("clipart/apple/test_0.png", "clipart/owl/test_0.png", "clipart/owl/test_1.png")
    assert (source.multi_label, source.generated, source.sampling) == (False, False, "all")


def test_lists_may_lie_in_txt(make_domain: Callable[..., Path]) -> None:
    """`txt/` is searched when the list is not beside the domain."""
    root = make_domain()
    (root / "txt").mkdir()
    for part in ("train", "test"):
        (root / f"clipart_{part}.txt").rename(root / "txt" / f"clipart_{part}.txt")
    assert len(read_domainnet(root, "clipart").train) == 5


def test_limit_draws_the_studys_subset(make_domain: Callable[..., Path]) -> None:
    """A part above the limit is drawn by RandomState(2020).choice, a part below it is whole."""
    from numpy.random import RandomState

    source = read_domainnet(make_domain(train=(6, 5)), "clipart", limit=4)
    expected = RandomState(2020).choice(11, 4, replace=False)
    assert source.train.rows is not None
    assert source.train.rows.tolist() == expected.tolist()
    assert len(source.test) == 3
    assert source.sampling.startswith("paper")


def test_odd_but_valid_lists(make_domain: Callable[..., Path], write_image: Callable[..., Path]) -> None:
    """Spaces and unicode in names, Windows line ends, blank lines and a byte order mark are read."""
    root = make_domain()
    write_image(root / "clipart/owl/a bird\u2028 \u00e9t\u00e9.JPeG")
    text = "\ufeffclipart/apple/train_0.png 0\r\n\r\nclipart/owl/a bird\u2028 \u00e9t\u00e9.JPeG 1\r\n"
    (root / "clipart_train.txt").write_bytes(text.encode())
    source = read_domainnet(root, "clipart")
    assert source.train.paths == ("clipart/apple/train_0.png", "clipart/owl/a bird\u2028 \u00e9t\u00e9.JPeG")


def test_generated_is_told_from_the_mark(make_domain: Callable[..., Path]) -> None:
    """A root with GENERATED.txt holds generated images."""
    root = make_domain()
    (root / "GENERATED.txt").write_text("drawn by a program")
    assert read_domainnet(root, "clipart").generated


def test_gap_takes_its_name_from_another_domain(make_domain: Callable[..., Path]) -> None:
    """A label that a domain does not use is named by the domain beside it, so that unions agree."""
    make_domain("real", train=(1, 1, 1), test=(1, 1, 1))
    root = make_domain("painting", train=(1, 0, 1), test=(1, 0, 1))
    assert read_domainnet(root, "painting").class_names == ("apple", "owl", "zebra")


def test_untrained_class_is_refused_or_kept(make_domain: Callable[..., Path]) -> None:
    """A class that only the test list has stops the reading, unless it is to be kept."""
    root = make_domain(train=(2, 1), test=(1, 1, 1))
    with pytest.raises(
        UserError, match=r"clipart_test.txt, line 3: class 'zebra' \(label 2\) is not in the train list"
    ):
        read_domainnet(root, "clipart")
    assert read_domainnet(root, "clipart", untrained_classes="keep").class_names == ("apple", "owl", "zebra")


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
def test_one_folder_too_many(make_domain: Callable[..., Path], tmp_path: Path, archive: bool) -> None:
    """A folder that is alone in the root is passed through; ids stay those of the list."""
    root = make_domain(folder="outer/data").parent
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX/._data").write_bytes(b"x")
    if archive:
        root = Path(shutil.make_archive(str(tmp_path / "a"), "zip", root))
    source = read_domainnet(root, "clipart")
    assert source.train.paths[0] == "data/clipart/apple/train_0.png"
    assert source.train.example_ids[0] == "clipart/apple/train_0.png"
    assert len(pack_split(source, "train", PictureOptions(store_size=8), tmp_path / "out")) == 5


def test_images_in_both_lists(make_domain: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """A file in the train and in the test list is counted in a warning, however it is spelled."""
    root = make_domain()
    with open(root / "clipart_test.txt", "a") as file:
        file.write("clipart/apple/train_0.png 0\n./clipart//owl/train_1.png 1\n")
    read_domainnet(root, "clipart")
    assert caplog.messages == [
        f"{root}/clipart_test.txt: 2 of 5 images are in the train list, too, as 'clipart/apple/train_0.png': metrics on "
        "them say nothing about new images"
    ]


def test_line_ends_of_old_macs(make_domain: Callable[..., Path]) -> None:
    """A carriage return alone ends a line."""
    root = make_domain()
    expected = read_domainnet(root, "clipart").train.paths
    path = root / "clipart_train.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert read_domainnet(root, "clipart").train.paths == expected


def test_lists_that_macos_leaves(make_domain: Callable[..., Path]) -> None:
    """`._real_train.txt` is no list of another domain."""
    root = make_domain(train=(1, 0, 1), test=(1, 0, 1))
    make_domain("real", train=(1, 1, 1), test=(1, 1, 1))
    (root / "._real_train.txt").write_bytes(b"\0\5\x16\x07\xff")
    assert read_domainnet(root, "clipart").class_names == ("apple", "owl", "zebra")


SEPARATED = ["\t", ",", ";", ", ", "  ", " , "]


@pytest.mark.parametrize("separator", SEPARATED, ids=repr)
@pytest.mark.parametrize("style", ["plain", "quoted", "windows"])
def test_other_separators_of_lists(make_domain: Callable[..., Path], separator: str, style: str) -> None:
    """Tabs, commas and semicolons, quoted paths and those of Windows are read as what people mean by them."""
    root = make_domain()
    expected = read_domainnet(root, "clipart")
    for part in ("train", "test"):
        path = root / f"clipart_{part}.txt"
        lines = []
        for line in path.read_text().splitlines():
            file, _, label = line.rpartition(" ")
            shown = {"plain": file, "quoted": f'"{file}"', "windows": file.replace("/", "\\")}[style]
            lines.append(f"{shown}{separator}{label}")
        path.write_text("\n".join(lines))
    listing = read_domainnet(root, "clipart")
    assert (listing.class_names, listing.train.paths) == (expected.class_names, expected.train.paths)
    assert listing.train.labels.tolist() == expected.train.labels.tolist()
