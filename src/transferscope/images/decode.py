"""From the bytes of an image file to the stored square.

The result is the picture that a person sees: palettes and transparency (on white) resolved, CMYK turned to RGB, EXIF
rotation undone. Embedded colour profiles are not applied.

Grey images of more than 8 bits are scaled to 8 by one range for the whole data set, `value_range`. Without it 0 to
65535 is taken where an image shows that it uses all 16 bits; otherwise the range is asked for, because an image of 12
bits scaled by that of 16 would keep 17 grey levels.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, features

from transferscope.experiment.options import PictureOptions
from transferscope.system.errors import UserError

_OPTIONAL = {"webp": "WEBP", "jpg_2000": "JPEG2000", "avif": "AVIF"}
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"),
    *(
        name
        for part, name in _OPTIONAL.items()
        if part in {**features.modules, **features.codecs} and features.check(part)
    ),
)
"""Formats that are read, by Pillow's names; some only where Pillow was built with their codec."""
MAX_PIXELS = 89_478_485
"""Larger images are refused: they may be made to fill the memory. Pillow's own warning starts there, too."""
PADDING = 128
"""Grey value beside a chest image that is not square."""
SEVERAL_FRAMES = "hold several frames or pages, of which the first counts"
CLIPPED = "hold values outside value_range, which become black or white"
_CONVERT = "convert it to JPEG or PNG, for example with `magick mogrify -format jpg FILES`, or drop it from the list"
_WEB_PAGE = "a web page, as of a failed download"
_KINDS = (
    (re.compile(rb"....ftyp(hei|hev|mif|msf)", re.DOTALL), "a HEIC photo"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "an AVIF image that is cut off, or whose codec Pillow lacks"),
    (re.compile(rb"....ftyp", re.DOTALL), "a video"),
    (re.compile(rb"\xff\x0a|....JXL ", re.DOTALL), "a JPEG XL image"),
    (re.compile(rb".{128}DICM", re.DOTALL), "a DICOM file"),
    (re.compile(rb"%PDF"), "a PDF document"),
    (re.compile(rb"8BPS"), "a Photoshop file"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<svg", re.DOTALL | re.IGNORECASE), "an SVG drawing"),
    (re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE), _WEB_PAGE),
)
"""First bytes of files that stand where images are expected, and cannot be read."""
_LFS_POINTER = b"version https://git-lfs"
_HOW_SEEN = 0x0106
"""TIFF's tag for how values are to be seen; 0: white is zero, which Pillow undoes for 8 bits alone."""
_BITS, _VALUES = 0x0102, 0x0153
"""TIFF's tags for the bits of a value, and for its kind."""
_VALUE_KINDS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
_EXAMPLES = (1, 255, 1023, 4095, 16383, 65535)
"""Usual values of white: a fraction; 8, 10, 12, 14 and 16 bits."""

ValueRange = tuple[float, float]


class UnknownRangeError(UserError):
    """The values of an image do not say which of them are black and white; a matter of the whole data set."""


