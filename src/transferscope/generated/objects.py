"""The ten things of the three generated domains."""

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


def anchor(rng: np.random.Generator) -> Figure:
    ring, stock, reach = rng.uniform(0.13, 0.2), rng.uniform(0.3, 0.5), rng.uniform(0.55, 0.75)
    thick = rng.uniform(0.12, 0.2)
    flukes = arc(0, 0.15, reach, 0.68, 20, 160, 14)
    tip = 0.2
    left, right = flukes[-1], flukes[0]
    return [
        Part(arc(0, -0.75, ring, ring, 0, 359, 14), width=thick * 0.8),
        Part(points((0, -0.6), (0, 0.8)), width=thick),
        Part(points((-stock, -0.38), (stock, -0.38)), width=thick * 0.9),
        Part(flukes, width=thick),
        Part(left + points((-tip, 0.12), (tip * 0.9, 0.02), (-0.08, -0.28))),
        Part(right + points((tip, 0.12), (-tip * 0.9, 0.02), (0.08, -0.28))),
    ]


def apple(rng: np.random.Generator) -> Figure:
    wide, low = rng.uniform(0.66, 0.82), rng.uniform(0.66, 0.85)
    half = [(0.0, -0.36), (0.28, -0.52), (0.64 * wide / 0.72, -0.4), (wide, 0.02), (wide * 0.8, 0.48), (0.3, low)]
    left = [(-x, y) for x, y in half[:0:-1]]
    lean = rng.uniform(-0.2, 0.2)
    figure = [
        Part(smooth(points(*half, (0.0, low - 0.1), *left))),
        Part(smooth(points((0, -0.36), (lean / 2, -0.6), (lean, -0.85)), closed=False), DARK, 0.11),
    ]
    if rng.random() < 0.85:
        leaf = points((lean / 2, -0.6), (0.2, -0.85), (0.52, -0.86), (0.35, -0.63))
        figure.append(Part(smooth(leaf), SECOND))
    if rng.random() < 0.5:
        figure.append(Part(smooth(points((-0.5, -0.2), (-0.36, -0.25), (-0.45, 0.1), (-0.56, 0.05))), LIGHT))
    return figure


def car(rng: np.random.Generator) -> Figure:
    roof, hood = rng.uniform(-0.58, -0.35), rng.uniform(0.45, 0.62)
    back = rng.uniform(-0.75, -0.45)
    wheel = rng.uniform(0.19, 0.26)
    cabin = points((back, 0), (back + 0.2, roof), (0.22, roof), (hood, 0))
    body = points((-0.95, 0.02), (-0.85, -0.06), (0.72, -0.04), (0.95, 0.12), (0.95, 0.38), (-0.95, 0.38))
    window = points((back + 0.17, -0.06), (back + 0.29, roof + 0.1), (-0.1, roof + 0.1), (-0.1, -0.06))
    front = points((0.02, -0.06), (0.02, roof + 0.1), (0.2, roof + 0.1), (hood - 0.18, -0.06))
    figure = [Part(cabin), Part(body), Part(window, LIGHT), Part(front, LIGHT)]
    for x in (-0.52, 0.52):
        figure += [Part(arc(x, 0.4, wheel, wheel, count=16), DARK), Part(arc(x, 0.4, 0.09, 0.09, count=8), LIGHT)]
    return figure


def cup(rng: np.random.Generator) -> Figure:
    top, bottom = rng.uniform(0.5, 0.62), rng.uniform(0.32, 0.52)
    height = rng.uniform(0.5, 0.7)
    body = np.concatenate(
        [points((-top, -height + 0.1), (top, -height + 0.1)), arc(0, height, bottom, 0.14, 0, 180, 10)]
    )
    figure = [
        Part(arc(top - 0.06, -0.02, 0.36, 0.34, -95, 95, 12), width=0.15),
        Part(body),
        Part(arc(0, -height + 0.1, top, 0.15, count=18), SECOND),
    ]
    if rng.random() < 0.5:
        band = rng.uniform(-0.1, 0.25)
        edge = (top + bottom) / 2 - 0.03
        figure.append(Part(rectangle(-edge, band - 0.1, edge, band + 0.1), LIGHT))
    return figure


def fish(rng: np.random.Generator) -> Figure:
    fat, tail = rng.uniform(0.3, 0.5), rng.uniform(0.28, 0.5)
    back, belly = [(0.5, -fat * 0.85), (0.0, -fat), (-0.5, -0.1)], [(-0.5, 0.1), (0.0, fat), (0.5, fat * 0.8)]
    body = smooth(points((0.85, 0.02), *back, *belly))
    fin = points((0.35, -fat * 0.85), (-0.05, -fat - rng.uniform(0.12, 0.32)), (-0.25, -fat * 0.75))
    figure = [
        Part(fin, SECOND),
        Part(points((-0.42, 0), (-0.92, -tail), (-0.76, 0), (-0.92, tail)), SECOND),
        Part(body),
        Part(arc(0.5, -0.1, 0.09, 0.09, count=10), LIGHT),
        Part(arc(0.52, -0.1, 0.045, 0.045, count=8), DARK),
    ]
    if rng.random() < 0.6:
        figure.append(Part(arc(0.1, 0.0, 0.16, fat * 0.7, -60, 60, 8), DARK, 0.05))
    return figure


