"""Intervals of what a test set shows: rates, differences of paired rates, means, and functions of four counts.

Each was chosen by simulation among its rivals (`tests/benchmarks/bench_replace.py`): at 100 and at 500 examples it
covers the truth in 93 to 97 % of test sets, averaged over models. All are two-sided. `difference_of_means` is over
runs and not over examples (`tests/benchmarks/bench_more_intervals.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
CONFIDENCE = 0.95


def rate_interval(counts: ArrayLike, totals: ArrayLike, confidence: float = CONFIDENCE) -> tuple[Floats, Floats]:
    """Wilson's score interval of counts / totals, element by element; NaN where a total is 0."""
    x, n = np.asarray(counts, dtype=float), np.asarray(totals, dtype=float)
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        p = x / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def paired_difference_interval(
    gained: ArrayLike, lost: ArrayLike, totals: ArrayLike, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Interval of (gained - lost) / totals of two models on the same examples; NaN where a total is 0.

    Tango's score interval (Statistics in Medicine 1998): the differences d whose score test does not refuse them, the
    error being that of the likeliest shares of both changes with this difference. By enumeration it covers the truth in
    95 to 97 %, averaged over shares up to a factor of 1.5 away, and in 93 % at least, as soon as three changes of one
    kind are expected, also where all are of that kind. Wald's interval with half an example added to either count
    covers as little as 87 % there, since where nothing changes it is half as long as it has to be, and mid-p intervals
    of McNemar's test, which take the number of changes as given, 84 %. Of fewer expected changes most test sets show
    none and share one interval, which covers the truth in all of them or in none (97 to 100 %).
    """
    x, y, n = np.broadcast_arrays(*(np.asarray(values, dtype=float) for values in (gained, lost, totals)))
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return -_farthest_gain(y, x, n, z), _farthest_gain(x, y, n, z)


_HALVINGS = 50


def _farthest_gain(x: Floats, y: Floats, n: Floats, z: float) -> Floats:
    """The largest difference of shares, x more than y, whose score test is not refused; by halving what encloses it."""
    low, high = (x - y) / n, np.where(n > 0, 1.0, np.nan)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        linear = (2 * n - x + y) * middle - x - y
        constant = -y * middle * (1 - middle)
        lost = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
        error = np.sqrt(np.maximum(n * (2 * lost + middle * (1 - middle)), 0))
        refused = n * middle - (x - y) > z * error
        low, high = np.where(refused, low, middle), np.where(refused, middle, high)
    return high


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the mean of a quantity per example, (num_examples,), by Hall's transformation of Student's t.

    The transformation (Hall 1992, *On the removal of skewness by transformation*) allows for the skewness of what is
    averaged: squared errors are small for most images and large for a few. NaN for fewer than two values or values
    that are not finite.
    """
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 2 or not np.isfinite(x).all():
        return float("nan"), float("nan")
    mean, deviation = float(x.mean()), float(x.std(ddof=1))
    if deviation == 0:
        return mean, mean
    skewness = float(((x - mean) ** 3).mean()) / deviation**3
    quantile = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1))
    error, skewness_of_mean = deviation / np.sqrt(n), skewness / np.sqrt(n)
    low, high = (mean - error * float(unskewed(bound, skewness_of_mean)) for bound in (quantile, -quantile))
    return low, high


def skewed_interval(value: float, resampled: ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a mean by its bootstrap values, (num_resamples,), with Hall's transformation for their skewness.

    The skewness of a bootstrap mean is that of the examples over the root of their number, which is all that the
    transformation needs (see `mean_interval`); percentiles turn the skewness the wrong way round or leave it out.
    """
    draws = np.asarray(resampled, dtype=float)
    deviation = float(draws.std(ddof=1))
    if deviation == 0:
        return value, value
    skewness = float(((draws - draws.mean()) ** 3).mean()) / deviation**3
    quantile = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    low, high = (value - deviation * float(unskewed(bound, skewness)) for bound in (quantile, -quantile))
    return low, high


def difference_of_means(first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Welch's interval of the difference between the means of two groups of runs, each (num_runs,).

    Degrees of freedom are Satterthwaite's. Two runs against two are held in 93.5 to 97.7 % whatever the ratio of the
    spreads, where those of the claims (`claims.inference`) give 92.3 to 96.9 %. No interval from four numbers has 95 %
    for every ratio (Behrens and Fisher's problem; Linnik 1968). Where the smaller group varies more, two runs against
    five have 89 to 92 % (Best and Rayner 1987), and one degree of freedom, which always suffices, is twice as wide. NaN
    where a group has fewer than two runs, or both only equal ones, which do not show how much runs vary.
    """
    groups = [np.asarray(values, dtype=float) for values in (first, second)]
    if min(map(len, groups)) < 2 or all(np.ptp(group) == 0 for group in groups):
        return float("nan"), float("nan")
    # A group of equal values is taken from 0, since scipy warns of a variance that is lost in rounding elsewhere.
    starts = [group[0] if np.ptp(group) == 0 else 0.0 for group in groups]
    apart = (group - start for group, start in zip(groups, starts, strict=True))
    interval = scipy.stats.ttest_ind(*apart, equal_var=False).confidence_interval(confidence)
    shift = starts[0] - starts[1]
    return float(interval.low + shift), float(interval.high + shift)


def unskewed(quantile: ArrayLike, skewness: ArrayLike) -> Floats:
    """Inverse of Hall's cubic t + h (t²/3 + 1/6) + h² t³ / 27, element by element.

    skewness: h of the mean, which is that of the examples over the root of their number.
    """
    q, h = np.broadcast_arrays(np.asarray(quantile, dtype=float), np.asarray(skewness, dtype=float))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(h) < 1e-8, q, 3 / h * (np.cbrt(1 + h * (q - h / 6)) - 1))


def four_counts_interval(
    counts: ArrayLike,
    statistics: Callable[[Floats], dict[str, Floats]],
    generator: np.random.Generator,
    *,
    num_draws: int = 2000,
    confidence: float = CONFIDENCE,
) -> dict[str, tuple[float, float]]:
    """Interval of each function of four counts, by drawing the shares of the four kinds of example.

    counts: (4,), both right, only the first, only the second, neither. statistics: takes shares (num_draws, 4) and
    gives each statistic as (num_draws,). Shares are drawn from the Dirichlet distribution of the counts with half an
    example added to each (Jeffreys' prior), so that a kind of example that was not seen is not taken to be impossible;
    the percentile bootstrap does that, and covers as little as 60 % where one count is about 1. (nan, nan) where a
    statistic is undefined for the counts themselves. The interval holds the statistic's own value, which may be at the
    end of its range.
    """
    observed = np.asarray(counts, dtype=float)
    if observed.sum() == 0:
        return dict.fromkeys(statistics(np.full((1, 4), 0.25)), (float("nan"), float("nan")))
    drawn = generator.dirichlet(observed + 0.5, size=num_draws)
    values, spread = statistics(observed[None] / observed.sum()), statistics(drawn)
    tail = (1 - confidence) / 2
    intervals = {}
    for name, value in values.items():
        if np.isfinite(value[0]):
            low, high = np.nanquantile(spread[name], [tail, 1 - tail])
            intervals[name] = (float(min(low, value[0])), float(max(high, value[0])))
        else:
            intervals[name] = (float("nan"), float("nan"))
    return intervals