def is_image(data: bytes) -> bool:
    """True if the content begins as that of an image in a known format."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS):
            return True
    except Exception:  # decoders raise anything on malformed data
        return False


def decode_image(
    data: bytes,
    where: str,
    value_range: ValueRange | None = None,
    remark: Callable[[str], None] | None = None,
) -> Image.Image:
    """The image of a file as a person sees it, of mode L or RGB.

    Args:
        data: Content of the file.
        where: The file's name in messages.
        value_range: Values that become black and white in grey images of more than 8 bits; others are clipped. None:
            0 and 65535, where the image shows that it uses all 16 bits.
        remark: Called with `SEVERAL_FRAMES` or `CLIPPED` where it holds.

    Raises:
        UserError: Naming the file, when it is empty, no image, truncated or too large.
        UnknownRangeError: More than 8 bits, and no `value_range` although the values do not show it.
    """
    if not data:
        raise UserError(f"{where}: the file is empty (0 bytes): replace it or drop it from the list")
    if data.startswith(_LFS_POINTER):
        raise UserError(f"{where}: a pointer of Git LFS, not the image itself: fetch the images with `git lfs pull`")
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        kind = _other_kind(data)
        if kind is not None:
            fix = "download it again" if kind == _WEB_PAGE else _CONVERT
            raise UserError(f"{where}: {kind}, whatever its suffix: {fix}") from error
        if (values := _values_of_tiff(data)) is not None:
            raise UserError(
                f"{where}: a TIFF of {values}, not read: save it with 8 or 16 unsigned bits or as 32-bit floats"
            ) from error
        raise UserError(f"{where}: not an image in a known format ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(where, "too many pixels") from error
    except Exception as error:  # decoders raise anything on malformed data
        raise _damaged(where, error) from error
    _check_pixels(opened.size, where)
    remark = remark or (lambda _: None)
    if _has_several_frames(opened, data):
        remark(SEVERAL_FRAMES)
    try:
        deep_colour = any(";16" in str(tile[-1]) for tile in opened.tile)
        inverted = getattr(opened, "tag_v2", {}).get(_HOW_SEEN) == 0
        opened.load()
        image = _as_written(_upright(opened), getattr(opened, "tag_v2", {}), where)
        if isinstance(image, np.ndarray):
            grey = _from_wide(image, where, value_range, remark)
            return ImageOps.invert(grey) if inverted else grey
        if deep_colour:
            _check_deep_colour(image, where, value_range)
        return _as_seen(image)
    except UserError:
        raise
    except Exception as error:
        raise _damaged(where, error) from error


def store_image(image: Image.Image, pictures: PictureOptions, where: str) -> np.ndarray:
    """The stored square of an image: uint8 (3 or 1, store_size, store_size)."""
    if pictures.style == "chest":
        return chest_square(image, pictures.store_size, where)
    return photo_square(image, pictures.store_size, where)


def photo_square(image: Image.Image, size: int, where: str = "image") -> np.ndarray:
    """Short side to `size` (bilinear, antialiased), centre square: uint8 (3, size, size).

    The same pixels as torchvision's Resize and CenterCrop give on an RGB image.
    """
    width, height = image.size
    scaled = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    _check_pixels(scaled, where)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    if scaled != (size, size):
        image = image.crop((left, top, left + size, top + size))
    # By channel, as they are stored: twice as fast as an array of pixels that is then transposed.
    bands = image.split() if image.mode == "RGB" else (image,) * 3
    return np.frombuffer(b"".join(band.tobytes() for band in bands), dtype=np.uint8).reshape(3, size, size)


def chest_square(image: Image.Image, size: int, where: str = "image") -> np.ndarray:
    """The study's chain for chest X-rays: uint8 (1, size, size).

    Short side reduced to `size` where it is larger, grey, histogram equalised, long side to `size`, padded right or
    below with 128, blurred by a 3x3 Gaussian. The authors apply the random affine map of training before this chain;
    here it is applied to its result, when a batch is read.
    """
    width, height = image.size
    short = min(width, height)
    if short > size:
        scaled = (max(size, round(width * size / short)), max(size, round(height * size / short)))
        _check_pixels(scaled, where)
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    grey = Image.fromarray(equalise(np.asarray(image.convert("L"))))
    long = max(grey.size)
    fitted = (max(1, round(grey.width * size / long)), max(1, round(grey.height * size / long)))
    square = np.full((size, size), PADDING, dtype=np.uint8)
    square[: fitted[1], : fitted[0]] = np.asarray(grey.resize(fitted, Image.Resampling.BILINEAR))
    return blur(square)[None]


def equalise(grey: np.ndarray) -> np.ndarray:
    """Histogram equalisation of uint8 (H, W): the darkest value present becomes 0, the brightest 255.

    value -> 255 (cdf(value) - cdf_min) / (n - cdf_min); an image of one value stays as it is.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    cumulated = np.cumsum(counts)
    darkest = int(counts.nonzero()[0][0])
    rest = grey.size - int(counts[darkest])
    if rest == 0:
        return grey
    table = np.rint((cumulated - cumulated[darkest]).clip(0) * (255.0 / rest)).astype(np.uint8)
    return table[grey]


def blur(grey: np.ndarray) -> np.ndarray:
    """3x3 Gaussian (1 2 1)/4 by (1 2 1)/4 of uint8 (H, W), rounded to nearest; the border is mirrored."""
    padded = np.pad(grey.astype(np.uint16), 1, mode="reflect" if min(grey.shape) > 1 else "edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    total = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]
    return ((total + 8) >> 4).astype(np.uint8)


def _has_several_frames(opened: Image.Image, data: bytes) -> bool:
    """True if a file holds more than one image; a GIF or TIFF is opened again, as looking ahead moves the first."""
    if opened.format in ("PNG", "WEBP", "AVIF"):
        return bool(getattr(opened, "is_animated", False))
    if opened.format in ("GIF", "TIFF"):
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=(opened.format,)) as image:
            return bool(getattr(image, "is_animated", False))
    return False


