"""Four ways to render a figure: flat clip art, hand-drawn strokes, a textured thing in a scene, a soft grey shadow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from transferscope.generated.geometry import Figure, Part, PoseLimits, posed
from transferscope.generated.raster import (
    SUPERSAMPLE,
    Colour,
    cloud,
    colour,
    grid,
    paint,
    paint_figure,
    stroke,
    texture,
    to_image,
)

Style = Callable[[Figure, np.random.Generator, int], Image.Image]
"""Renders a figure without pose as an RGB image of so many pixels a side."""

CLIPART_POSE = PoseLimits(turn=15, zoom=(0.65, 0.92), shift=0.12, stretch=0.2, skew=0.1, bend=0.06)
STROKES_POSE = PoseLimits(turn=16, zoom=(0.65, 0.95), shift=0.12, stretch=0.25, skew=0.12, bend=0.08)
REAL_POSE = PoseLimits(turn=15, zoom=(0.7, 0.95), shift=0.12, stretch=0.2, skew=0.1, bend=0.06)
SOFT_POSE = PoseLimits(turn=15, zoom=(0.65, 0.95), shift=0.12, stretch=0.2, skew=0.1, bend=0.06)


def clipart(figure: Figure, rng: np.random.Generator, size: int) -> Image.Image:
    """Flat fills with dark or white outlines, or none, on plain or patterned paper, with confetti."""
    side = size * SUPERSAMPLE
    hue = rng.random()
    image = Image.new("RGB", (side, side), _paper(rng))
    draw = ImageDraw.Draw(image)
    _backdrop(draw, side, rng)
    fills = _palette(hue, rng)
    ink = colour(hue, 0.6, rng.uniform(0.05, 0.3)) if rng.random() < 0.75 else (255, 255, 255)
    border = side * rng.uniform(0.008, 0.025) if rng.random() < 0.75 else 0.0
    parts = posed(figure, CLIPART_POSE, rng)
    if border:
        for part in parts:
            paint(draw, part, side, ink, border)
    for part in parts:
        if border and not part.width:
            paint(draw, part, side, ink, border / 2)
        paint(draw, part, side, fills[part.tone])
    _confetti(draw, side, rng, int(rng.integers(0, 4)))
    return image.reduce(SUPERSAMPLE)


def quickdraw(figure: Figure, rng: np.random.Generator, size: int) -> Image.Image:
    """Shaky dark strokes on white, at times ruled paper; they overshoot or stop short, one may be missing."""
    side = size * SUPERSAMPLE
    image = Image.new("L", (side, side), 255)
    draw = ImageDraw.Draw(image)
    _rules(draw, side, rng)
    width = side * rng.uniform(0.018, 0.05)
    repeats = 2 if rng.random() < 0.25 else 1
    ink = int(rng.integers(0, 90))
    shake = rng.uniform(0.01, 0.05)
    parts = posed(figure, STROKES_POSE, rng)
    if rng.random() < 0.4:
        parts = _without_one(parts, rng)
    for part in parts:
        for _ in range(repeats):
            stroke(draw, _shaky(part, shake, rng), side, width, ink)
    return image.reduce(SUPERSAMPLE).convert("RGB")


def real(figure: Figure, rng: np.random.Generator, size: int) -> Image.Image:
    """A textured, lit thing before a cluttered background, slightly out of focus, with sensor noise."""
    scene = _clutter(size, rng)
    parts = posed(figure, REAL_POSE, rng)
    hue = rng.random()
    things, cover = paint_figure(parts, _palette(hue, rng), size)
    x, y = grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0.1, 0.35) * (np.cos(angle) * x + np.sin(angle) * y)[..., None]
    depth = rng.uniform(0.1, 0.45)
    surface = light * (1 - depth * texture(size, rng))
    shadow = 1 - 0.4 * np.roll(cover, (2, 2), axis=(0, 1))
    pixels = things * surface + (1 - cover) * scene * shadow
    image = to_image(pixels).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7)))
    noisy = np.asarray(image, dtype=np.float32)
    noisy = (noisy - 128) * rng.uniform(0.75, 1.1) + 128 + rng.uniform(-15, 15)
    noisy += rng.standard_normal(noisy.shape, dtype=np.float32) * rng.uniform(3, 12)
    return to_image(noisy)


def soft(figure: Figure, rng: np.random.Generator, size: int) -> Image.Image:
    """A blurred brighter or darker shadow of the figure in grey mist, as in a radiograph."""
    _, cover = paint_figure(posed(figure, SOFT_POSE, rng), [(0, 0, 0)] * 4, size)
    blurred = to_image(cover[..., 0] * 255).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.6)))
    shade = np.asarray(blurred, dtype=np.float32)
    sign = 1 if rng.random() < 0.6 else -1
    mist = 70 + 110 * cloud(size, int(rng.integers(3, 6)), rng)[..., 0]
    grain = 40 * (cloud(size, int(rng.integers(8, 16)), rng)[..., 0] - 0.5)
    pixels = mist + grain + sign * rng.uniform(0.35, 0.65) * shade
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(2, 8)
    return to_image(pixels).convert("RGB")


STYLES: dict[str, Style] = {"real": real, "clipart": clipart, "quickdraw": quickdraw, "soft": soft}


def _palette(hue: float, rng: np.random.Generator) -> list[Colour]:
    """Colours of the tones main, second, dark, light."""
    other = hue + rng.choice([0.0, 0.1, 0.33, 0.5]) + rng.uniform(-0.05, 0.05)
    return [
        colour(hue, rng.uniform(0.45, 0.95), rng.uniform(0.55, 1)),
        colour(other, rng.uniform(0.4, 0.9), rng.uniform(0.5, 1)),
        colour(other, rng.uniform(0.2, 0.6), rng.uniform(0.15, 0.35)),
        colour(hue + 0.5, rng.uniform(0.03, 0.25), rng.uniform(0.88, 1)),
    ]


def _rules(draw: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """Pale lines of ruled paper on two fifths of the sheets, of squared paper on another two."""
    kind, grey = rng.integers(5), int(rng.integers(140, 220))
    step, first = side * rng.uniform(0.1, 0.25), rng.uniform(0, 0.1) * side
    for at in np.arange(first, side, step):
        if kind <= 3:
            draw.line((0, at, side, at), fill=grey, width=SUPERSAMPLE)
        if 2 <= kind <= 3:
            draw.line((at, 0, at, side), fill=grey, width=SUPERSAMPLE)


def _paper(rng: np.random.Generator) -> Colour:
    """White, pastel or deep."""
    kind = rng.random()
    if kind < 0.35:
        return 255, 255, 255
    if kind < 0.8:
        return colour(rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.8, 1))
    return colour(rng.random(), rng.uniform(0.3, 0.8), rng.uniform(0.2, 0.5))


def _backdrop(draw: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """Ground, a disc, stripes, dots, rays or nothing behind the thing."""
    tint = colour(rng.random(), rng.uniform(0.15, 0.6), rng.uniform(0.6, 1))
    x, y = rng.uniform(0.3, 0.7, 2) * side
    kind = rng.integers(7)
    if kind == 0:
        draw.rectangle((0, side * rng.uniform(0.5, 0.8), side, side), fill=tint)
    elif kind == 1:
        radius = rng.uniform(0.3, 0.5) * side
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tint)
    elif kind == 2:
        step, slope = side * rng.uniform(0.12, 0.25), side * rng.uniform(-0.6, 0.6)
        for left in np.arange(-side, 2 * side, step):
            draw.line((left, 0, left + slope, side), fill=tint, width=round(step / 2))
    elif kind == 3:
        step = side * rng.uniform(0.15, 0.25)
        for left, top in np.ndindex(8, 8):
            corner = (left * step, (top + left % 2 / 2) * step)
            draw.ellipse((*corner, corner[0] + step / 2, corner[1] + step / 2), fill=tint)
    elif kind == 4:
        for angle in range(0, 360, 36):
            draw.pieslice((x - 2 * side, y - 2 * side, x + 2 * side, y + 2 * side), angle, angle + 18, fill=tint)


def _confetti(draw: ImageDraw.ImageDraw, side: int, rng: np.random.Generator, count: int) -> None:
    """Small bright discs and squares anywhere."""
    for _ in range(count):
        x, y = rng.uniform(0, side, 2)
        radius = side * rng.uniform(0.02, 0.06)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x - radius, y - radius, x + radius, y + radius), fill=colour(rng.random(), 0.7, 0.9))


def _without_one(parts: list[Part], rng: np.random.Generator) -> list[Part]:
    """All but one of the parts, which is not among the two largest."""
    by_extent = sorted(range(len(parts)), key=lambda index: -float(np.sum(np.ptp(parts[index].points, axis=0))))
    small = by_extent[2:]
    missing = int(rng.choice(small)) if small else None
    return [part for index, part in enumerate(parts) if index != missing]


def _shaky(part: Part, shake: float, rng: np.random.Generator) -> np.ndarray:
    """The outline of a part as a hand would draw it: resampled, wavering, displaced, not quite closed."""
    outline = part.points if part.width else np.concatenate([part.points, part.points[:1]])
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(outline, axis=0).T))])
    total = lengths[-1]
    gap = rng.uniform(-0.06, 0.04) * total * (not part.width)
    at = np.linspace(max(0.0, -gap), total - max(0.0, gap), max(4, int(total * 8)))
    path = np.stack([np.interp(at, lengths, outline[:, axis]) for axis in (0, 1)], axis=1)
    knots = np.linspace(0, total, max(3, int(total * 3)))
    waver = rng.normal(0, shake, (len(knots), 2))
    path += np.stack([np.interp(at, knots, waver[:, axis]) for axis in (0, 1)], axis=1)
    return path + rng.normal(0, shake / 2, 2)


def _clutter(size: int, rng: np.random.Generator) -> np.ndarray:
    """Background (size, size, 3) in 0..255: mist of two colours, discs, boxes and lines in it, a pattern."""
    tints = [colour(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.25, 0.95)) for _ in range(8)]
    here, there = np.array(tints[:2], dtype=np.float32)
    image = to_image(here + (there - here) * cloud(size, int(rng.integers(3, 7)), rng))
    draw = ImageDraw.Draw(image)
    for tint in tints[2 : int(rng.integers(4, 9))]:
        x, y = rng.uniform(-0.1, 1.1, 2) * size
        wide, high = rng.uniform(0.04, 0.22, 2) * size
        box = (x - wide, y - high, x + wide, y + high)
        kind = rng.integers(3)
        if kind == 0:
            draw.ellipse(box, fill=tint)
        elif kind == 1:
            draw.rectangle(box, fill=tint)
        else:
            draw.line(box, fill=tint, width=int(rng.integers(1, 4)))
    return np.asarray(image, dtype=np.float32) * (1 - rng.uniform(0.0, 0.3) * texture(size, rng))