def house(rng: np.random.Generator) -> Figure:
    half, eaves = rng.uniform(0.48, 0.66), rng.uniform(-0.2, 0.05)
    peak, over = rng.uniform(-0.92, -0.62), rng.uniform(0.08, 0.2)
    door = rng.uniform(-half + 0.22, 0.05)
    figure = []
    if rng.random() < 0.6:
        figure.append(Part(rectangle(half * 0.35, peak + 0.05, half * 0.35 + 0.2, eaves), DARK))
    figure += [
        Part(rectangle(-half, eaves, half, 0.8)),
        Part(points((-half - over, eaves), (0, peak), (half + over, eaves)), SECOND),
        Part(rectangle(door - 0.14, 0.3, door + 0.14, 0.8), DARK),
    ]
    side = half - 0.12
    figure.append(Part(rectangle(side - 0.28, eaves + 0.18, side, eaves + 0.46), LIGHT))
    return figure


def key(rng: np.random.Generator) -> Figure:
    bow, thick = rng.uniform(0.24, 0.33), rng.uniform(0.13, 0.18)
    end = rng.uniform(0.75, 0.9)
    figure = [
        Part(points((-0.62 + bow, 0), (end, 0)), width=thick),
        Part(arc(-0.58, 0, bow, bow * rng.uniform(0.8, 1.1), 0, 359, 18), width=thick * 1.1),
    ]
    teeth = int(rng.integers(2, 4))
    for number in range(teeth):
        x = end - 0.08 - 0.21 * number
        figure.append(Part(points((x, 0.02), (x, rng.uniform(0.25, 0.42))), width=thick * 0.9))
    return figure


def mushroom(rng: np.random.Generator) -> Figure:
    brim, height = rng.uniform(0.66, 0.85), rng.uniform(0.6, 0.9)
    stem, foot = rng.uniform(0.18, 0.28), rng.uniform(0.24, 0.4)
    cap = np.concatenate([arc(0, 0.02, brim, height, 180, 360, 16), arc(0, 0.02, brim, 0.14, 0, 180, 10)])
    stalk = points((-stem, 0.0), (stem, 0.0), (stem, 0.5), (foot, 0.82), (-foot, 0.82), (-stem, 0.5))
    figure = [Part(smooth(stalk, steps=4), LIGHT), Part(cap)]
    for x in (-0.42, 0.02, 0.42):
        if rng.random() < 0.75:
            radius = rng.uniform(0.08, 0.15)
            lift = rng.uniform(0.25, 0.5) * (1.2 - abs(x))
            figure.append(Part(arc(x, -lift * height / 0.75, radius, radius, count=10), SECOND))
    return figure


def sailboat(rng: np.random.Generator) -> Figure:
    bow, depth = rng.uniform(0.72, 0.92), rng.uniform(0.7, 0.85)
    top = rng.uniform(-0.95, -0.75)
    hull = points((-bow, 0.42), (bow, 0.42), (bow * 0.62, depth), (-bow * 0.66, depth))
    main = points((0.06, top + 0.05), (rng.uniform(0.55, 0.8), 0.28), (0.06, 0.28))
    figure = [Part(points((0, top), (0, 0.45)), DARK, 0.08), Part(main, SECOND), Part(hull)]
    if rng.random() < 0.8:
        jib = points((-0.06, top + rng.uniform(0.1, 0.4)), (-rng.uniform(0.4, 0.65), 0.28), (-0.06, 0.28))
        figure.append(Part(jib, LIGHT))
    return figure


def umbrella(rng: np.random.Generator) -> Figure:
    brim, height = rng.uniform(0.78, 0.92), rng.uniform(0.55, 0.8)
    panels = int(rng.integers(3, 6))
    wide = brim / panels
    scallops = [arc(brim - wide * (2 * number + 1), 0, wide, 0.12, 0, -180, 6) for number in range(panels)]
    canopy = np.concatenate([arc(0, 0, brim, height, 180, 360, 16), *scallops])
    hook = rng.uniform(0.14, 0.2)
    figure = [
        Part(points((0, -height - 0.1), (0, 0.68)), DARK, 0.09),
        Part(arc(-hook, 0.68, hook, 0.2, 0, 180, 8), DARK, 0.1),
        Part(canopy),
    ]
    if panels >= 3 and rng.random() < 0.7:
        middle = arc(0, 0, wide * (1 if panels % 2 else 2), height, 180, 360, 10)
        figure.append(Part(middle, SECOND))
    return figure


OBJECTS: dict[str, Sketch] = {
    sketch.__name__: sketch for sketch in (anchor, apple, car, cup, fish, house, key, mushroom, sailboat, umbrella)
}
"""Class name to sketch, in the order of the labels."""