def _upright(image: Image.Image) -> Image.Image:
    """Undo an EXIF rotation; damaged EXIF data is passed over, as viewers do."""
    with contextlib.suppress(Exception):  # whatever a damaged header makes Pillow raise
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _as_seen(image: Image.Image) -> Image.Image:
    """Mode L or RGB."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(canvas, image).convert("RGB")


def _as_written(image: Image.Image, tags: Mapping[int, Any], where: str) -> Image.Image | np.ndarray:
    """An image of 8 unsigned bits as it is, and the values (H, W) of any other grey one.

    Pillow shows signed values of 8 bits as unsigned ones, and unsigned ones of 32 as signed.
    """
    bits, kinds = set(tags.get(_BITS, ())), set(tags.get(_VALUES, ()))
    if bits == {8} and kinds == {2}:
        if image.mode != "L":
            raise UserError(f"{where}: colours of 8 signed bits: convert it to unsigned ones")
        return np.asarray(image).view(np.int8)
    if bits == {32} and image.mode == "I" and kinds <= {1}:
        return np.asarray(image).view(np.uint32)
    return np.asarray(image) if image.mode.startswith("I") or image.mode == "F" else image


def _from_wide(
    pixels: np.ndarray, where: str, value_range: ValueRange | None, remark: Callable[[str], None]
) -> Image.Image:
    """Grey of more than 8 bits, or of signed values, to 8 bits; a transparent colour is passed over."""
    if not np.isfinite(pixels).all():
        raise UserError(f"{where}: pixels that are infinite or not a number: replace it or drop it from the list")
    low, high = float(pixels.min()), float(pixels.max())
    if value_range is None:
        is_deep = pixels.dtype.kind != "f" and pixels.itemsize > 1
        uses_all_bits = is_deep and low >= 0 and (32768 <= high <= 65535 or high == 0)
        if not uses_all_bits:
            bits = "8 signed" if pixels.itemsize == 1 else "more than 8"
            raise UnknownRangeError(
                f"{where}: {bits} bits with values from {low:g} to {high:g}, and nothing says which are black and "
                f"white: give the task value_range, for example value_range: {_likely_range(low, high)}"
            )
        value_range = (0, 65535)
    black, white = value_range
    if low < black or high > white:
        remark(CLIPPED)
    scaled = (pixels.astype(np.float64) - black) * (255 / (white - black))
    return Image.fromarray(np.rint(scaled.clip(0, 255)).astype(np.uint8))


def _likely_range(low: float, high: float) -> str:
    """The narrowest usual range that holds the values of an image, as it is written in parameters."""
    white = next((white for white in _EXAMPLES if high <= white), high)
    return f"[{min(low, 0):g}, {white:g}]"


def _check_deep_colour(image: Image.Image, where: str, value_range: ValueRange | None) -> None:
    """Of 16-bit colour Pillow keeps the upper 8 bits, which is right only where the values use all 16."""
    if value_range is not None and value_range != (0, 65535):
        raise UnknownRangeError(f"{where}: value_range is for grey images, this is 16-bit colour: convert it to 8 bits")
    colours = [band for name, band in zip(image.getbands(), image.split(), strict=True) if name not in "Aa"]
    brightest = max(int(np.asarray(band).max()) for band in colours)
    if value_range is None and 0 < brightest < 128:
        raise UnknownRangeError(
            f"{where}: 16-bit colour with values below 32768 only, of which few levels would be left: convert it to 8 "
            "bits, or say value_range: [0, 65535] if the image is meant to be dark"
        )


def _other_kind(data: bytes) -> str | None:
    """Kind of a file that is no image in a known format."""
    head = data[:1024]
    return next((kind for pattern, kind in _KINDS if pattern.match(head)), None)


def _values_of_tiff(data: bytes) -> str | None:
    """Kind of the values of a TIFF that Pillow does not read, such as `64-bit floats`; None for any other file."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    with contextlib.suppress(Exception):  # whatever a damaged header makes Pillow raise
        tags, file = TiffImagePlugin.ImageFileDirectory_v2(data[:8]), io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bits, kind = tags[_BITS][0], _VALUE_KINDS.get(tags.get(_VALUES, (1,))[0], "values of an unknown kind")
        order = " in big-endian order" if data[:1] == b"M" else ""
        return f"{bits}-bit {kind}{order}"
    return None


def _check_pixels(size: tuple[int, int], where: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(where, f"{size[0]}x{size[1]} pixels")


def _too_large(where: str, what: str) -> UserError:
    return UserError(f"{where}: {what}, more than the {MAX_PIXELS:,} that are decoded: reduce the image or drop it")


def _damaged(where: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{where}: damaged or truncated image ({reason}): replace it or drop it from the list")
