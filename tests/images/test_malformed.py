"""Malformed inputs, and word for word what the user is told of each."""

from __future__ import annotations

import errno
import io
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transferscope.experiment.options import PictureOptions
from transferscope.images.chexpert import read_chexpert
from transferscope.images.decode import FORMATS
from transferscope.images.domainnet import read_domainnet
from transferscope.images.image_folder import read_image_folder
from transferscope.images.pack import pack_split
from transferscope.system.errors import UserError

LIST = "clipart/apple/train_0.png 0\n"
HEADER = "Path,Cardiomegaly,Edema,Consolidation,Atelectasis,Pleural Effusion\n"
ROW = "train/patient00000/study0/view1_frontal.png,,,,,\n"
LIMIT = "more than the 89,478,485 that are decoded: reduce the image or drop it"
UNKNOWN = f"not an image in a known format ({', '.join(FORMATS)})"
REPLACE = "replace it or drop it from the list"


def png(width: int = 6, height: int = 5) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(40, 40))).save(buffer, "JPEG")
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png()[33:]


# Lists: content of clipart_train.txt -> message after its path.
LISTS = {
    "no label": (
        "clipart/apple/train_0.png\n",
        ", line 1: 'clipart/apple/train_0.png' has no label: write 'path label'",
    ),
    "no label after a space": (
        LIST + "clipart/apple/my photo.png\n",
        ", line 2: label 'photo.png' is not a whole number from 0: write 'path label'",
    ),
    "a word as label": (
        "clipart/apple/train_0.png apple\n",
        ", line 1: label 'apple' is not a whole number from 0: write 'path label'",
    ),
    "a fraction as label": (
        "clipart/apple/train_0.png 0.5\n",
        ", line 1: label '0.5' is not a whole number from 0: write 'path label'",
    ),
    "a negative label": (
        "clipart/apple/train_0.png -1\n",
        ", line 1: label '-1' is not a whole number from 0: write 'path label'",
    ),
    "a label of other digits": (
        "clipart/apple/train_0.png \u0663\n",
        ", line 1: label '\u0663' is not a whole number from 0: write 'path label'",
    ),
    "an enormous label": (
        "clipart/apple/train_0.png 99999999999999999999999\n",
        ", line 1: label 99999999999999999999 is too large: labels are class indices from 0",
    ),
    "only a label": ("0\n", ", line 1: '0' has no label: write 'path label'"),
    "a missing file": (
        LIST + "\nclipart/apple/none.png 0\n",
        ", line 3: {root}/clipart/apple/none.png does not exist: correct the list or add the file",
    ),
    "several missing files": (
        LIST + "clipart/apple/none.png 0\nclipart/apple/nor.png 0\n",
        ", line 2: {root}/clipart/apple/none.png does not exist (and 1 more of the 3 files used): correct the list or "
        "add the file",
    ),
    "a folder for a file": (
        "clipart/apple/folder.png 0\n",
        ", line 1: {root}/clipart/apple/folder.png is a folder: correct the list or add the file",
    ),
    "a broken link": (
        "clipart/apple/broken.png 0\n",
        ", line 1: {root}/clipart/apple/broken.png is a link to nothing: correct the list or add the file",
    ),
    "a link to itself": (
        "clipart/apple/loop.png 0\n",
        ", line 1: {root}/clipart/apple/loop.png is a link that leads to itself: correct the list or add the file",
    ),
    "an endless name": (
        f"clipart/apple/{'x' * 300}.png 0\n",
        "{root}/clipart/apple/" + "x" * 300 + ".png: cannot be read (File name too long)",
    ),
    "another case": (
        "clipart/apple/Train_0.PNG 0\n",
        ", line 1: {root}/clipart/apple/Train_0.PNG does not exist: correct the list or add the file",
    ),
    "a path above the root": (
        "clipart/apple/../../../secret.png 0\n",
        ", line 1: 'clipart/apple/../../../secret.png' points outside the root: refused",
    ),
    "an absolute path": ("/etc/apple/x.png 0\n", ", line 1: '/etc/apple/x.png' is an absolute path: refused"),
    "a NUL": ("clipart/apple/a\0b.png 0\n", r", line 1: 'clipart/apple/a\x00b.png' holds a NUL character: refused"),
    "no class folder": (
        "train_0.png 0\n",
        ", line 1: 'train_0.png' names no class: expected <domain>/<class>/<file>",
    ),
    "the same file twice": (
        LIST + LIST,
        ", line 2: 'clipart/apple/train_0.png' is already in line 1: remove one of them",
    ),
    "the same file in another spelling": (
        LIST + "./clipart//apple/./train_0.png 0\n",
        ", line 2: 'clipart/apple/train_0.png' is already in line 1: remove one of them",
    ),
    "a named pipe": (
        "clipart/apple/pipe.png 0\n",
        ", line 1: {root}/clipart/apple/pipe.png is a named pipe: correct the list or add the file",
    ),
    "a device": (
        "clipart/apple/zero.png 0\n",
        ", line 1: {root}/clipart/apple/zero.png is a device: correct the list or add the file",
    ),
    "one class": (LIST, ": one class only (apple): a task needs two classes at least, each with its images"),
    "a class with two labels": (
        LIST + "clipart/apple/train_1.png 1\n",
        ", line 2: class 'apple' with label 1, but 0 in {root}/clipart_train.txt, line 1",
    ),
    "a label with two classes": (
        LIST + "clipart/owl/train_0.png 0\n",
        ", line 2: label 0 with class 'owl', but 'apple' in {root}/clipart_train.txt, line 1",
    ),
    "a label left out": (
        LIST + "clipart/owl/train_0.png 2\n",
        ": labels go up to 2, but no line has label 1: labels must be 0, 1, 2, ... without gaps",
    ),
    "an empty list": ("", ": the list is empty: it needs a line 'path label' for each image"),
    "blank lines only": ("\n \n\r\n", ": the list is empty: it needs a line 'path label' for each image"),
    "not text": (b"clipart/apple/train_0.png 0\n\xff\xfe\n", ", line 2: not UTF-8 text: save the file as UTF-8"),
    "UTF-16": ("\ufeff" + LIST, ", line 1: not UTF-8 text: save the file as UTF-8"),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists(case: str, make_domain: Callable[..., Path]) -> None:
    """Every malformed list is refused with its line and what to do."""
    root = make_domain(train=(2, 1), test=(1,))
    (root / "clipart/apple/folder.png").mkdir()
    (root / "clipart/apple/broken.png").symlink_to("nowhere.png")
    (root / "clipart/apple/loop.png").symlink_to("loop.png")
    (root / "clipart/apple/zero.png").symlink_to("/dev/zero")
    os.mkfifo(root / "clipart/apple/pipe.png")
    content, message = LISTS[case]
    data = content if isinstance(content, bytes) else content.encode("utf-16" if case == "UTF-16" else "utf-8")
    (root / "clipart_train.txt").write_bytes(data)
    full = message if message.startswith("{root}") else "{root}/clipart_train.txt" + message
    assert message_of(lambda: read_domainnet(root, "clipart")) == full.replace("{root}", str(root))


# Tables: content of train.csv -> message after its path.
TABLES = {
    "no column": (
        HEADER.replace("Edema,", "") + ROW,
        ": no column 'Edema': it needs Path, Cardiomegaly, Edema, Consolidation, Atelectasis, Pleural Effusion",
    ),
    "empty file": (
        "",
        ": no column 'Path', 'Cardiomegaly', 'Edema', 'Consolidation', 'Atelectasis', 'Pleural Effusion': it needs Path, "
        "Cardiomegaly, Edema, Consolidation, Atelectasis, Pleural Effusion",
    ),
    "no row": (HEADER, ": no row: it needs one for each image"),
    "a word for a number": (
        HEADER + ROW.replace(",,,,,", ",,yes,,,"),
        ", line 2: Edema is 'yes': it may be 1, 0, -1 or blank",
    ),
    "another number": (
        HEADER + ROW.replace(",,,,,", ",,,,,2.0"),
        ", line 2: Pleural Effusion is '2.0': it may be 1, 0, -1 or blank",
    ),
    "nan": (HEADER + ROW.replace(",,,,,", ",nan,,,,"), ", line 2: Cardiomegaly is 'nan': it may be 1, 0, -1 or blank"),
    "a short row": (
        HEADER + "train/patient00000/study0/view1_frontal.png,1.0\n",
        ", line 2: 2 values where the header has 6",
    ),
    "a long row": (HEADER + ROW.strip() + ",1.0\n", ", line 2: 7 values where the header has 6"),
    "an open quote": (HEADER + '"train/x.png,,,,,\n', ", line 2: not a CSV line (unexpected end of data)"),
    "no path": (HEADER + ",1.0,,,,\n", ", line 2: Path is blank: every row needs the path of its image"),
    "a path above the root": (HEADER + "../x.png,,,,,\n", ", line 2: '../x.png' points outside the root: refused"),
    "an absolute path": (HEADER + "/x.png,,,,,\n", ", line 2: '/x.png' is an absolute path: refused"),
    "the same image twice": (
        HEADER + ROW + ROW,
        ", line 3: 'train/patient00000/study0/view1_frontal.png' is already in line 2: remove one of them",
    ),
    "the same image in another spelling": (
        HEADER + ROW + "CheXpert-v1.0-small/./" + ROW.replace("/study0", "//study0"),
        ", line 3: 'CheXpert-v1.0-small/./train/patient00000//study0/view1_frontal.png' is already in line 2: remove one "
        "of them",
    ),
    "a column twice": (
        HEADER.replace("Edema,", "Edema,Edema,") + ROW.replace(",,,,,", ",,,,,,"),
        ": two columns are named 'Edema': remove one of them",
    ),
    "another column twice": (
        HEADER.strip() + ",Age,Age\n" + ROW.strip() + ",1,2\n",
        ": two columns are named 'Age': remove one of them",
    ),
    "a decimal comma that is none": (
        HEADER.replace(",", ";") + ROW.replace(",,,,,", ";1,5;;;;"),
        ", line 2: Cardiomegaly is '1,5': it may be 1, 0, -1 or blank",
    ),
    "a missing image": (
        HEADER + ROW + ROW.replace("study0", "study7"),
        ", line 3: {root}/CheXpert-v1.0-small/train/patient00000/study7/view1_frontal.png does not exist: correct the CSV "
        "or add the file",
    ),
    "too few rows": (
        HEADER + ROW,
        ": 1 images, but num_train + num_test = 2: add images",
    ),
    "no patient": (
        HEADER + "train/a.png,,,,,\ntrain/b.png,,,,,\n",
        ", line 2: no patient in 'train/a.png': sampling by_patient needs paths such as "
        "train/patient00001/study1/view1_frontal.jpg",
    ),
    "not text": (b"Path\n\xff\n", ", line 2: not UTF-8 text: save the file as UTF-8"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables(case: str, make_chexpert: Callable[..., Path]) -> None:
    """Every malformed CSV is refused with line, column and what to do."""
    root = make_chexpert([(0, 0, {}), (1, 0, {})])
    content, message = TABLES[case]
    path = root / "CheXpert-v1.0-small/train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sampling = "by_patient" if case == "no patient" else "paper"
    error = message_of(lambda: read_chexpert(root, num_train=1, num_test=1, sampling=sampling))
    assert error == (str(path) + message).replace("{root}", str(root))


# Images: content of a listed file -> message after its path.
IMAGES = {
    "zero bytes": (b"", "the file is empty (0 bytes): replace it or drop it from the list"),
    "text": (b"this is no image", UNKNOWN),
    "a web page": (
        b"<!doctype html><title>404</title>",
        "a web page, as of a failed download, whatever its suffix: download it again",
    ),
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "a pointer of Git LFS, not the image itself: fetch the images with `git lfs pull`",
    ),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UNKNOWN),
    "half a PNG": (png()[:70], f"damaged or truncated image (...): {REPLACE}"),
    "a decompression bomb": (png_of_size(60_000, 60_000), f"too many pixels, {LIMIT}"),
    "a large image": (png_of_size(9_500, 9_500), f"9500x9500 pixels, {LIMIT}"),
    "no pixels": (png_of_size(0, 5), UNKNOWN),
    "half a JPEG": (jpeg()[:-200], f"damaged or truncated image (...): {REPLACE}"),
    "a JPEG header alone": (jpeg()[:300], f"damaged or truncated image (...): {REPLACE}"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", IMAGES)
def test_images(case: str, make_domain: Callable[..., Path], tmp_path: Path) -> None:
    """Every file that is no whole image is refused by name, and no split is written."""
    root = make_domain()
    path = root / "clipart/apple/train_0.png"
    content, message = IMAGES[case]
    path.write_bytes(content)
    source = read_domainnet(root, "clipart")
    error = message_of(lambda: pack_split(source, "train", PictureOptions(store_size=8), tmp_path / "out"))
    # What Pillow says of a damaged file differs between its versions.
    assert re.sub(r"truncated image \(.+\)", "truncated image (...)", error) == f"{path}: {message}"
    assert not (tmp_path / "out").exists()


def zip_with(path: Path, name: str, data: bytes = b"x", mode: int = 0o644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return path


def tar_with(path: Path, name: str, data: bytes = b"x", mode: str = "w", link: str = "") -> Path:
    with tarfile.open(path, mode) as archive:
        info = tarfile.TarInfo(name)
        info.size = 0 if link else len(data)
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        archive.addfile(info, io.BytesIO(data))
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-30])
    return path


# Roots: what to give as root -> the whole message.
ROOTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda at: at / "none", "image folder {root} does not exist: give a folder, a .zip or a .tar"),
    "a file": (
        lambda at: at / "list.txt",
        "{root}: neither a folder nor a .zip or uncompressed .tar archive: unpack it first",
    ),
    "an empty folder": (
        lambda at: at,
        "{root}: no list clipart_train.txt, neither there nor in txt/: check the domain's name and that the lists were "
        "downloaded",
    ),
    "a zip that is none": (
        lambda at: (at / "list.txt").rename(at / "a.zip"),
        "{root}: not a readable .zip archive (File is not a zip file)",
    ),
    "half a zip": (
        lambda at: cut(zip_with(at / "a.zip", "clipart/x.png")),
        "{root}: not a readable .zip archive (File is not a zip file)",
    ),
    "a zip member above the root": (
        lambda at: zip_with(at / "a.zip", "clipart/../../x.png"),
        "{root}: member 'clipart/../../x.png' points outside the root: refused",
    ),
    "an absolute zip member": (
        lambda at: zip_with(at / "a.zip", "/etc/passwd"),
        "{root}: member '/etc/passwd' is an absolute path: refused",
    ),
    "a tar member above the root": (
        lambda at: tar_with(at / "a.tar", "../x.png"),
        "{root}: member '../x.png' points outside the root: refused",
    ),
    "a compressed tar": (
        lambda at: tar_with(at / "a.tar.gz", "x.png", mode="w:gz"),
        "{root}: neither a folder nor a .zip or uncompressed .tar archive: unpack it first",
    ),
    "a compressed tar named .tar": (
        lambda at: tar_with(at / "a.tar", "x.png", mode="w:gz"),
        "{root}: not a readable, uncompressed .tar archive",
    ),
    "an archive without a list": (
        lambda at: zip_with(at / "a.zip", "clipart/x.png"),
        "{root}: no list clipart_train.txt, neither there nor in txt/: check the domain's name and that the lists were "
        "downloaded",
    ),
}


