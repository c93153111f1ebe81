"""A radiograph of the chest, drawn: soft tissue, lungs, heart, ribs, diaphragm, vessels, and five findings.

Positions are in the square [-1, 1] x [-1, 1] as on the film: the patient's right side is on the left.
Brightness is a density: 0 is air, 1 is bone on soft tissue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from transferscope.generated.geometry import arc, mirrored, points, rectangle, smooth
from transferscope.generated.raster import cloud, grid, to_image, to_pixels

FINDINGS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
SUPERSAMPLE = 2
"""As in `raster`; less, since nearly all edges are blurred."""

Severities = Mapping[str, float]
"""Finding to severity in 0 (absent) .. 1."""


@dataclass(frozen=True)
class Body:
    """Features that all films of one patient share."""

    width: float
    heart: float
    lung_height: float
    rib_gap: float
    rib_slope: float
    fat: float
    side: int
    """Side of one-sided findings: -1 left on the film, 1 right."""
    patch: tuple[float, float]
    """Place of a consolidation."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Body:
        """A patient at random."""
        return cls(
            width=rng.uniform(0.9, 1.08),
            heart=rng.uniform(0.9, 1.12),
            lung_height=rng.uniform(-0.06, 0.06),
            rib_gap=rng.uniform(0.15, 0.18),
            rib_slope=rng.uniform(0.12, 0.3),
            fat=rng.uniform(0.0, 1.0),
            side=int(rng.choice([-1, 1])),
            patch=(rng.choice([-1, 1]) * rng.uniform(0.34, 0.56), rng.uniform(-0.45, 0.15)),
        )


@dataclass(frozen=True)
class Exposure:
    """Features that change from film to film: position, breath, rays, and the tubes and wires on the patient."""

    turn: float
    zoom: float
    shift: tuple[float, float]
    breath: float
    contrast: float
    brightness: float
    grain: float
    devices: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, *, portable: bool, devices: bool) -> Exposure:
        """A film at random; portable ones (AP) are less well centred, grainier, and taken with less breath."""
        loose = 1.5 if portable else 1.0
        return cls(
            turn=rng.uniform(-4, 4) * loose,
            zoom=rng.uniform(0.94, 1.08),
            shift=(rng.uniform(-0.06, 0.06) * loose, rng.uniform(-0.06, 0.06) * loose),
            breath=rng.uniform(-0.06, 0.04) - 0.03 * portable,
            contrast=rng.uniform(0.8, 1.15),
            brightness=rng.uniform(-0.06, 0.06),
            grain=rng.uniform(0.01, 0.025) * loose,
            devices=devices,
        )


def draw_thorax(
    body: Body, exposure: Exposure, severities: Severities, rng: np.random.Generator, size: int
) -> Image.Image:
    """Grey image of `size` pixels a side; the same body and severities show the same disease at another moment."""
    film = _Film(size * SUPERSAMPLE, exposure)
    lungs = {side: _lung(side, body, exposure, severities) for side in (-1, 1)}
    heart = _heart(film, body, severities)
    air = film.areas([(outline, 1.0) for outline in lungs.values()], blur=0.012) * (1 - heart)
    density = _soft_tissue(film, body) + 0.1 * heart - 0.47 * air
    density += air * _hazes(film, lungs, body, severities, rng)
    density += air * _vessels(film, severities, rng)
    density += _bones(film, body)
    if exposure.devices:
        density += _devices(film, rng)
    return _expose(density, exposure, rng, size)


class _Film:
    """Areas and lines on the film, turned and zoomed as the exposure says, as arrays (side, side) in 0..1."""

    def __init__(self, side: int, exposure: Exposure) -> None:
        self.side = side
        turn = np.deg2rad(exposure.turn)
        self.matrix = exposure.zoom * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        self.shift = np.array(exposure.shift)
        x, y = grid(side)
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        place = np.stack([x - exposure.shift[0], y - exposure.shift[1]], axis=2) @ inverse
        self.x, self.y = np.ascontiguousarray(place[..., 0]), np.ascontiguousarray(place[..., 1])

    def areas(self, outlines: Sequence[tuple[np.ndarray, float]], blur: float) -> np.ndarray:
        """Polygons with their values, the later over the earlier; `blur` in units of the square."""
        image = Image.new("L", (self.side, self.side))
        draw = ImageDraw.Draw(image)
        for outline, value in outlines:
            draw.polygon(self._place(outline), fill=round(255 * value))
        return self._values(image, blur)

    def lines(self, outlines: Sequence[tuple[np.ndarray, float, float]], blur: float) -> np.ndarray:
        """Lines with their widths (in units of the square) and values."""
        image = Image.new("L", (self.side, self.side))
        draw = ImageDraw.Draw(image)
        for outline, width, value in outlines:
            pixels = max(1, round(width * self.side / 2))
            draw.line(self._place(outline), fill=round(255 * value), width=pixels)
        return self._values(image, blur)

    def hill(self, x: float, y: float, rx: float, ry: float) -> np.ndarray:
        """A Gaussian hill of height 1."""
        return np.exp(-(((self.x - x) / rx) ** 2) - ((self.y - y) / ry) ** 2)

    def _place(self, outline: np.ndarray) -> list[float]:
        return to_pixels(outline @ self.matrix + self.shift, self.side)

    def _values(self, image: Image.Image, blur: float) -> np.ndarray:
        image = image.filter(ImageFilter.BoxBlur(blur * self.side / 2))
        return np.asarray(image, dtype=np.float32) / 255


