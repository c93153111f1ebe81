"""The boundary of a basin along the line through two checkpoints (Figure 18)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transferscope.system.errors import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LineBoundary:
    """The alpha at which a curve first leaves the tolerance on either side of the checkpoints at 0 and 1.

    low is at or below 0, high at or above 1; -inf or inf where the curve stays within tolerance as far as it was
    measured. connected: whether it stays within tolerance between the ends; without it there is no common basin.
    """

    low: float
    high: float
    connected: bool


def line_boundary(alphas: ArrayLike, values: ArrayLike, tolerance: float, *, higher_is_better: bool) -> LineBoundary:
    """The one-dimensional basin of Figure 18: where the metric is worse than the nearer end by more than `tolerance`.

    Below 0 the reference is the value at 0, above 1 that at 1, between them the chord. The crossing is interpolated
    linearly between measured alphas. NaN counts as worse. UserError without alpha 0 and 1, or for a negative tolerance.
    """
    points, curve = by_alpha(alphas, values, tolerance)
    if curve.ndim != 1:
        raise UserError(f"{curve.shape} values: give one value per alpha")
    worse = (below_the_ends(points, curve) if higher_is_better else below_the_ends(points, -curve)) - tolerance
    inside = (points >= 0) & (points <= 1)
    left, right = points <= 0, points >= 1
    return LineBoundary(
        low=first_crossing(points[left][::-1], worse[left][::-1], -math.inf),
        high=first_crossing(points[right], worse[right], math.inf),
        connected=bool((worse[inside] <= 0).all()),
    )


def by_alpha(alphas: ArrayLike, values: ArrayLike, tolerance: float) -> tuple[Floats, Floats]:
    """Alphas in order, and the values that belong to them, (..., num_alphas)."""
    points, curve = np.asarray(alphas, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if points.ndim != 1 or curve.shape[-1:] != points.shape:
        raise UserError(f"{points.shape} alphas but {curve.shape} values: give one value per alpha")
    if tolerance < 0:
        raise UserError(f"tolerance is {tolerance}: give 0 or more, in the metric's unit")
    points = points.round(9) + 0.0
    if 0 not in points or 1 not in points:
        raise UserError("the boundary is measured against the checkpoints: add 0 and 1 to alphas")
    order = np.argsort(points, kind="stable")
    return points[order], curve[..., order]


def below_the_ends(points: Floats, curve: Floats) -> Floats:
    """How far the curve lies below the nearer end, or between the ends below the chord, (..., num_alphas)."""
    first, last = (curve[..., [int(np.flatnonzero(points == end)[0])]] for end in (0, 1))
    part = points.clip(0, 1)
    return (1 - part) * first + part * last - curve


def first_crossing(points: Floats, worse: Floats, never: float) -> float:
    """The place where `worse` first rises above 0 going outward from an end."""
    for index in range(1, len(points)):
        if math.isfinite(worse[index]) and worse[index] <= 0:
            continue
        near, far = worse[index - 1], worse[index]
        part = near / (near - far) if math.isfinite(far) else 0.0
        return float(points[index - 1] + part * (points[index] - points[index - 1]))
    return never
