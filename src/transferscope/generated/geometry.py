"""Figures as lists of polygons and lines in the square [-1, 1] x [-1, 1] (x to the right, y down), and their poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

MAIN, SECOND, DARK, LIGHT = range(4)
"""Tones of a part; a style gives each a colour."""


@dataclass(frozen=True)
class Part:
    """One polygon (`width` 0) or one open line of a given width, painted over the parts before it."""

    points: np.ndarray
    tone: int = MAIN
    width: float = 0.0


Figure = Sequence[Part]
Sketch = Callable[[np.random.Generator], Figure]
"""Draws one member of a class; the generator decides proportions and details, never the pose."""


@dataclass(frozen=True)
class PoseLimits:
    """Largest turn (degrees), zoom, shift, stretch, skew and bend (in half sides) of a figure."""

    turn: float = 20.0
    zoom: tuple[float, float] = (0.6, 0.9)
    shift: float = 0.2
    stretch: float = 0.2
    skew: float = 0.15
    bend: float = 0.08


def points(*pairs: tuple[float, float]) -> np.ndarray:
    """(n, 2) array of the given points."""
    return np.array(pairs, dtype=np.float64)


def arc(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360, count: int = 24) -> np.ndarray:
    """Points of an ellipse around (x, y), from `start` to `end` degrees, clockwise as y points down."""
    angles = np.deg2rad(np.linspace(start, end, count, endpoint=abs(end - start) < 360))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The four corners."""
    return points((left, top), (right, top), (right, bottom), (left, bottom))


def smooth(control: np.ndarray, *, closed: bool = True, steps: int = 6) -> np.ndarray:
    """A Catmull-Rom curve through the control points."""
    if closed:
        padded = np.concatenate([control[-1:], control, control[:2]])
    else:
        padded = np.concatenate([control[:1], control, control[-1:]])
    before, here, there, after = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (
        2 * here
        + (there - before) * t
        + (2 * before - 5 * here + 4 * there - after) * t**2
        + (3 * here - before - 3 * there + after) * t**3
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, control[-1:]])


def mirrored(outline: np.ndarray) -> np.ndarray:
    """The outline seen in a mirror."""
    return outline * np.array([-1.0, 1.0])


def posed(figure: Figure, limits: PoseLimits, rng: np.random.Generator) -> list[Part]:
    """The figure mirrored or not, bent by a smooth wave, skewed, stretched, turned, zoomed and moved at random."""
    turn = np.deg2rad(rng.uniform(-limits.turn, limits.turn))
    zoom = rng.uniform(*limits.zoom)
    stretch = np.exp(rng.uniform(-limits.stretch, limits.stretch, 2) / 2)
    skew = rng.uniform(-limits.skew, limits.skew)
    phases = rng.uniform(0, 2 * np.pi, 2)
    strength = rng.uniform(-limits.bend, limits.bend, 2)
    shift = rng.uniform(-limits.shift, limits.shift, 2)
    mirror = np.array([rng.choice([-1.0, 1.0]), 1.0])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    matrix = np.diag(mirror * stretch) @ np.array([[1.0, 0.0], [skew, 1.0]]) @ rotation * zoom

    def move(outline: np.ndarray) -> np.ndarray:
        waves = strength * np.sin(2.5 * outline[:, ::-1] + phases)
        return (outline + waves) @ matrix + shift

    return [replace(part, points=move(part.points), width=part.width * zoom) for part in figure]