def _lung(side: int, body: Body, exposure: Exposure, severities: Severities) -> np.ndarray:
    """Outline of one lung; a collapsed one ends higher and is narrower."""
    collapsed = severities["Atelectasis"] if side == body.side else 0.0
    floor = 0.42 + body.lung_height + exposure.breath + (0.05 if side > 0 else 0.0) - 0.3 * collapsed
    outer = 0.74 * body.width * (1 - 0.08 * collapsed)
    outline = points(
        (0.2, -0.78), (0.42, -0.72), (0.58 * body.width, -0.42), (outer * 0.95, 0.0), (outer, floor),
        (outer, floor + 0.26), (outer * 0.86, floor + 0.1), (0.4, floor - 0.03), (0.15, floor + 0.12), (0.13, 0.0),
        (0.12, -0.5),
    )  # fmt: skip
    outline = smooth(outline, steps=4)
    return outline if side > 0 else mirrored(outline)


def _soft_tissue(film: _Film, body: Body) -> np.ndarray:
    """Neck, shoulders and trunk, denser in the middle and below the diaphragm, with gas in the stomach."""
    wide = 0.86 + 0.1 * body.fat
    half = [(0.16, -1.2), (0.19, -0.92), (0.6, -0.78), (1.0, -0.55), (1.2, -0.3), (1.2, 0.1), (wide, 0.0), (wide, 1.3)]
    outline = points(*half, *[(-x, y) for x, y in half[::-1]])
    density = 0.6 * film.areas([(outline, 1.0)], blur=0.03)
    density += 0.1 * np.exp(-((film.x / 0.35) ** 2)) + 0.1 / (1 + np.exp(-12 * (film.y - 0.55)))
    return density - 0.14 * film.hill(0.4, 0.72, 0.14, 0.07)


def _heart(film: _Film, body: Body, severities: Severities) -> np.ndarray:
    """The part that the heart, the great vessels and the knob of the aorta hide; all lean to a collapsed side."""
    size = body.heart * (1 + 0.5 * severities["Cardiomegaly"])
    lean = 0.14 * severities["Atelectasis"] * body.side
    ventricles = points(
        (-0.2, 0.1), (-0.05, -0.18), (0.12, -0.14), (0.34, 0.12), (0.42, 0.36), (0.3, 0.46), (0.0, 0.48), (-0.18, 0.4)
    )
    ventricles = (smooth(ventricles, steps=4) - (0, 0.3)) * (size, 0.55 + 0.45 * size) + (lean, 0.3)
    vessels = points((-0.11, -0.7), (0.09, -0.7), (0.13, -0.4), (0.14, 0.1), (-0.12, 0.1), (-0.12, -0.35))
    vessels = smooth(vessels, steps=4) + np.array([lean * 0.6, 0])
    knob = arc(0.13 + lean * 0.6, -0.33, 0.09, 0.1, count=14)
    return film.areas([(vessels, 0.85), (knob, 0.9), (ventricles, 1.0)], blur=0.02)


def _bones(film: _Film, body: Body) -> np.ndarray:
    """Spine, ribs (rear and front parts) and collar bones."""
    bones = []
    for number in range(9):
        y, drop = -0.82 + body.rib_gap * number, body.rib_slope
        reach = (0.45 + 0.38 * np.sqrt(min(1.0, (number + 1) / 6))) * body.width
        rib = [(0.1, y), (0.3, y - 0.03), (reach * 0.75, y + drop * 0.35), (reach, y + drop)]
        bones.append((smooth(points(*rib), closed=False, steps=3), 0.05, 0.75))
        if 1 < number < 7:
            front = points((reach, y + drop), (reach * 0.8, y + drop + 0.16), (reach * 0.5, y + drop + 0.22))
            bones.append((front, 0.045, 0.4))
    collar = points((0.1, -0.66), (0.32, -0.68), (0.55, -0.76), (0.8, -0.74))
    bones.append((smooth(collar, closed=False, steps=3), 0.07, 1.0))
    bones += [(mirrored(line), width, value) for line, width, value in bones]
    spine = np.clip((0.1 - np.abs(film.x)) * 20, 0, 1) * (0.8 + 0.2 * np.sin(film.y * 34))
    return 0.13 * film.lines(bones, blur=0.014) + 0.09 * spine