@pytest.mark.parametrize("case", ROOTS)
def test_roots(case: str, tmp_path: Path) -> None:
    """Every root that holds no data set is refused with what is wrong with it."""
    (tmp_path / "list.txt").write_text(LIST)
    make, message = ROOTS[case]
    root = make(tmp_path)
    assert message_of(lambda: read_domainnet(root, "clipart")) == message.replace("{root}", str(root))


def test_views_of_another_name(make_chexpert: Callable[..., Path]) -> None:
    """A view that is neither frontal nor lateral is refused, as its rows would be left out silently."""
    path = make_chexpert([(0, 0, {}), (1, 0, {})]) / "CheXpert-v1.0-small/train.csv"
    path.write_text(path.read_text().replace("Frontal,", "PA,", 2).replace("PA/Lateral", "Frontal/Lateral"))
    error = message_of(lambda: read_chexpert(path.parent, num_train=1, num_test=1, views="frontal"))
    assert error == f"{path}, line 2: Frontal/Lateral is 'PA': it may be Frontal, Lateral or blank"


def odd_zip(path: Path, find: bytes, put: bytes, *, last: bool = True) -> Path:
    """A zip of two classes with some bytes replaced where they come last, or first."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("cat/1.png", "dog/1.png"):
            archive.writestr(name, png())
    data = path.read_bytes()
    at = data.rindex(find) if last else data.index(find)
    path.write_bytes(data[:at] + put + data[at + len(find) :])
    return path


def odd_tar(path: Path, change: Callable[[tarfile.TarInfo], None]) -> Path:
    """A tar of a class folder whose header was changed."""
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("cat/1.png")
        change(info)
        archive.addfile(info)
        archive.fileobj.write(bytes(1024))  # type: ignore[union-attr]
    return path


CENTRAL = b"PK\x01\x02"
ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a zip of a later version": (
        lambda at: odd_zip(at / "a.zip", CENTRAL + b"\x14\x03\x14", CENTRAL + b"\x14\x03\xff"),
        "not a readable .zip archive",
    ),
    "a zip whose directory lies elsewhere": (
        lambda at: odd_zip(at / "a.zip", b"PK\x05\x06", b"PK\x05\x07"),
        "not a readable .zip archive",
    ),
    "an encrypted member": (
        lambda at: odd_zip(at / "a.zip", CENTRAL + b"\x14\x03\x14\0\0", CENTRAL + b"\x14\x03\x14\0\x01"),
        "member 'dog/1.png' is encrypted: unpack the archive first",
    ),
    "a member of another compression": (
        lambda at: odd_zip(at / "a.zip", CENTRAL + b"\x14\x03\x14\0\0\0\x08", CENTRAL + b"\x14\x03\x14\0\0\0\x5d"),
        "member 'dog/1.png' is compressed by method 93: unpack the archive first",
    ),
    "a name without end": (
        lambda at: zip_with(at / "a.zip", "d/" * 5000 + "x.png"),
        "has a name of more characters than any file: refused",
    ),
    "a tar member of 9e18 bytes": (
        lambda at: odd_tar(at / "a.tar", lambda info: setattr(info, "size", 9 * 10**18)),
        "not a readable, uncompressed .tar archive",
    ),
    "a tar member of negative size": (
        lambda at: odd_tar(at / "a.tar", lambda info: setattr(info, "size", -512)),
        "not a readable, uncompressed .tar archive",
    ),
    "a sparse tar member": (
        lambda at: odd_tar(at / "a.tar", lambda info: setattr(info, "type", tarfile.GNUTYPE_SPARSE)),
        "is a sparse file: unpack the archive",
    ),
    "a truncated .tar.gz": (
        lambda at: cut(tar_with(at / "a.tar.gz", "x.png", mode="w:gz")),
        "neither a folder nor a .zip or uncompressed .tar archive: unpack it first",
    ),
    "an archive in an archive": (
        lambda at: zip_with(at / "a.zip", "photos.zip", zip_with(at / "b.zip", "cat/1.png").read_bytes()),
        "no class folder",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_odd_archives(case: str, tmp_path: Path) -> None:
    """Every archive that cannot be read as it is meant is refused by name before any image is decoded."""
    make, message = ARCHIVES[case]
    error = message_of(lambda: read_image_folder(make(tmp_path), test_share=0.5))
    assert error.startswith(str(tmp_path / "a."))
    assert message in error


def test_links_in_archives_are_no_files(tmp_path: Path) -> None:
    """A link in an archive is not followed: what it stands for counts as missing."""
    archives = {
        ".zip": lambda path: zip_with(path, "clipart/apple/train_0.png", b"/etc/passwd", mode=0o120777),
        ".tar": lambda path: tar_with(path, "clipart/apple/train_0.png", link="/etc/passwd"),
    }
    for part in ("train", "test"):
        (tmp_path / f"clipart_{part}.txt").write_text(LIST)
    for suffix, make in archives.items():
        path = make(tmp_path / f"clipart{suffix}")
        error = message_of(lambda: read_domainnet(tmp_path, "clipart"))
        assert error == (
            f"{tmp_path}/clipart_train.txt, line 1: {path}/clipart/apple/train_0.png does not exist: correct the list or "
            f"add the file"
        )
        path.unlink()


def test_damaged_member_of_an_archive(tmp_path: Path) -> None:
    """A member whose bytes do not match their checksum is refused by name."""
    path = zip_with(tmp_path / "clipart.zip", "clipart/apple/train_0.png", png())
    data = path.read_bytes()
    path.write_bytes(data.replace(png()[20:40], bytes(20), 1))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("clipart/owl/train_0.png", png())
    for part in ("train", "test"):
        (tmp_path / f"clipart_{part}.txt").write_text(LIST + "clipart/owl/train_0.png 1\n")
    source = read_domainnet(tmp_path, "clipart")
    error = message_of(lambda: pack_split(source, "train", PictureOptions(store_size=8), tmp_path / "out"))
    member = "clipart/apple/train_0.png"
    assert error == f"{path}/{member}: cannot be read from the archive (Bad CRC-32 for file '{member}')"


def test_folder_above_itself(tmp_path: Path, make_domain: Callable[..., Path]) -> None:
    """A link to a folder that holds it would be walked for ever."""
    root = make_domain()
    for part, name in (("train", "apple"), ("val", "owl")):
        (root / part).mkdir()
        (root / "clipart" / name).rename(root / part / "apple")
    (root / "train/apple/again").symlink_to(root / "train")
    error = message_of(lambda: read_image_folder(root))
    assert error == f"{root}/train/apple/again: a link to a folder that holds it: remove the link"


def test_no_permission(make_domain: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read is named; for root, who may read everything, the system's refusal is made up."""
    root = make_domain()
    path = root / "clipart/apple/train_0.png"
    path.chmod(0)
    if os.access(path, os.R_OK):
        system_open = os.open

        def refusing(given: str | Path, *rest: int, **options: int | None) -> int:
            if Path(given) == path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(given))
            return system_open(given, *rest, **options)

        monkeypatch.setattr(os, "open", refusing)
    source = read_domainnet(root, "clipart")
    error = message_of(lambda: pack_split(source, "train", PictureOptions(store_size=8), tmp_path / "out"))
    assert error == f"{path}: cannot be read (Permission denied)"


def test_file_that_vanished(make_domain: Callable[..., Path], tmp_path: Path) -> None:
    """A file that was there when the list was read, and is not when it is packed, is named."""
    root = make_domain()
    source = read_domainnet(root, "clipart")
    path = root / "clipart/apple/train_0.png"
    path.unlink()
    error = message_of(lambda: pack_split(source, "train", PictureOptions(store_size=8), tmp_path / "out"))
    assert error == f"{path}: cannot be read (No such file or directory)"


def message_of(call: Callable[[], object]) -> str:
    """The one line that a user is told."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable()
    return message
