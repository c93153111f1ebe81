"""Calibration: whether a model is right as often as it says (Brier score, reliability, calibration error)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from transferscope.analysis.intervals import CONFIDENCE, rate_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationError:
    """How far stated probabilities are from what happens, over bins of equal width.

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
    size, gaps, squares, unsure = (
        np.bincount(bins, weights, num_bins).astype(float)
        for weights in (np.ones_like(c), c - y, (c - y) ** 2, c * (1 - c))
    )
    used = size > 0
    by_chance = np.sqrt(2 / np.pi * unsure[used]).sum() / len(c)
    low, high, value = _root_mean_square(size, gaps, squares)
    return CalibrationError(float(np.abs(gaps).sum() / len(c)), float(by_chance), value, low, high)


def _root_mean_square(size: Floats, gaps: Floats, squares: Floats) -> tuple[float, float, float]:
    """Interval and value of the root mean squared gap of bins with these sums over their examples.

    The sum Q of the bins' shares times their squared mean gaps has mean θ + Σ a and variance 2 Σ a² + 4 θ h, with a the
    share times the variance of the mean gap, θ what is sought, and h the mean of a over the bins weighted by their part
    of θ. Q is taken to have the gamma distribution with these two moments, and the interval holds the θ for which Q is
    in neither tail.
    """
    several = size > 1
    m, s, squared = (values[several] for values in (size, gaps, squares))
    if not len(m):
        return (float("nan"),) * 3
    mean = s / m
    noise = np.maximum(squared - m * mean**2, 0) / (m - 1) / m
    share = m / size.sum()
    a, excess = share * noise, share * np.maximum(mean**2 - noise, 0)
    observed, shift = float((share * mean**2).sum()), float(a.sum())
    value = np.sqrt(max(observed - shift, 0.0))
    if shift <= 0:
        return float(value), float(value), float(value)
    per_excess = float((excess * a).sum() / excess.sum()) if excess.sum() > 0 else float((a * a).sum() / shift)

    def below(theta: float) -> float:
        centre, variance = shift + theta, 2 * float((a * a).sum()) + 4 * theta * per_excess
        return float(stats.gamma.cdf(observed, centre**2 / variance, scale=variance / centre))

    tail = (1 - CONFIDENCE) / 2
    low, high = (np.sqrt(_solve(below, level, observed, shift)) for level in (1 - tail, tail))
    return float(low), float(high), float(value)


def _solve(below: Callable[[float], float], level: float, observed: float, shift: float) -> float:
    """The θ >= 0 at which `below`, which falls with θ, has the level; 0 where it is lower from the start."""
    if below(0.0) <= level:
        return 0.0
    high = observed + shift
    while below(high) > level:
        high *= 2
    return float(optimize.brentq(lambda theta: below(theta) - level, 0.0, high, xtol=1e-12))


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


def _bin(confidence: Floats, num_bins: int) -> NDArray[np.int64]:
    return np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
