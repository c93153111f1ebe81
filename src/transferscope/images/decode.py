"""From the bytes of an image file to the stored square.

What comes out is what a person sees: palettes and transparency (on white) resolved, CMYK turned to RGB, 16 bits scaled
to 8, EXIF rotation undone. Embedded colour profiles are not applied.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from transferscope.experiment.options import PictureOptions
from transferscope.system.errors import UserError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
MAX_PIXELS = 89_478_485
"""Larger images are refused: they may be made to fill the memory. Pillow's own warning starts there, too."""
PADDING = 128
"""Grey value beside a chest image that is not square."""


def decode_image(data: bytes, where: str) -> Image.Image:
    """The image of a file as a person sees it, of mode L or RGB.

    Args:
        data: Content of the file.
        where: The file's name in messages.

    Raises:
        UserError: Naming the file, when it is empty, no image, truncated or too large.
    """
    if not data:
        raise UserError(f"{where}: the file is empty (0 bytes): replace it or drop it from the list")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UserError(f"{where}: not an image in a known format ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(where, "too many pixels") from error
    except Exception as error:  # decoders raise anything on malformed data
        raise _damaged(where, error) from error
    _check_pixels(image.size, where)
    try:
        image.load()
        return _as_seen(_upright(image), where)
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


def _upright(image: Image.Image) -> Image.Image:
    """Undo an EXIF rotation; damaged EXIF data is passed over, as viewers do."""
    with contextlib.suppress(Exception):  # whatever a damaged header makes Pillow raise
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _as_seen(image: Image.Image, where: str) -> Image.Image:
    """Mode L or RGB."""
    if image.mode.startswith("I"):
        return _from_wide(image, where)
    if image.mode == "F":
        raise UserError(f"{where}: floating-point pixels have no fixed range: convert the image to 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(canvas, image).convert("RGB")


def _from_wide(image: Image.Image, where: str) -> Image.Image:
    """16-bit grey to 8 bits, 65535 becoming 255."""
    pixels = np.asarray(image).astype(np.int64)
    # A transparent colour of a 16-bit grey image is passed over.
    if pixels.min() < 0 or pixels.max() > 65535:
        raise UserError(f"{where}: 32-bit pixels outside 0..65535: convert the image to 8 or 16 bits")
    return Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))


def _check_pixels(size: tuple[int, int], where: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(where, f"{size[0]}x{size[1]} pixels")


def _too_large(where: str, what: str) -> UserError:
    return UserError(f"{where}: {what}, more than the {MAX_PIXELS:,} that are decoded: reduce the image or drop it")


def _damaged(where: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{where}: damaged or truncated image ({reason}): replace it or drop it from the list")
