"""Images of other depths than 8 bits of grey or colour: no grey level is lost silently."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transferscope.experiment.options import PictureOptions
from transferscope.images.decode import CLIPPED, SEVERAL_FRAMES, UnknownRangeError, decode_image
from transferscope.images.image_folder import read_image_folder
from transferscope.images.pack import pack_split
from transferscope.system.errors import UserError

PICTURES = PictureOptions(store_size=16)
TWELVE_BITS = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16


def file_of(pixels: np.ndarray, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def levels(data: bytes, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """The grey levels that are left, ascending."""
    return np.unique(np.asarray(decode_image(data, "file", value_range)))


def colour_png(pixels: np.ndarray) -> bytes:
    """A PNG of 16-bit colour from uint16 (H, W, 3), which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


ASKED = {
    "12 bits in 16, PNG": (file_of(TWELVE_BITS, "PNG"), "values from 0 to 4080", "[0, 4095]"),
    "12 bits in 16, TIFF": (file_of(TWELVE_BITS, "TIFF"), "values from 0 to 4080", "[0, 4095]"),
    "10 bits in 16": (file_of(TWELVE_BITS // 4, "PNG"), "values from 0 to 1020", "[0, 1023]"),
    "8 bits in 32": (file_of((TWELVE_BITS // 16).astype(np.int32), "TIFF"), "values from 0 to 255", "[0, 255]"),
    "a fraction": (file_of((TWELVE_BITS / 4080).astype(np.float32), "TIFF"), "values from 0 to 1", "[0, 1]"),
    "8 bits as floats": (file_of((TWELVE_BITS / 16).astype(np.float32), "TIFF"), "values from 0 to 255", "[0, 255]"),
    "signed": (file_of(TWELVE_BITS.astype(np.int32) - 1024, "TIFF"), "values from -1024 to 3056", "[-1024, 4095]"),
    "beyond 16 bits": (file_of(TWELVE_BITS.astype(np.int32) * 100, "TIFF"), "values from 0 to 408000", "[0, 408000]"),
}


@pytest.mark.parametrize("case", ASKED)
def test_the_range_is_asked_for(case: str) -> None:
    """Where an image does not show that it uses 16 bits, the range of the data set is asked for, with a likely one."""
    data, values, advice = ASKED[case]
    with pytest.raises(UnknownRangeError) as caught:
        decode_image(data, "scan.tif")
    assert str(caught.value) == (
        f"scan.tif: more than 8 bits with {values}, and nothing says which are black and white: give the task "
        f"value_range, for example value_range: {advice}"
    )


@pytest.mark.parametrize("case", ASKED)
def test_no_level_is_lost_with_the_range(case: str) -> None:
    """With the true range all 256 levels stay apart, from black to white."""
    data = ASKED[case][0]
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image)
    assert levels(data, (float(pixels.min()), float(pixels.max()))).tolist() == list(range(256))


def test_sixteen_bits_that_are_used() -> None:
    """An image with a value above half of 16 bits, or all black, is scaled by 65535, as one range for all."""
    deep = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    for format in ("PNG", "TIFF"):
        assert levels(file_of(deep, format)).tolist() == list(range(256))
    assert levels(file_of(np.zeros((2, 2), np.uint16), "PNG")).tolist() == [0]


def test_values_outside_the_range_are_clipped_and_remarked() -> None:
    """A window clips what lies outside of it, and says so."""
    remarks: list[str] = []
    image = decode_image(file_of(TWELVE_BITS, "PNG"), "file", (1000, 2000), remarks.append)
    assert (np.asarray(image).min(), np.asarray(image).max()) == (0, 255)
    assert remarks == [CLIPPED]
    decode_image(file_of(TWELVE_BITS, "PNG"), "file", (0, 4095), remarks.append)
    assert remarks == [CLIPPED]


def test_eight_bits_are_not_scaled() -> None:
    """The range is for deeper images; 8 bits stay as they are."""
    assert levels(file_of(np.array([[3, 9]], np.uint8), "PNG"), (0, 4095)).tolist() == [3, 9]


def test_white_is_zero() -> None:
    """A TIFF that says that zero is white is inverted, at 8 and at 16 bits alike."""
    pixels = np.array([[0, 255]], np.uint8)
    assert np.asarray(decode_image(file_of(255 - pixels, "TIFF"), "file")).tolist() == [[255, 0]]
    deep = file_of(pixels.astype(np.uint16) * 257, "TIFF", tiffinfo={262: 0})
    assert np.asarray(decode_image(deep, "file")).tolist() == [[255, 0]]


def tiff(pixels: np.ndarray, order: str = "<") -> bytes:
    """An uncompressed grey TIFF of any numbers, which Pillow does not write, from (H, W)."""
    height, width = pixels.shape
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    tags |= {279: len(content), 339: kind}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(content))
    return start + content + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int8", [-128, -1, 0, 127]),
        ("int16", [-5, 0, 9, 32767]),
        ("uint16", [0, 1, 40000, 65535]),
        ("int32", [-(2**31), -1, 0, 2**31 - 1]),
        ("uint32", [0, 2**31 - 1, 2**31, 2**32 - 1]),
        ("float32", [-1.5, 0, 2, 3]),
    ],
)
def test_numbers_of_a_tiff_are_as_written(kind: str, values: list[float]) -> None:
    """Scaled by their range, none wraps around; signed ones of 8 bits need a range, too."""
    pixels = np.array([values], dtype=kind)
    low, high = values[0], values[-1]
    expected = np.rint((np.array(values, dtype=float) - low) * 255 / (high - low))
    remarks: list[str] = []
    decoded = decode_image(tiff(pixels), "scan.tif", (low, high), remarks.append)
    assert np.asarray(decoded)[0].tolist() == expected.tolist()
    assert not remarks
    if kind == "int8":
        with pytest.raises(UnknownRangeError, match="8 signed bits with values from -128 to 127, and nothing says"):
            decode_image(tiff(pixels), "scan.tif")


@pytest.mark.parametrize(
    ("kind", "order", "shown"),
    [
        ("float16", "<", "16-bit floats"),
        ("float64", "<", "64-bit floats"),
        ("float64", ">", "64-bit floats in big-endian order"),
        ("uint64", "<", "64-bit unsigned integers"),
        ("uint32", ">", "32-bit unsigned integers in big-endian order"),
    ],
)
def test_numbers_of_a_tiff_that_are_not_read(kind: str, order: str, shown: str) -> None:
    """They are named, with what is read."""
    with pytest.raises(UserError) as caught:
        decode_image(tiff(np.ones((2, 2), dtype=kind), order), "scan.tif", (0, 1))
    assert str(caught.value) == (
        f"scan.tif: a TIFF of {shown}, not read: save it with 8 or 16 unsigned bits or as 32-bit floats"
    )


def test_not_a_number() -> None:
    """Pixels that are no numbers are a damaged file."""
    with pytest.raises(UserError, match="infinite or not a number"):
        decode_image(file_of(np.array([[0, np.nan]], np.float32), "TIFF"), "file", (0, 1))


def test_sixteen_bit_colour() -> None:
    """Of 16-bit colour the upper 8 bits are right if all are used; 12-bit values are refused, and so is a range."""
    full = np.linspace(0, 65535, 48, dtype=np.uint16).reshape(4, 4, 3)
    assert (np.asarray(decode_image(colour_png(full), "file")) == full >> 8).all()
    with pytest.raises(UnknownRangeError, match=r"16-bit colour with values below 32768 only.*convert"):
        decode_image(colour_png(full >> 4), "file")
    assert decode_image(colour_png(full >> 4), "file", (0, 65535)).mode == "RGB"
    with pytest.raises(UnknownRangeError, match="value_range is for grey images"):
        decode_image(colour_png(full), "file", (0, 4095))


def test_pnm_says_its_range() -> None:
    """A PGM carries the value of white and needs no range."""
    data = b"P5 2 1 4095\n" + np.array([0, 4095], ">u2").tobytes()
    assert np.asarray(decode_image(data, "file")).tolist() == [[0, 255]]


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_further_frames_are_remarked(format: str) -> None:
    """Of an animation or several pages the first counts, and that is said; a single picture is not remarked."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    buffer, single = io.BytesIO(), io.BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:])
    frames[0].save(single, format)
    remarks: list[str] = []
    image = decode_image(buffer.getvalue(), "file", None, remarks.append)
    assert np.asarray(image)[0, 0].argmax() == 0
    assert remarks == [SEVERAL_FRAMES]
    decode_image(single.getvalue(), "file", None, remarks.append)
    assert len(remarks) == 1


@pytest.mark.parametrize("format", ["TIFF", "WEBP", "PNG"])
def test_orientation_of_deep_and_other_images(format: str) -> None:
    """A rotation is undone in other formats than JPEG, and at 16 bits, too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.zeros((2, 3, 3), np.uint8) if format == "WEBP" else np.full((2, 3), 65535, np.uint16)
    assert decode_image(file_of(wide, format, exif=exif), "file").size == (2, 3)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in ("ill", "well"):
        for number in range(4):
            path = tmp_path / "scans" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file_of(TWELVE_BITS, "PNG"))
    return tmp_path / "scans"


def test_one_range_for_the_data_set(scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An unknown range stops the packing, also where bad images are dropped; another range packs anew."""
    source = read_image_folder(scans, test_share=0.5)
    with pytest.raises(UnknownRangeError):
        pack_split(source, "train", PICTURES, tmp_path / "out", on_bad_image="drop")
    twelve = pack_split(source, "train", PICTURES, tmp_path / "out", value_range=(0, 4095))
    assert len(np.unique(twelve.images)) > 240
    assert caplog.messages == []
    narrow = pack_split(source, "train", PICTURES, tmp_path / "out", value_range=(0, 2047))
    assert narrow.digest != twelve.digest
    assert caplog.messages == [
        "scans.train: 4 of the files hold values outside value_range, which become black or white"
    ]


def test_a_range_upside_down(scans: Path, tmp_path: Path) -> None:
    """Black must be below white."""
    with pytest.raises(UserError, match=r"value_range is \[4095, 0\]: give the value of black and then the larger one"):
        pack_split(read_image_folder(scans, test_share=0.5), "train", PICTURES, tmp_path, value_range=(4095, 0))
