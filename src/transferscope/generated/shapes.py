"""The twelve shapes of the generated source task: none of them is a class of the target domains."""

from __future__ import annotations

import numpy as np

from transferscope.generated.geometry import (
    DARK,
    LIGHT,
    SECOND,
    Figure,
    Part,
    Sketch,
    arc,
    points,
    rectangle,
    smooth,
)


def _rays(outer: float, inner: float, count: int) -> np.ndarray:
    """A star-shaped polygon of `count` points that alternates between two radii."""
    angles = np.pi * np.arange(2 * count) / count - np.pi / 2
    radii = np.where(np.arange(2 * count) % 2 == 0, outer, inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def arrow(rng: np.random.Generator) -> Figure:
    head, shaft, neck = rng.uniform(0.5, 0.75), rng.uniform(0.15, 0.3), rng.uniform(-0.1, 0.3)
    outline = points(
        (-0.9, -shaft), (neck, -shaft), (neck, -head), (0.92, 0), (neck, head), (neck, shaft), (-0.9, shaft)
    )
    figure = [Part(outline)]
    if rng.random() < 0.4:
        figure.append(Part(points((-0.95, -shaft - 0.12), (-0.7, 0), (-0.95, shaft + 0.12)), SECOND))
    return figure


def bell(rng: np.random.Generator) -> Figure:
    brim, waist, top = rng.uniform(0.65, 0.85), rng.uniform(0.36, 0.5), rng.uniform(-0.8, -0.6)
    half = [(0.2, top), (waist, -0.3), (waist + 0.08, 0.1), (brim, 0.5)]
    outline = points((0, top - 0.08), *half, (0, 0.56), *[(-x, y) for x, y in half[::-1]])
    figure = [Part(arc(0, 0.62, 0.17, 0.2, count=12), DARK), Part(smooth(outline, steps=5))]
    if rng.random() < 0.5:
        figure.append(Part(rectangle(-waist - 0.05, 0.05, waist + 0.05, 0.2), SECOND))
    return figure


def bolt(rng: np.random.Generator) -> Figure:
    wide, kink = rng.uniform(0.3, 0.5), rng.uniform(-0.05, 0.15)
    outline = points(
        (0.1, -0.95), (-wide - 0.1, kink + 0.1), (-0.05, kink + 0.1), (-0.25, 0.95), (wide + 0.15, kink - 0.12),
        (0.1, kink - 0.12), (0.45, -0.95),
    )  # fmt: skip
    return [Part(outline)]


def crescent(rng: np.random.Generator) -> Figure:
    bite = rng.uniform(0.25, 0.55)
    outer = arc(0, 0, 0.85, 0.85, 50, 310, 24)
    radius = float(np.hypot(outer[0, 0] - bite, outer[0, 1]))
    angle = float(np.rad2deg(np.arctan2(outer[0, 1], outer[0, 0] - bite)))
    inner = arc(bite, 0, radius, radius, 360 - angle, angle, 20)
    figure = [Part(np.concatenate([outer, inner]))]
    if rng.random() < 0.4:
        figure.append(Part(_rays(0.2, 0.09, 5) + np.array([bite + 0.05, 0]), SECOND))
    return figure


def cross(rng: np.random.Generator) -> Figure:
    arm = rng.uniform(0.2, 0.36)
    a, b = arm, 0.85
    half = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
    outline = points(*half, *[(-x, -y) for x, y in half])
    figure = [Part(outline)]
    if rng.random() < 0.4:
        figure.append(Part(rectangle(-a, -a, a, a), SECOND))
    return figure


def drop(rng: np.random.Generator) -> Figure:
    fat, low = rng.uniform(0.45, 0.62), rng.uniform(0.2, 0.4)
    outline = np.concatenate([points((0, -0.95)), arc(0, low, fat, 0.9 - low, -20, 200, 20)])
    figure = [Part(outline)]
    if rng.random() < 0.5:
        figure.append(Part(arc(-0.15, low + 0.05, fat * 0.5, 0.35, 100, 200, 8), LIGHT, 0.1))
    return figure


def flower(rng: np.random.Generator) -> Figure:
    petals, radius = int(rng.integers(5, 8)), rng.uniform(0.26, 0.34)
    centre = rng.uniform(0.2, 0.32)
    angles = 2 * np.pi * np.arange(petals) / petals + rng.uniform(0, 1)
    figure = [Part(arc(0.52 * np.cos(a), 0.52 * np.sin(a), radius, radius, count=14)) for a in angles]
    return [*figure, Part(arc(0, 0, centre, centre, count=16), SECOND)]


def gear(rng: np.random.Generator) -> Figure:
    teeth, root = int(rng.integers(7, 11)), rng.uniform(0.58, 0.7)
    step = 2 * np.pi / teeth
    angles = (np.arange(teeth)[:, None] * step + np.array([-0.3, -0.2, 0.2, 0.3]) * step).ravel()
    radii = np.tile([root, 0.9, 0.9, root], teeth)
    hole = rng.uniform(0.2, 0.34)
    outline = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    return [Part(outline), Part(arc(0, 0, hole, hole, count=18), LIGHT)]


def heart(rng: np.random.Generator) -> Figure:
    dip, tip = rng.uniform(-0.4, -0.2), rng.uniform(0.75, 0.95)
    half = [(0.3, -0.68), (0.68, -0.66), (0.86, -0.28), (0.6, 0.25)]
    curve = smooth(points((0, dip), *half, (0, tip)), closed=False)
    figure = [Part(np.concatenate([curve, curve[-2:0:-1] * (-1, 1)]))]
    if rng.random() < 0.3:
        figure.append(Part(arc(-0.45, -0.35, 0.2, 0.2, 150, 280, 8), LIGHT, 0.1))
    return figure


def hourglass(rng: np.random.Generator) -> Figure:
    wide, waist = rng.uniform(0.5, 0.72), rng.uniform(0.05, 0.14)
    outline = points((-wide, -0.75), (wide, -0.75), (waist, 0), (wide, 0.75), (-wide, 0.75), (-waist, 0))
    bar = wide + 0.12
    figure = [Part(outline, LIGHT), Part(points((-wide * 0.6, -0.45), (wide * 0.6, -0.45), (0, 0.0)), SECOND)]
    return [*figure, Part(rectangle(-bar, -0.9, bar, -0.72)), Part(rectangle(-bar, 0.72, bar, 0.9))]


def spiral(rng: np.random.Generator) -> Figure:
    turns = rng.uniform(1.8, 2.6)
    angles = np.linspace(0.6, 2 * np.pi * turns, 44)
    radii = 0.88 * angles / angles[-1]
    start = rng.uniform(0, 2 * np.pi)
    line = np.stack([radii * np.cos(angles + start), radii * np.sin(angles + start)], axis=1)
    return [Part(line, width=rng.uniform(0.11, 0.19))]


def star(rng: np.random.Generator) -> Figure:
    figure = [Part(_rays(0.95, rng.uniform(0.34, 0.5), 5))]
    if rng.random() < 0.4:
        figure.append(Part(_rays(0.45, 0.2, 5), SECOND))
    return figure


SHAPES: dict[str, Sketch] = {
    sketch.__name__: sketch
    for sketch in (arrow, bell, bolt, crescent, cross, drop, flower, gear, heart, hourglass, spiral, star)
}
"""Class name to sketch, in the order of the labels."""
