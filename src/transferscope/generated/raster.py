"""From figures to pixels: painting with anti-aliasing, and textures as fields over the pixels."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from transferscope.generated.geometry import Figure, Part

SUPERSAMPLE = 3
"""Pixels are drawn so many times finer along each side, and averaged."""

Colour = tuple[int, int, int]


def colour(hue: float, saturation: float, value: float) -> Colour:
    """RGB in 0..255 of a colour given by hue (any real, 1 is once around), saturation and value."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def to_pixels(outline: np.ndarray, side: int) -> list[float]:
    """Flat list x0, y0, x1, y1, ... of the points on a square of `side` pixels."""
    return ((outline + 1) * (side / 2)).ravel().tolist()


def stroke(draw: ImageDraw.ImageDraw, outline: np.ndarray, side: int, width: float, fill: object) -> None:
    """A line with round ends and joints; `width` in pixels."""
    flat = to_pixels(outline, side)
    joint = "curve" if width > 1.5 * SUPERSAMPLE else None  # the notches of a thin line are not seen, and cost time
    draw.line(flat, fill=fill, width=max(1, round(width)), joint=joint)  # type: ignore[arg-type]
    half = width / 2
    for x, y in (flat[:2], flat[-2:]):
        draw.ellipse((x - half, y - half, x + half, y + half), fill=fill)  # type: ignore[arg-type]


def paint(draw: ImageDraw.ImageDraw, part: Part, side: int, fill: object, border: float = 0.0) -> None:
    """A part filled with `fill`; `border` pixels are added all around."""
    if part.width:
        stroke(draw, part.points, side, part.width * side / 2 + 2 * border, fill)
        return
    flat = to_pixels(part.points, side)
    draw.polygon(flat, fill=fill)  # type: ignore[arg-type]
    if border:
        joint = "curve" if border > 0.75 * SUPERSAMPLE else None
        draw.line(flat + flat[:4], fill=fill, width=round(2 * border), joint=joint)  # type: ignore[arg-type]


def paint_figure(figure: Figure, colours: Sequence[Colour], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours (size, size, 3) in 0..255, already multiplied by the cover, and cover (size, size, 1) in 0..1."""
    side = size * SUPERSAMPLE
    image, mask = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    on_image, on_mask = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    for part in figure:
        paint(on_image, part, side, colours[part.tone])
        paint(on_mask, part, side, 255)
    tones = np.asarray(image.reduce(SUPERSAMPLE), dtype=np.float32)
    cover = np.asarray(mask.reduce(SUPERSAMPLE), dtype=np.float32)
    return tones, cover[..., None] / 255


def cloud(size: int, cells: int, rng: np.random.Generator, channels: int = 1) -> np.ndarray:
    """Smooth noise (size, size, channels) in about 0..1, with so many random values along each side."""
    values = rng.integers(0, 256, (channels, cells, cells), dtype=np.uint8)
    layers = [np.asarray(Image.fromarray(layer).resize((size, size), Image.Resampling.BICUBIC)) for layer in values]
    return np.stack(layers, axis=2).astype(np.float32) / 255


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the pixel centres in [-1, 1], each (size, size)."""
    centres = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(centres, centres)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Stripes, dots, checks or marble (size, size, 1) in 0..1."""
    x, y = grid(size)
    angle, frequency, phase = rng.uniform(0, np.pi), rng.uniform(8, 20), rng.uniform(0, 6.3)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    kind = rng.integers(4)
    if kind == 0:
        field = 0.5 + 0.5 * np.sin(frequency * along + phase)
    elif kind == 1:
        field = (np.sin(frequency * along) * np.sin(frequency * across) > 0.3).astype(np.float32)
    elif kind == 2:
        field = (np.sin(frequency * along / 1.5) * np.sin(frequency * across / 1.5) > 0).astype(np.float32)
    else:
        return cloud(size, int(rng.integers(8, 20)), rng)
    return field[..., None]


def to_image(pixels: np.ndarray) -> Image.Image:
    """Picture of an array of 0..255, cut to the range."""
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
