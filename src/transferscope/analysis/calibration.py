"""Calibration: whether a model is right as often as it says (Brier score, reliability, calibration error)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike, NDArray

from transferscope.analysis.intervals import CONFIDENCE, rate_interval

Floats = NDArray[np.float64]
SMALLEST = 1e-9
"""Squared errors below this count as none."""


@dataclass(frozen=True)
class CalibrationError:
    """Distance of stated probabilities from what happens, over bins of equal width.

    The true error depends on the bins: within one, errors of both signs cancel.
    """

    ece: float
    """Expected calibration error, sum over bins of their share times |confidence - rate|. Biased upwards."""
    ece_if_calibrated: float
    """The mean of `ece` of a perfectly calibrated model with the same confidences: its bias where there is no error."""
    rms: float
    """Root mean squared error, its square debiased (Kumar et al. 2019, arXiv 1909.10155); 0 where that is negative."""
    rms_low: float
    rms_high: float


def calibration_error(confidence: ArrayLike, happened: ArrayLike, *, num_bins: int = 10) -> CalibrationError:
    """Errors over `num_bins` bins of equal width in [0, 1], all in [0, 1]; NaN without examples.

    confidence: stated probability of each example, (num_examples,). happened: bool of the same shape, whether it came
    true. The root mean square has an interval, since its square can be estimated without bias; an interval of `ece`
    would be about a number that it does not estimate. Bins of one example count in `ece` alone.
    """
    c, y = np.asarray(confidence, dtype=float), np.asarray(happened, dtype=float)
    if len(c) == 0 or not np.isfinite(c).all():
        return CalibrationError(*[float("nan")] * 5)
    bins = _bin(c, num_bins)
    weights = (np.ones_like(c), c - y, (c - y) ** 2, y, c * (1 - c))
    size, gaps, squares, came_true, unsure = (_sums(bins, weight, num_bins) for weight in weights)
    used = size > 0
    by_chance = np.sqrt(2 / np.pi * unsure[used]).sum() / len(c)
    low, high, value = _root_mean_square(size, gaps, squares, came_true)
    return CalibrationError(float(np.abs(gaps).sum() / len(c)), float(by_chance), value, low, high)


def _root_mean_square(size: Floats, gaps: Floats, squares: Floats, came_true: Floats) -> tuple[float, float, float]:
    """Interval and value of the root mean squared gap of bins with these sums over their examples.

    The sum Q of the bins' shares times their squared mean gaps has mean θ + Σ a, with a the share times the variance of
    the mean gap, and θ what is sought. Its variance is 2 Σ b² + 4 θ h + r θ² / n. There b is a with the variance of a
    rate to which half an example of either kind is added, as a bin in which all are right has no variance of its own;
    h is the mean of b weighted by the bins' parts of Q, and r the relative variance of the squared gaps over examples,
    for the shares vary as well. Q is taken to have the gamma distribution with these two moments, and the interval
    holds the θ for which Q is in neither tail.
    """
    several = size > 1
    m, s, squared, k = (values[several] for values in (size, gaps, squares, came_true))
    if not len(m):
        return (float("nan"),) * 3
    mean, share, rate = s / m, m / size.sum(), (k + 0.5) / (m + 1)
    a = share * np.maximum(squared - m * mean**2, 0) / (m - 1) / m
    b = share * rate * (1 - rate) / (m - 1)
    parts = share * mean**2
    observed, shift, excess = float(parts.sum()), float(a.sum()), np.maximum(parts - a, 0)
    per_part = float((parts * b).sum() / observed) if observed > 0 else 0.0
    relative = max(0.0, float((excess**2 / share).sum() / excess.sum() ** 2) - 1) if excess.sum() > 0 else 0.0

    def below(theta: float) -> float:
        centre = max(shift + theta, SMALLEST)
        variance = 2 * float((b * b).sum()) + 4 * theta * per_part + theta**2 * relative / float(size.sum())
        return float(scipy.stats.gamma.cdf(observed, centre**2 / variance, scale=variance / centre))

    tail = (1 - CONFIDENCE) / 2
    value = math.sqrt(max(observed - shift, 0.0))
    low, high = (math.sqrt(_solve(below, level, observed + shift)) for level in (1 - tail, tail))
    return min(low, value), max(high, value), value


def _solve(below: Callable[[float], float], level: float, start: float) -> float:
    """The θ >= 0 at which `below`, which falls with θ, has the level; 0 where it is lower from the start."""
    if below(0.0) <= level:
        return 0.0
    high = max(start, SMALLEST)
    while below(high) > level:
        high *= 2
    return float(scipy.optimize.brentq(lambda theta: below(theta) - level, 0.0, high, xtol=1e-12))


def reliability(confidence: ArrayLike, happened: ArrayLike, *, num_bins: int = 10) -> pd.DataFrame:
    """A row per bin with examples: bin_low, bin_high, num_examples, confidence (mean), rate, rate_low, rate_high."""
    c, y = np.asarray(confidence, dtype=float), np.asarray(happened, dtype=float)
    finite = np.isfinite(c)
    bins = _bin(c[finite], num_bins)
    size, sums, came = (np.bincount(bins, weights, num_bins) for weights in (None, c[finite], y[finite]))
    used = np.flatnonzero(size)
    low, high = rate_interval(came[used], size[used])
    return pd.DataFrame(
        {
            "bin_low": used / num_bins,
            "bin_high": (used + 1) / num_bins,
            "num_examples": size[used],
            "confidence": sums[used] / size[used],
            "rate": came[used] / size[used],
            "rate_low": low,
            "rate_high": high,
        }
    )


def _sums(bins: NDArray[np.int64], weights: Floats, num_bins: int) -> Floats:
    return np.bincount(bins, weights, num_bins).astype(np.float64)


def _bin(confidence: Floats, num_bins: int) -> NDArray[np.int64]:
    return np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
