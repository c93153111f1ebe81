from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from transferscope.experiment.options import PictureOptions
from transferscope.images.chexpert import read_chexpert
from transferscope.images.domainnet import read_domainnet
from transferscope.images.files import open_tree, printable, unsafe_reason
from transferscope.images.image_folder import read_image_folder
from transferscope.images.pack import pack_split
from transferscope.system.errors import UserError

PICTURES = PictureOptions(store_size=8)


def archived(root: Path, target: Path) -> Path:
    """All files of a folder in a .zip or .tar."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(root))
    else:
        with tarfile.open(target, "w") as archive:
            for path in files:
                archive.add(path, f"./{path.relative_to(root)}")
    return target


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_archive_shows_what_the_folder_shows(make_domain: Callable[..., Path], tmp_path: Path, suffix: str) -> None:
    """Entries, files and bytes are the same, packed or not."""
    root = make_domain()
    folder, archive = open_tree(root), open_tree(archived(root, tmp_path / f"all{suffix}"))
    assert archive.entries() == folder.entries()
    assert archive.entries("clipart/owl") == folder.entries("clipart/owl")
    assert list(archive.files()) == list(folder.files())
    assert all(archive.read(path) == folder.read(path) for path in folder.files())
    assert archive.stamp("clipart") is folder.stamp("clipart") is None
    with pytest.raises(UserError, match=r"none.png: no such file in the archive"):
        archive.read("none.png")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_every_layout_may_be_archived(
    make_domain: Callable[..., Path],
    make_chexpert: Callable[..., Path],
    write_image: Callable[..., Path],
    tmp_path: Path,
    suffix: str,
) -> None:
    """Packing from an archive gives the split of the unpacked folder, in all three layouts."""
    for path in ("train/cat/1.png", "train/dog/1.png", "test/cat/2.png"):
        write_image(tmp_path / "tree" / path)
    readers = {
        make_domain(): lambda root: read_domainnet(root, "clipart"),
        make_chexpert([(i, 0, {}) for i in range(4)]): lambda root: read_chexpert(root, num_train=2, num_test=2),
        tmp_path / "tree": lambda root: read_image_folder(root, name="tree"),
    }
    for number, (root, read) in enumerate(readers.items()):
        folder = pack_split(read(root), "train", PICTURES, tmp_path / f"folder{number}")
        archive = archived(root, tmp_path / f"{number}{suffix}")
        packed = pack_split(read(archive), "train", PICTURES, tmp_path / f"archive{number}")
        assert packed.digest == folder.digest
        assert packed.example_ids == folder.example_ids


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_domain_as_distributed(make_domain: Callable[..., Path], tmp_path: Path, suffix: str) -> None:
    """DomainNet comes as lists beside one archive a domain."""
    root = make_domain()
    expected = pack_split(read_domainnet(root, "clipart"), "test", PICTURES, tmp_path / "folder")
    home = tmp_path / "lists"
    home.mkdir()
    for part in ("train", "test"):
        (root / f"clipart_{part}.txt").rename(home / f"clipart_{part}.txt")
    archived(root, home / f"clipart{suffix}")
    source = read_domainnet(home, "clipart")
    assert source.root == home / f"clipart{suffix}"
    assert pack_split(source, "test", PICTURES, tmp_path / "archive").digest == expected.digest


def test_links_in_folders_are_followed(make_domain: Callable[..., Path], tmp_path: Path) -> None:
    """The owner of a folder may place links in it, to files and to folders."""
    root = make_domain()
    (root / "clipart/apple").rename(tmp_path / "elsewhere")
    (root / "clipart/apple").symlink_to(tmp_path / "elsewhere")
    assert len(read_domainnet(root, "clipart").train) == 5


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a/b.png", None),
        ("a..b/..c.png", None),
        ("a/../../b.png", "points outside the root"),
        ("..", "points outside the root"),
        ("/a.png", "is an absolute path"),
        ("a\0.png", "holds a NUL character"),
    ],
)
def test_unsafe_paths(path: str, reason: str | None) -> None:
    """Only paths that stay below the root are used."""
    assert unsafe_reason(path) == reason


def test_messages_stay_one_line() -> None:
    """Line breaks and control characters of a name are shown as escapes; other letters as they are."""
    assert printable("a\nb\x1b\udcff.png") == "a\\nb\\x1b\\udcff.png"
    assert printable("\u00e9t\u00e9 \u4e2d.png") == "\u00e9t\u00e9 \u4e2d.png"


def test_too_large_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file above the limit is not read into memory."""
    monkeypatch.setattr("transferscope.images.files.MAX_FILE_BYTES", 10)
    (tmp_path / "big").write_bytes(bytes(11))
    with pytest.raises(UserError, match=r"big: 11 bytes, more than the 10 that are read"):
        open_tree(tmp_path).read("big")
