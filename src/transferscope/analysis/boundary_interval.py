"""Intervals over examples of the boundary of a basin along a line, by a test at every place."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import qmc

from transferscope.analysis.line_boundary import Floats, below_the_ends, by_alpha, first_crossing


class BoundaryIntervals(NamedTuple):
    """Lower and upper bound of both ends of a basin; infinite as the ends themselves are."""

    low: tuple[float, float]
    high: tuple[float, float]


def boundary_intervals(
    alphas: ArrayLike,
    values: ArrayLike,
    tolerance: float,
    *,
    higher_is_better: bool,
    num_examples: int | None = None,
    is_share: bool = False,
    confidence: float = 0.95,
) -> BoundaryIntervals:
    """Bound both ends of the basin that `line_boundary` finds in the first of several curves.

    values: (1 + num_resamples, num_alphas), the metric on all examples and then under every bootstrap resample, the
    same examples for every alpha. num_examples, is_share: as in `barrier_row`. NaN with fewer than two resamples that
    are finite. UserError as for `line_boundary`.

    A noisy curve leaves the tolerance too early, and its resamples still earlier, so that percentiles of their ends
    hold the truth in 75 to 95 % of test sets. Every place is tested instead. If the basin ends at b, the largest
    standardised excess over the tolerance up to b is that of noise, correlated as the resamples are, around 0 at b and
    around the measured excess, but at most 0, before b. The places where the observed one is between the 2.5 and 97.5 %
    quantiles of that reach from the lower to the upper bound. The standard error of an accuracy is that of a fall which
    is just the tolerance (the score test of paired proportions, Tango 1998, with a Poisson distribution of both kinds
    of changed answers); that of another metric is the resamples'.

    In 1,000 simulations each at 100 and 500 examples, with the end itself added where it lies outside, they hold the
    truth in 94 to 98 % of test sets, and in up to 99 % where the metric stays close to the tolerance over several
    places or never falls below it. Then the bounds allow for the choice among these, and an end beyond all places can
    only be missed on one side (`tests/benchmarks/bench_intervals.py boundaries`).
    """
    points, curves = by_alpha(alphas, np.atleast_2d(np.asarray(values, dtype=np.float64)), tolerance)
    falls = below_the_ends(points, curves if higher_is_better else -curves)
    num = num_examples if is_share else None
    left, right = points <= 0, points >= 1
    before = _crossing_interval(-points[left][::-1], falls[:, left][:, ::-1], tolerance, num, confidence)
    return BoundaryIntervals(
        low=(-before[1], -before[0]),
        high=_crossing_interval(points[right], falls[:, right], tolerance, num, confidence),
    )


def _crossing_interval(
    points: Floats, falls: Floats, tolerance: float, num_examples: int | None, confidence: float
) -> tuple[float, float]:
    """Bound the place at which falls first exceed the tolerance, outward from an end.

    points: (num_points,), rising from the end. falls: (1 + num_resamples, num_points), 0 at the end; the basin ends at
    the latest before one that is not finite. num_examples: of a fall of a share of examples; None: of another metric.
    """
    broken = np.flatnonzero(~np.isfinite(falls[0]))
    reach = int(broken[0]) if len(broken) else len(points)
    latest = float(points[reach - 1]) if len(broken) and reach else math.inf
    if reach < 2:
        return latest, latest
    drawn = falls[1:, 1:reach]
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if len(drawn) < 2:
        return math.nan, math.nan
    mix, scale = _places_between(reach)
    noise, spread = _noise(drawn, mix)
    fall, places = mix @ falls[0, 1:reach], points[0] + mix @ (points[1:reach] - points[0])
    error = spread if num_examples is None else _score_error(fall, spread, tolerance, scale, num_examples)
    excess = (fall - tolerance) / np.maximum(error, _TINY)
    up_to = np.maximum.accumulate(np.minimum(excess, 0) + noise, axis=1)
    before = np.hstack([np.full((len(noise), 1), -np.inf), up_to[:, :-1]])
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    lowest, highest = np.quantile(np.maximum(before, noise), tails, axis=0)
    largest = np.maximum.accumulate(excess)
    low = first_crossing(np.r_[points[0], places], np.r_[-1.0, largest - lowest], latest)
    if largest[-1] <= np.quantile(up_to[:, -1], tails[1]):
        return low, latest
    return low, max(low, _last_crossing(np.r_[points[0], places], np.r_[-1.0, largest - highest]))


_TINY = 1e-12


def _last_crossing(points: Floats, late: Floats) -> float:
    """The place beyond which `late`, below 0 at the first of the points, stays above 0."""
    index = int(np.flatnonzero(late <= 0)[-1])
    if index + 1 == len(points):
        return float(points[-1])
    near, far = late[index], late[index + 1]
    return float(points[index] + near / (near - far) * (points[index + 1] - points[index]))


@functools.cache
def _places_between(num_points: int, each: int = 8) -> tuple[Floats, Floats]:
    """Places between measured points, as mixtures of all points but the first, (num_places, num_points - 1).

    Beside them the largest part of the fall of one example in each. A fall begins at 0, so that the tolerance may be
    exceeded soon after the first point if the next is low; places are close together there.
    """
    rows, scale = [], []
    for segment in range(num_points - 1):
        for part in np.geomspace(0.02, 1, 2 * each) if segment == 0 else np.arange(1, each + 1) / each:
            row = np.zeros(num_points)
            row[segment : segment + 2] = 1 - part, part
            rows.append(row[1:])
            scale.append(part if segment == 0 else 1.0)
    return np.array(rows), np.array(scale)


def _noise(drawn: Floats, mix: Floats) -> tuple[Floats, Floats]:
    """Normal noise of variance 1 that is correlated over places as resamples are, (num_draws, num_places), and errors.

    drawn: (num_resamples, num_points). Where no resample differs, noise is that of one normal number.
    """
    covariance = np.atleast_2d(np.cov(drawn, rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    normal = _normal(drawn.shape[1])
    noise = normal @ (mix @ (vectors * np.sqrt(values.clip(0)))).T
    spread = np.sqrt(np.einsum("pi,ij,pj->p", mix, covariance, mix).clip(0))
    known = spread > _TINY
    return np.where(known, noise / np.where(known, spread, 1.0), normal[:, :1]), spread


@functools.cache
def _normal(dimensions: int, log2_num: int = 10) -> Floats:
    """Normal numbers of low discrepancy, (2**log2_num, dimensions), always the same."""
    return np.asarray(ndtri(qmc.Sobol(dimensions, rng=np.random.default_rng(0)).random_base2(log2_num)))


def _score_error(fall: Floats, spread: Floats, tolerance: float, scale: Floats, num_examples: int) -> Floats:
    """Standard error of a fall of accuracy if it is the tolerance, (num_places,).

    With u the share of examples whose answer changes and d the fall, the most likely u with d = t maximises
    (s + d) log(u + t) + (s - d) log(u - t) - 2 u, where s is the observed u: u² - s u + t d - t² = 0.
    """
    seen, bound = fall / scale, tolerance / scale
    changed = num_examples * np.square(spread / scale) + np.square(seen)
    likely = (changed + np.sqrt(np.square(changed) + (4 * bound * (bound - seen)).clip(-np.square(changed)))) / 2
    return np.asarray(scale * np.sqrt((np.maximum(likely, bound) - np.square(bound)).clip(0) / num_examples))