def _vessels(film: _Film, severities: Severities, rng: np.random.Generator) -> np.ndarray:
    """Branches that leave the two hila; congestion in edema makes them stronger."""
    angles = np.deg2rad(rng.uniform(-70, 70, 18))
    ends = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.2, 0.5, (18, 1))
    middles = ends / 2 + rng.normal(0, 0.03, (18, 2))
    hilum = points((0.14, -0.08))
    branches = []
    for number, (middle, end) in enumerate(zip(middles, ends, strict=True)):
        branch = np.concatenate([hilum, hilum + middle, hilum + end])
        branches.append((branch * (1 if number % 2 else -1, 1), 0.022, 1.0))
    hila = film.hill(-0.18, -0.06, 0.11, 0.17) + film.hill(0.19, -0.1, 0.11, 0.17)
    return (0.1 + 0.08 * severities["Edema"]) * film.lines(branches, blur=0.01) + 0.14 * hila


def _hazes(
    film: _Film, lungs: Mapping[int, np.ndarray], body: Body, severities: Severities, rng: np.random.Generator
) -> np.ndarray:
    """Draw fillings of air spaces: edema around the hila, a patch of consolidation, plates of collapse, fluid below."""
    density = np.zeros_like(film.x)
    patches = cloud(film.side, 9, rng)[..., 0]
    if severities["Edema"]:
        wings = film.hill(-0.32, 0.0, 0.3, 0.42) + film.hill(0.34, 0.0, 0.3, 0.42)
        density += wings * severities["Edema"] * (0.14 + 0.24 * patches)
    if severities["Consolidation"]:
        rim = smooth(arc(*body.patch, 0.17, 0.2, count=9) + rng.normal(0, 0.035, (9, 2)), steps=3)
        density += film.areas([(rim, 1.0)], blur=0.06) * severities["Consolidation"] * (0.42 + 0.15 * patches)
    if severities["Atelectasis"]:
        density += _plates(film, lungs[body.side], body.side, rng) * 0.25 * severities["Atelectasis"]
    if severities["Pleural Effusion"]:
        for side in (-1, 1) if rng.random() < 0.4 else (body.side,):
            density += 0.45 * _fluid(film, lungs[side], side, severities["Pleural Effusion"])
    return density


def _plates(film: _Film, lung: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """One to three bright horizontal bands over the floor of a lung."""
    floor = float(np.max(lung[:, 1])) - 0.22
    bands = []
    for _ in range(rng.integers(1, 4)):
        y, left, tilt = floor - rng.uniform(0.02, 0.25), rng.uniform(0.2, 0.35), rng.uniform(-0.08, 0.08)
        band = points((left * side, y), ((left + rng.uniform(0.2, 0.3)) * side, y + tilt))
        bands.append((band, 0.05, 1.0))
    return film.lines(bands, blur=0.012)


def _fluid(film: _Film, lung: np.ndarray, side: int, severity: float) -> np.ndarray:
    """1 below a fluid level that climbs towards the chest wall, 0 above."""
    level = float(np.max(lung[:, 1])) - 0.12 - 0.42 * severity
    lateral = np.clip(film.x * side - 0.15, 0, 1)
    depth = film.y - (level + 0.12 - 0.55 * lateral**2)
    return np.clip(0.5 + depth * 12, 0, 1) * (film.x * side > 0)


def _devices(film: _Film, rng: np.random.Generator) -> np.ndarray:
    """A catheter, and at times wires of an electrocardiogram or a pacemaker."""
    tip = rng.uniform(-0.11, -0.01)
    catheter = points((-0.5, -0.85), (-0.28, -0.62), (-0.1, -0.5), (tip, -0.1))
    lines = [(smooth(catheter, closed=False), 0.03, 1.0)]
    if rng.random() < 0.5:
        lines += [(smooth(rng.uniform(-0.8, 0.8, (3, 2)), closed=False), 0.02, 0.6) for _ in range(2)]
    density = 0.25 * film.lines(lines, blur=0.006)
    if rng.random() < 0.25:
        density += 0.4 * film.areas([(smooth(rectangle(0.42, -0.62, 0.6, -0.45), steps=3), 1.0)], blur=0.006)
    return density


def _expose(density: np.ndarray, exposure: Exposure, rng: np.random.Generator, size: int) -> Image.Image:
    """Film of a density: contrast, saturation of the dense parts, grain."""
    values = 0.03 + density * exposure.contrast + exposure.brightness
    values = 1.1 * (1 - np.exp(-1.6 * np.clip(values, 0, None)))
    film = np.asarray(to_image(255 * values).reduce(SUPERSAMPLE), dtype=np.float32)
    return to_image(film + 255 * exposure.grain * rng.standard_normal((size, size), dtype=np.float32))
