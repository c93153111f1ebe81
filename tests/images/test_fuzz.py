"""Valid lists, tables, archives and images, mutated at random: whatever comes out is read, or refused with one line.

By default a few seconds; `TRANSFERSCOPE_FUZZ=100000` tries as many inputs, shared over the kinds, and
`TRANSFERSCOPE_FUZZ_SEED` begins elsewhere.
"""

from __future__ import annotations

import io
import os
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transferscope.experiment.options import PictureOptions
from transferscope.images.chexpert import read_chexpert
from transferscope.images.decode import decode_image, store_image
from transferscope.images.domainnet import read_domainnet
from transferscope.images.files import open_tree
from transferscope.images.image_folder import read_image_folder
from transferscope.system.errors import UserError

TRIALS = int(os.environ.get("TRANSFERSCOPE_FUZZ", "2000"))
SEED = int(os.environ.get("TRANSFERSCOPE_FUZZ_SEED", "0"))
PICTURES = {style: PictureOptions(store_size=8, style=style) for style in ("photo", "chest")}
NAMES = [f"{part}/{name}/{i}.png" for part in ("train", "test") for name in ("cat", "dog") for i in range(2)]
TOKENS = [
    b"\n", b"\r", b"\0", b",", b";", b"\t", b'"', b" ", b"/", b"//", b"./", b"../", b"\\", b"-1", b"1e9", b"nan", b"\xff",
    b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"999999999999999999999", b"-1.0", b"Path", b"cat", b"PK\x01\x02", b"PK\x05\x06",
    b"0777777777777", b"\x80\xff\xff\xff\xff\xff\xff\xff", b"path=a\n", b"ustar\0", b"\xff\xff\xff\xff", b"\0\0\0\0",
]  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits flipped, bytes set, tokens put in, pieces cut, copied or moved, numbers made odd."""
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(mutated) + 1)
        length = rng.choice((1, 2, 4, 8, 40, 512))
        kind = rng.randrange(7)
        if kind == 0 and at < len(mutated):
            mutated[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(mutated):
            mutated[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            token = rng.choice(TOKENS)
            mutated[at : at + rng.choice((0, len(token)))] = token
        elif kind == 3:
            del mutated[at : at + length]
        elif kind == 4:
            start = rng.randrange(len(mutated) + 1)
            mutated[at:at] = mutated[start : start + length]
        elif kind == 5:
            number = rng.choice((0, 1, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1))
            mutated[at : at + 4] = struct.pack(rng.choice("<>") + "I", number & 0xFFFFFFFF)
        elif rng.random() < 0.2:
            del mutated[at:]
    return bytes(mutated)


def picture(format: str, mode: str = "RGB") -> bytes:
    """A small image file, with as much in its header as the format takes."""
    pixels = np.random.default_rng(1).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    image = (
        Image.fromarray(pixels).convert(mode) if mode != "I;16" else Image.fromarray(pixels[..., 0].astype("u2") * 257)
    )
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    if format in ("GIF", "TIFF") and mode != "I;16":
        image.save(buffer, format, save_all=True, append_images=[image.rotate(90)])
    elif format in ("JPEG", "PNG", "WEBP", "TIFF"):
        image.save(buffer, format, exif=exif)
    else:
        image.save(buffer, format)
    return buffer.getvalue()


def archive_of(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for number, name in enumerate(NAMES):
                archive.writestr(name, picture("PNG"), zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED)
    else:
        format = tarfile.PAX_FORMAT if kind == "pax" else tarfile.GNU_FORMAT
        with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
            for number, name in enumerate(NAMES):
                info = tarfile.TarInfo(name if number else f"train/cat/{'long' * 30}.png")
                info.size, info.mtime = 20, 1.5 if kind == "pax" else 1
                tar.addfile(info, io.BytesIO(bytes(20)))
    return buffer.getvalue()


def refusal(call: Callable[[], object]) -> str:
    """What a user is told; "" where the input was read."""
    try:
        call()
    except UserError as error:
        return str(error)
    return ""


def fuzz(seeds: list[bytes], attempt: Callable[[bytes], object], trials: int) -> tuple[int, int]:
    """How many inputs were read and refused; fails on any other error, and on a message that is no single line."""
    rng = random.Random(SEED)
    refused = 0
    for trial in range(trials):
        data = mutate(seeds[trial % len(seeds)], rng)
        try:
            message = refusal(lambda data=data: attempt(data))  # type: ignore[misc]
        except Exception as error:
            pytest.fail(f"trial {trial} of seed {SEED}: {error!r} for {data[:3000]!r}")
        refused += message != ""
        assert message.isprintable(), f"trial {trial}: {message!r}"
    return trials - refused, refused


@pytest.mark.slow
def test_lists(make_domain: Callable[..., Path]) -> None:
    """DomainNet's lists."""
    path = make_domain(train=(3, 2), test=(1, 2)) / "clipart_train.txt"
    counts = fuzz(
        [path.read_bytes()],
        lambda data: (path.write_bytes(data), read_domainnet(path.parent, "clipart")),
        TRIALS * 3 // 10,
    )
    assert min(counts) > 0


@pytest.mark.slow
def test_tables(make_chexpert: Callable[..., Path]) -> None:
    """CheXpert's CSV, separated by commas and by semicolons."""
    root = make_chexpert([(i // 2, i % 2, {"Edema": "1.0", "Atelectasis": "-1.0"}) for i in range(6)])
    path = root / "CheXpert-v1.0-small/train.csv"
    seeds = [path.read_bytes(), path.read_bytes().replace(b",", b";")]
    counts = fuzz(
        seeds,
        lambda data: (
            path.write_bytes(data),
            read_chexpert(root, num_train=2, num_test=2, sampling="by_patient", views="frontal"),
        ),
        TRIALS * 3 // 10,
    )
    assert min(counts) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "gnu", "pax"])
def test_archives(kind: str, tmp_path: Path) -> None:
    """Archives: opened, listed as class folders, and every member read."""
    path = tmp_path / ("a.zip" if kind == "zip" else "a.tar")

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        tree = open_tree(path)
        for name in tree.files():
            assert refusal(lambda name=name: tree.read(name)).isprintable()  # type: ignore[misc]
        read_image_folder(path)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts = fuzz([archive_of(kind)], attempt, TRIALS // 10)
    assert min(counts) > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_images() -> None:
    """Image files of every format and depth, decoded and stored in both styles, with and without a range."""
    seeds = [picture(format) for format in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")]
    seeds += [picture("PNG", mode) for mode in ("P", "LA", "1", "RGBA", "I;16")]
    seeds += [picture("TIFF", mode) for mode in ("CMYK", "F", "I", "I;16", "LAB", "YCbCr")]

    def attempt(data: bytes) -> None:
        image = decode_image(data, "file", (0, 65535) if data and data[0] % 2 else None)
        for pictures in PICTURES.values():
            store_image(image, pictures, "file")

    counts = fuzz(seeds, attempt, TRIALS // 10)
    assert min(counts) > 0
