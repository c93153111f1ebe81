"""A performance barrier as a number: the gap to the chord between the ends, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from transferscope.system.errors import UserError

_SNAP = 1e-9
"""How far from 0 or 1 an alpha still counts as an end: grids in floating point miss them by rounding."""


@dataclass(frozen=True)
class Barrier:
    """The largest gap to the chord, in the metric's unit, where it lies, and what the middle gains over the chord."""

    barrier: float
    barrier_alpha: float
    midpoint_gain: float
    """Positive where the model half-way is better than the mean of the ends."""


def barrier(alphas: ArrayLike, values: ArrayLike, *, higher_is_better: bool) -> float:
    """Largest gap between a curve and the chord of its ends over alpha in [0, 1]; 0 where the curve is never worse.

    alphas, values: (num_points,), in any order; points outside [0, 1] do not count, 0 and 1 must be there. Worse is
    below the chord for accuracy and AUC, above it for a loss. NaN where a value is NaN. UserError without both ends.
    """
    return find_barrier(alphas, values, higher_is_better=higher_is_better).barrier


def find_barrier(alphas: ArrayLike, values: ArrayLike, *, higher_is_better: bool) -> Barrier:
    """`barrier` with its place, and the midpoint's gain (interpolated between neighbours where .5 is not measured)."""
    inside, curve = _between_ends(alphas, values)
    gaps = _gaps(inside, curve, higher_is_better)
    if np.isnan(gaps).any():
        return Barrier(np.nan, np.nan, np.nan)
    worst = int(gaps.argmax())
    return Barrier(float(gaps[worst]), float(inside[worst]), float(_midpoint_gains(inside, gaps)))


def _between_ends(alphas: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of [0, 1] by alpha, with the ends snapped to exactly 0 and 1; values may carry leading axes."""
    points = np.asarray(alphas, dtype=np.float64)
    curve = np.asarray(values, dtype=np.float64)
    if points.ndim != 1 or curve.shape[-1:] != points.shape:
        raise UserError(f"{points.shape} alphas but {curve.shape} values: give one value per alpha")
    for end in (0.0, 1.0):
        points = np.where(np.abs(points - end) <= _SNAP, end, points)
        if end not in points:
            raise UserError(
                f"no value at alpha {end:g}: a barrier is measured against both ends, add 0 and 1 to alphas"
            )
    order = np.argsort(points, kind="stable")
    order = order[(points[order] >= 0) & (points[order] <= 1)]
    return points[order], curve[..., order]


def _gaps(alphas: NDArray[np.float64], curve: NDArray[np.float64], higher_is_better: bool) -> NDArray[np.float64]:
    """How much worse than the chord, (..., num_points); exactly 0 at the ends."""
    # Written so that no infinity is multiplied by 0: a diverged end still has a gap of 0 to itself.
    with np.errstate(invalid="ignore"):
        first, last = curve[..., :1], curve[..., -1:]
        # Between equal ends the chord is flat to the last bit, so that a model has no barrier with itself.
        chord = np.where(first == last, first, (1 - alphas) * first + alphas * last)
        gaps = chord - curve if higher_is_better else curve - chord
    gaps[..., [0, -1]] = np.where(np.isnan(curve[..., [0, -1]]), np.nan, 0.0)
    return gaps


def higher_is_better(metric: str) -> bool:
    """Whether a named metric is a score (accuracy, auc) and not a loss or an error; naive_loss is a loss too."""
    return not any(word in metric for word in ("loss", "error"))


def barrier_row(
    alphas: ArrayLike, values: ArrayLike, *, higher_is_better: bool, confidence: float = 0.95
) -> dict[str, float]:
    """One line in numbers, with percentile bootstrap intervals over the choice of examples.

    values: (1 + num_resamples, num_alphas), the metric on all examples and then under every resample, the same
    examples for every alpha. Gives barrier, barrier_alpha, midpoint_gain, and the bounds barrier_low, barrier_high,
    gain_low, gain_high, NaN without resamples. The largest gap of a noisy flat curve is positive, so an interval near
    0 says "no barrier found" and not "a small one".
    """
    curves = np.atleast_2d(np.asarray(values, dtype=np.float64))
    inside, between = _between_ends(alphas, curves[1:])
    gaps = _gaps(inside, between, higher_is_better)
    bounds = _percentiles(gaps.max(axis=1), confidence), _percentiles(_midpoint_gains(inside, gaps), confidence)
    found = vars(find_barrier(alphas, curves[0], higher_is_better=higher_is_better))
    return found | dict(zip(("barrier_low", "barrier_high", "gain_low", "gain_high"), sum(bounds, ()), strict=True))


def _midpoint_gains(alphas: NDArray[np.float64], gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the middle gains over the chord, (...,): interpolated between neighbours where .5 is not measured."""
    right = min(int(np.searchsorted(alphas, 0.5)), len(alphas) - 1)
    left = max(right - 1, 0)
    part = (0.5 - alphas[left]) / (alphas[right] - alphas[left])
    return -((1 - part) * gaps[..., left] + part * gaps[..., right])


@dataclass(frozen=True)
class Interval:
    """A mean or an estimate with a percentile bootstrap interval; low and high are NaN where one value cannot tell."""

    value: float
    low: float
    high: float
    num: int


def bootstrap_mean(
    values: ArrayLike, *, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over pairs (or replicas) with a percentile bootstrap interval; NaN values are left out and not counted.

    Pairs that share a checkpoint are not independent, so with few replicas the interval is too narrow.
    """
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if len(sample) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    if len(sample) == 1:
        return Interval(float(sample[0]), np.nan, np.nan, 1)
    draws = np.random.default_rng(seed).choice(sample, (num_resamples, len(sample))).mean(axis=1)
    low, high = _percentiles(draws, confidence)
    return Interval(float(sample.mean()), low, high, len(sample))


SUMMARY_KEYS = ("scenario", "task", "split", "pair_kind", "metric", "epochs")


def summarise_barriers(barriers: pd.DataFrame) -> pd.DataFrame:
    """All scenarios in one table: a row per scenario, task, part, kind of pair, compared epochs and metric.

    barriers: a row per pair, part and metric; `epochs` names those of both models, "final & final".
    pairs: how many; mean, smallest, largest barrier of them; pairs_low, pairs_high: bootstrap of the mean over pairs,
    empty for one pair; examples_low, examples_high: from the lowest to the highest bound of the pairs' own intervals
    over examples; midpoint_gain: its mean over pairs.
    """
    rows = []
    for group, part in barriers.groupby(list(SUMMARY_KEYS), sort=False):
        over_pairs = bootstrap_mean(part["barrier"])
        rows.append(
            {
                **dict(zip(SUMMARY_KEYS, group, strict=True)),
                "pairs": len(part),
                "mean": over_pairs.value,
                "smallest": part["barrier"].min(),
                "largest": part["barrier"].max(),
                "pairs_low": over_pairs.low,
                "pairs_high": over_pairs.high,
                "examples_low": part["barrier_low"].min(),
                "examples_high": part["barrier_high"].max(),
                "midpoint_gain": part["midpoint_gain"].mean(),
            }
        )
    return pd.DataFrame(rows)


def _percentiles(draws: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    if len(draws) == 0:
        return np.nan, np.nan
    low, high = np.percentile(draws, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)
