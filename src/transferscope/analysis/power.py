"""The number of images that tells two models apart: the power of McNemar's exact test."""

from __future__ import annotations

import math

import numpy as np
import scipy

ALPHA = 0.05
POWER = 0.8
LARGEST = 200_000
"""Images up to which the power is computed exactly; beyond, Connor's formula differs by less than one percent."""


def mcnemar_power(num_examples: int, negative: float, positive: float, *, alpha: float = ALPHA) -> float:
    """Chance that McNemar's exact two-sided test finds a difference.

    negative, positive: true shares of negative and positive flips. The number of flips is binomial, and of these
    negative / (negative + positive) are negative ones; the sum runs over all likely numbers of flips.
    """
    differing = negative + positive
    if differing <= 0 or num_examples < 1:
        return 0.0
    low, high = scipy.stats.binom.ppf([1e-9, 1 - 1e-9], num_examples, differing)
    flips = np.arange(int(low), int(high) + 1)
    critical = _critical(flips, alpha)
    share = negative / differing
    significant = scipy.stats.binom.cdf(critical, flips, share) + scipy.stats.binom.cdf(critical, flips, 1 - share)
    return float((scipy.stats.binom.pmf(flips, num_examples, differing) * significant).sum())


def _critical(flips: np.ndarray, alpha: float) -> np.ndarray:
    """The largest rarer count that the exact test calls significant, -1 for none; flips: numbers of flips."""
    count = scipy.stats.binom.ppf(alpha / 2, flips, 0.5)
    too_many = scipy.stats.binom.cdf(count, flips, 0.5) > alpha / 2
    return np.where(flips == 0, -1, count - too_many)


def images_needed(negative: float, positive: float, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """Test images with which McNemar's exact test finds the difference with the power asked for.

    negative, positive: shares of negative and positive flips, e.g. those observed. Infinite where they are equal, NaN
    where there are none, or one is NaN: no number of images tells apart what does not differ. With observed shares it
    is a rough number, for the shares themselves are uncertain.
    """
    differing, difference = negative + positive, abs(positive - negative)
    if not differing > 0 or difference == 0:
        return math.inf if differing > 0 else math.nan
    start = connor(negative, positive, power=power, alpha=alpha)
    if start > LARGEST:
        return float(math.ceil(start))
    low, high = 1, max(2, math.ceil(start))
    while mcnemar_power(high, negative, positive, alpha=alpha) < power:
        low, high = high, math.ceil(1.25 * high) + 1
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        enough = mcnemar_power(middle, negative, positive, alpha=alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return float(high)


def connor(negative: float, positive: float, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """Images needed by Connor's normal approximation (Biometrics 43, 1987); the exact test needs a few more."""
    differing, difference = negative + positive, abs(positive - negative)
    tail, chance = scipy.stats.norm.ppf([1 - alpha / 2, power])
    return float((tail * math.sqrt(differing) + chance * math.sqrt(differing - difference**2)) ** 2 / difference**2)


def detectable_difference(num_examples: int, differing: float, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """The smallest difference in accuracy that so many images tell with the power asked for.

    differing: the share of examples that flip, either way, e.g. the one observed. NaN where even flips that all go one
    way would be too few.
    """
    if not differing > 0 or mcnemar_power(num_examples, differing, 0.0, alpha=alpha) < power:
        return math.nan
    low, high = 0.0, differing
    while high - low > 1e-4 * differing:
        middle = (low + high) / 2
        enough = mcnemar_power(num_examples, (differing + middle) / 2, (differing - middle) / 2, alpha=alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high
