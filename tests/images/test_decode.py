from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional

from transferscope.experiment.options import PictureOptions
from transferscope.images import decode
from transferscope.images.decode import blur, chest_square, decode_image, equalise, photo_square, store_image
from transferscope.system.errors import UserError

ORIENTATION = 0x0112


def file_of(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels_of(image: Image.Image, format: str = "PNG", **options: object) -> np.ndarray:
    """RGB (H, W, 3) as decoded from a file of the image."""
    return np.asarray(decode_image(file_of(image, format, **options), "file").convert("RGB"))


def gradient(width: int = 4, height: int = 3) -> Image.Image:
    values = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3) * 5
    return Image.fromarray(values)


def test_rgb_is_kept() -> None:
    """Nothing happens to an RGB image."""
    assert (pixels_of(gradient()) == np.asarray(gradient())).all()


def test_grey_and_black_and_white() -> None:
    """Grey is the same in all channels; one bit is black or white."""
    grey = Image.fromarray(np.array([[0, 100], [200, 255]], dtype=np.uint8))
    assert (pixels_of(grey) == np.asarray(grey)[..., None]).all()
    assert pixels_of(grey.point(lambda v: 255 * (v > 150)).convert("1"))[:, :, 0].tolist() == [[0, 0], [255, 255]]


def test_palette() -> None:
    """A palette image shows its colours, not its indices."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert pixels_of(image).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_transparent_palette_and_colour_are_white() -> None:
    """What a palette or a colour key makes transparent is white."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert pixels_of(image, transparency=0).tolist() == [[[255, 255, 255], [200, 100, 50]]]
    keyed = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert pixels_of(keyed, transparency=(1, 2, 3)).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_alpha_is_on_white() -> None:
    """Transparent is white, half transparent half white, opaque itself; with colour and with grey."""
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    assert pixels_of(Image.fromarray(rgba)).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    grey = np.array([[[0, 255], [0, 0]]], dtype=np.uint8)
    assert pixels_of(Image.fromarray(grey)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk() -> None:
    """No ink is white and full black ink is black, in JPEG and TIFF."""
    for format in ("JPEG", "TIFF"):
        white = pixels_of(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), format)
        black = pixels_of(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), format)
        assert white.min() > 250
        assert black.max() < 5


def test_sixteen_bits() -> None:
    """16-bit grey is scaled, not cut: 65535 is white and 32896 is 128."""
    deep = Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16))
    for format in ("PNG", "TIFF"):
        assert pixels_of(deep, format)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation: int) -> None:
    """Every EXIF orientation is shown upright."""
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert (pixels_of(gradient(), exif=exif) == undo[orientation](np.asarray(gradient()))).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_passed_over() -> None:
    """An image whose EXIF data is nonsense is still shown."""
    data = file_of(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff\xff")
    assert decode_image(data, "file").size == (4, 3)


def test_progressive_jpeg() -> None:
    """Progressive and baseline JPEG of the same picture give the same pixels."""
    image = Image.fromarray(np.asarray(gradient(32, 32)))
    assert (pixels_of(image, "JPEG", progressive=True) == pixels_of(image, "JPEG")).all()


def test_first_frame_of_an_animation() -> None:
    """Of an animation the first frame counts."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert pixels_of(frames[0], "GIF", save_all=True, append_images=frames[1:])[0, 0].tolist() == [255, 0, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 48), st.sampled_from([1, 3]), st.integers(0, 2**16))
def test_photo_equals_torchvision(width: int, height: int, size: int, channels: int, seed: int) -> None:
    """The stored square is, pixel for pixel, torchvision's Resize and CenterCrop of the decoded file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    reference = functional.center_crop(functional.resize(image.convert("RGB"), size), size)
    stored = photo_square(decode_image(file_of(image), "file"), size)
    assert (stored.transpose(1, 2, 0) == np.asarray(reference)).all()


def test_equalise_by_hand() -> None:
    """Four values of one pixel each are spread evenly; the darkest is 0, the brightest 255; one value stays."""
    assert equalise(np.array([[7, 8], [9, 200]], dtype=np.uint8)).tolist() == [[0, 85], [170, 255]]
    assert equalise(np.full((2, 2), 9, dtype=np.uint8)).tolist() == [[9, 9], [9, 9]]


def test_blur_by_hand() -> None:
    """A point spreads as 1 2 1 by 1 2 1 sixteenths; a constant stays; the border is mirrored."""
    point = np.zeros((5, 5), dtype=np.uint8)
    point[2, 2] = 160
    assert blur(point)[1:4, 1:4].tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
    assert (blur(np.full((3, 3), 77, dtype=np.uint8)) == 77).all()
    corner = np.zeros((3, 3), dtype=np.uint8)
    corner[1, 1] = 160
    assert blur(corner).tolist() == [[40, 40, 40], [40, 40, 40], [40, 40, 40]]


def test_chest_is_padded_right_and_below() -> None:
    """The image fills the top left, 128 fills the rest, and the blur comes last."""
    wide = Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (20, 1)))
    square = chest_square(wide, 20)
    assert square.shape == (1, 20, 20)
    assert (square[0, 11:] == 128).all()
    assert square[0, 5, 0] < 20 < 230 < square[0, 5, -1]
    assert 0 < square[0, 9, 0] < 128
    tall = chest_square(wide.transpose(Image.Transpose.ROTATE_90), 20)
    assert (tall[0, :, 11:] == 128).all()


def test_chest_of_a_narrow_image() -> None:
    """Even one pixel of width is kept."""
    assert chest_square(Image.new("L", (1, 500)), 16).shape == (1, 16, 16)


def test_store_image_follows_the_style() -> None:
    """`photo` stores three channels, `chest` one."""
    assert store_image(gradient(), PictureOptions(store_size=8), "file").shape == (3, 8, 8)
    assert store_image(gradient(), PictureOptions(store_size=8, style="chest"), "file").shape == (1, 8, 8)


def test_every_cut_of_a_file_is_refused_or_whole() -> None:
    """Of a file cut anywhere only the whole one, or one that lacks its end mark, is decoded."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for format in ("PNG", "JPEG", "BMP", "GIF"):
        data = file_of(image, format)
        for length in range(0, len(data) - 16, 37):
            with pytest.raises(UserError, match=r"^cut: "):
                decode_image(data[:length], "cut")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF image that is cut off, or whose codec Pillow lacks"),
        (b"\xff\x0a\xfa\x7f", "a JPEG XL image"),
        (bytes(128) + b"DICM" + bytes(20), "a DICOM file"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b'<?xml version="1.0"?>\n<svg width="4">', "an SVG drawing"),
    ],
)
def test_other_files_under_an_images_name_are_named(data: bytes, kind: str) -> None:
    """Whatever the suffix, with the command that converts photos."""
    with pytest.raises(UserError, match=rf"x\.jpg: {kind}, whatever its suffix: convert it to JPEG or PNG"):
        decode_image(data, "x.jpg")
    with pytest.raises(UserError, match=r"x\.jpg: not an image in a known format \(JPEG, .*\)$"):
        decode_image(b"hello", "x.jpg")


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image above the limit is refused before it is decoded, as is one that presizing would blow up."""
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    with pytest.raises(UserError, match=r"bomb: 11x10 pixels, more than the 100 that are decoded"):
        decode_image(file_of(Image.new("L", (11, 10))), "bomb")
    with pytest.raises(UserError, match=r"narrow: 10x200 pixels, more than"):
        photo_square(Image.new("L", (1, 20)), 10, "narrow")
