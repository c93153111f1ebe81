"""A performance barrier as a number: the gap to the chord between the ends, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from transferscope.errors import UserError

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
    gain = -float(np.interp(0.5, inside, gaps))
    return Barrier(float(gaps[worst]), float(inside[worst]), gain)


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
        chord = (1 - alphas) * curve[..., :1] + alphas * curve[..., -1:]
        gaps = chord - curve if higher_is_better else curve - chord
    gaps[..., [0, -1]] = np.where(np.isnan(curve[..., [0, -1]]), np.nan, 0.0)
    return gaps


def higher_is_better(metric: str) -> bool:
    """Whether a named metric is a score (accuracy, auc) and not a loss or an error; naive_loss is a loss too."""
    return not any(word in metric for word in ("loss", "error"))


def barrier_table(interpolation: pd.DataFrame) -> pd.DataFrame:
    """One row per curve of a long table with columns alpha, metric, value and any others, which identify the curve.

    Returns the identifying columns, metric, barrier, barrier_alpha, midpoint_gain.
    """
    keys = [column for column in interpolation.columns if column not in ("alpha", "value")]
    rows = []
    for group, curve in interpolation.groupby(keys, sort=False, dropna=False):
        names: dict[str, Any] = dict(zip(keys, group, strict=True))
        found = find_barrier(curve["alpha"], curve["value"], higher_is_better=higher_is_better(names["metric"]))
        rows.append({**names, **vars(found)})
    return pd.DataFrame(rows, columns=[*keys, "barrier", "barrier_alpha", "midpoint_gain"])


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


def barrier_intervals(barriers: pd.DataFrame, by: Sequence[str], **bootstrap: float) -> pd.DataFrame:
    """Mean barrier and midpoint gain over the pairs of every group: `by`, measure, mean, low, high, num_pairs."""
    rows = []
    for group, part in barriers.groupby(list(by), sort=False, dropna=False):
        for measure in ("barrier", "midpoint_gain"):
            found = bootstrap_mean(part[measure], **bootstrap)  # type: ignore[arg-type]
            rows.append((*group, measure, found.value, found.low, found.high, found.num))
    return pd.DataFrame(rows, columns=[*by, "measure", "mean", "low", "high", "num_pairs"])


def barrier_over_examples(
    alphas: ArrayLike,
    values: ArrayLike,
    *,
    higher_is_better: bool,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The barrier of one pair with an interval over the choice of examples.

    values: (num_alphas, num_examples), what every example contributes (correct as 0 or 1, or its loss). Examples are
    resampled with replacement, the same ones for every alpha. The largest gap of a noisy flat curve is positive, so
    an interval near 0 says "no barrier found" and not "a small one".
    """
    per_example = np.asarray(values, dtype=np.float64)
    if per_example.ndim != 2 or per_example.shape[1] == 0:
        raise UserError(f"values of shape {per_example.shape}: give (num_alphas, num_examples) with an example or more")
    num_examples = per_example.shape[1]
    counts = np.random.default_rng(seed).multinomial(
        num_examples, np.full(num_examples, 1 / num_examples), num_resamples
    )
    inside, curves = _between_ends(alphas, counts @ per_example.T / num_examples)
    low, high = _percentiles(_gaps(inside, curves, higher_is_better).max(axis=1), confidence)
    found = barrier(alphas, per_example.mean(axis=1), higher_is_better=higher_is_better)
    return Interval(found, low, high, num_examples)


def _percentiles(draws: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.percentile(draws, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)
