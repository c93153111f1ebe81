"""The claims' rule for numbers of these models whose interval is over images, and how many images would decide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtri

from transferscope.answers.answer import NO, UNKNOWN, YES
from transferscope.claims.comparisons import Region
from transferscope.claims.evidence import NORMAL_975
from transferscope.claims.inference import Estimate
from transferscope.claims.verdict import FAILS, HOLDS, judge

VERDICTS = {HOLDS: YES, FAILS: NO}
LEVEL = 0.025
"""Part of cases in which a number lies beyond either end of its interval."""
SHARE: Region = (0.0, 1.0)
MOST_IMAGES = 1_000_000
"""More images than that are not asked for."""


Numbers = tuple[float, float, float]
"""An estimate and the ends of its interval."""
NOTHING: Numbers = (math.nan, math.nan, math.nan)


def ranged(row: Mapping[Any, Any], name: str) -> Numbers:
    """The columns `name`, `name_low` and `name_high` of a row."""
    return float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"])


def among(numbers: Numbers, number: int, region: Region = (-math.inf, math.inf), *, level: float = LEVEL) -> Numbers:
    """The interval so much longer that as many of them hold at once in 95 % of cases (Bonferroni).

    For a sentence that names the largest of several numbers, or counts those on one side of a bound. Ends are moved as
    those of a normal distribution, each on its own side, and stay in the region of possible values. level: part of
    cases in which a number lies beyond the end that is moved.
    """
    if number < 2:
        return numbers
    value, low, high = numbers
    factor = float(ndtri(level / number) / ndtri(level))
    ends = np.clip([value - factor * (value - low), value + factor * (high - value)], *region)  # NaN stays NaN
    return value, float(ends[0]), float(ends[1])


def decide(value: float, low: float, high: float, region: Region) -> str:
    """`yes` if the whole interval lies in the region, `no` if it lies wholly elsewhere, else `cannot tell`."""
    if not (math.isfinite(value) and math.isfinite(low) and math.isfinite(high)):
        return UNKNOWN
    one = np.ones(1)
    error = one * (high - low) / (2 * NORMAL_975)
    judged = judge(Estimate(one * value, error, one * np.inf, one * low, one * high, error), region)
    return VERDICTS.get(str(judged[0]), UNKNOWN)


def images_that_decide(
    value: float, low: float, high: float, bound: float, number: float, *, power: float = 0.8
) -> float:
    """Images of which a share `power` of all sets decide, if the true value is the one that was measured.

    Intervals shrink with the square root of their number. An interval that just reaches the bound decides in half of
    all sets; the distance has to be 1.96 standard errors and as many more as the power takes (.84 of 80 %). Of longer
    intervals, which hold at once with others, the share is larger. NaN where the value lies on the bound, or so near
    that it takes more than a million.
    """
    reach = value - low if value > bound else high - value
    distance = abs(value - bound)
    if not (math.isfinite(reach) and distance > 0 and number > 0):
        return math.nan
    longer = 1 + float(ndtri(power)) / NORMAL_975
    needed = number * (longer * reach / distance) ** 2
    return needed if number < needed <= MOST_IMAGES else math.nan
