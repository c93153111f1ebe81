from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from transferscope.experiment.options import PictureOptions
from transferscope.images.chexpert import read_chexpert
from transferscope.images.domainnet import read_domainnet
from transferscope.images.file_tree import plain, printable, unsafe_reason
from transferscope.images.files import open_tree
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
    monkeypatch.setattr("transferscope.images.file_tree.MAX_FILE_BYTES", 10)
    (tmp_path / "big").write_bytes(bytes(11))
    with pytest.raises(UserError, match=r"big: 11 bytes, more than the 10 that are read"):
        open_tree(tmp_path).read("big")


def test_names_that_packers_write(tmp_path: Path) -> None:
    """UTF-8 without its flag, as macOS writes it, backslashes, and `./` or `//` are undone; others stay."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("xcafe/1.png", "./x//2.png"):
            archive.writestr(name, b"x")
    path.write_bytes(path.read_bytes().replace(b"xcafe", b"caf\xc3\xa9"))
    assert list(open_tree(path).files()) == ["caf\u00e9/1.png", "x/2.png"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("cat_1.png"), b"x")
    path.write_bytes(path.read_bytes().replace(b"cat_1", b"cat\\1"))
    tree = open_tree(path)
    assert list(tree.files()) == ["cat/1.png"]
    assert tree.read("cat/1.png") == b"x"


def test_hard_links_in_a_tar_are_files(tmp_path: Path) -> None:
    """Files that share their content are stored once in a tar, and read under both names."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"content")
    (tmp_path / "in/b.png").hardlink_to(tmp_path / "in/a.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in", ".")
    tree = open_tree(tmp_path / "a.tar")
    assert [tree.read(path) for path in tree.files()] == [b"content", b"content"]


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_what_an_archive_does_not_show_is_said(tmp_path: Path, suffix: str) -> None:
    """Links are counted; of members of one name the last counts, as in unpacking, and that is said."""
    path = tmp_path / f"a{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.png", b"old")
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("x.png", b"new")
            link = zipfile.ZipInfo("link.png")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "x.png")
    else:
        with tarfile.open(path, "w") as tar:
            for content in (b"old", b"new"):
                info = tarfile.TarInfo("x.png")
                info.size = 3
                tar.addfile(info, io.BytesIO(content))
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = tarfile.SYMTYPE, "x.png"
            tar.addfile(info)
    tree = open_tree(path)
    assert tree.read("x.png") == b"new"
    assert list(tree.files()) == ["x.png"]
    assert tree.notes == (
        f"{path}: 1 member comes again under the same name; the last one counts",
        f"{path}: 1 member is a link or device and is not read",
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b", "a/b"),
        ("./a//b/./c.png", "a/b/c.png"),
        ("a/", "a"),
        ("/a", "/a"),
        ("a/.", "a"),
        ("a./b", "a./b"),
        (".", ""),
    ],
)
def test_one_spelling(path: str, expected: str) -> None:
    """Empty components and dots are left out."""
    assert plain(path) == expected
