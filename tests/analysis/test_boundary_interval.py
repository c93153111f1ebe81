"""Bounds of the place beyond an end at which a metric has fallen by more than a tolerance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar

from simulated_lines import resampled
from transferscope.analysis.boundary_interval import BoundaryIntervals, boundary_intervals
from transferscope.analysis.line_boundary import line_boundary
from transferscope.system.errors import UserError

ALPHAS = np.array([0.0, 0.5, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0])
TOLERANCE = 0.02
Floats = NDArray[np.float64]


def bounds(curves: Floats, num: int | None = None, alphas: Floats = ALPHAS, **options: bool) -> BoundaryIntervals:
    how = {"higher_is_better": True, "is_share": num is not None} | options
    return boundary_intervals(alphas, curves, TOLERANCE, num_examples=num, **how)


def test_the_truth_is_held_where_noise_makes_curves_leave_early() -> None:
    """A fall of 1.5 points that stays within 2 for ever, 100 examples: held in at least 93 %, percentiles in 80 %."""
    random, num, studies, held, naive = np.random.default_rng(0), 100, 200, 0, 0
    rate = np.where(ALPHAS > 1, 0.835, 0.85)
    for _ in range(studies):
        right = (random.random(num) < rate[:, None]) ^ (random.random((len(ALPHAS), num)) < 0.03)
        curves = resampled(right.astype(float), random)
        held += bounds(curves, num).high[1] == math.inf
        places = [line_boundary(ALPHAS, curve, TOLERANCE, higher_is_better=True).high for curve in curves[1:]]
        naive += float(np.quantile(places, 0.975, method="inverted_cdf")) == math.inf
    assert held / studies >= 0.93
    assert naive / studies < 0.85


def two_resamples(fall: float, error: float) -> Floats:
    """Accuracy .9 up to 1 and `fall` lower at 2, with two resamples of just this standard error."""
    falls = fall + error * np.array([0, 1, -1]) / math.sqrt(2)
    return np.column_stack([np.full((3, 2), 0.9), 0.9 - falls])


def paired_score(down: int, up: int, num: int, difference: float) -> float:
    """Tango's statistic of a difference of two paired proportions, the likeliest shares found by a search."""

    def unlikely(less: float) -> float:
        return (
            -down * math.log(less + difference)
            - up * math.log(less)
            - (num - down - up) * math.log(1 - 2 * less - difference)
        )

    less = minimize_scalar(unlikely, bounds=(1e-9, (1 - difference) / 2 - 1e-9), method="bounded").x
    return (down - up - num * difference) / math.sqrt(num * (2 * less + difference - difference**2))


@pytest.mark.parametrize(("down", "up", "num"), [(12, 2, 100), (30, 12, 500), (60, 1, 500)])
def test_one_place_beyond_the_end_is_the_score_interval_of_its_fall(down: int, up: int, num: int) -> None:
    """Linear from 1 to 2, the fall reaches the tolerance at tolerance / fall, so bounds of one are bounds of the other."""
    fall = (down - up) / num
    error = math.sqrt(((down + up) / num - fall**2) / num)
    low, high = bounds(two_resamples(fall, error), num, np.array([0.0, 1.0, 2.0])).high
    for bound, quantile in ((low, -1.96), (high, 1.96)):
        limit = brentq(lambda it, z=quantile: paired_score(down, up, num, it) - z, 1e-6, 0.6)
        assert (TOLERANCE / (bound - 1) if limit > TOLERANCE else bound) == pytest.approx(
            limit if limit > TOLERANCE else math.inf, rel=0.03
        )


def simulated(seed: int = 1) -> Floats:
    random = np.random.default_rng(seed)
    rate = 0.9 - 0.3 * np.maximum(ALPHAS - 1, 0)
    return resampled((random.random(400) < rate[:, None]).astype(float), random)


def test_a_line_turned_round_has_its_bounds_turned_round() -> None:
    """Both ends are treated alike, and scores as errors."""
    curves = simulated()
    there = bounds(curves, 400).high
    back = bounds(curves[:, ::-1], 400, 1 - ALPHAS[::-1]).low
    assert (1 - back[1], 1 - back[0]) == pytest.approx(there)
    assert bounds(1 - curves, 400, higher_is_better=False).high == pytest.approx(there)
    assert there[0] < line_boundary(ALPHAS, curves[0], TOLERANCE, higher_is_better=True).high < there[1] < 2


def test_more_examples_give_shorter_bounds_around_the_truth() -> None:
    """Noise of a tenth has bounds of about a tenth of the length; a metric without a number of examples has some, too."""
    truth = 0.9 - 0.3 * np.maximum(ALPHAS - 1, 0)
    noise = np.random.default_rng(2).normal(0, 0.01, (300, len(ALPHAS)))
    wide, narrow = (bounds(np.vstack([truth, truth + part * noise])).high for part in (1.0, 0.1))
    place = 1 + TOLERANCE / 0.3
    assert wide[0] < narrow[0] < place < narrow[1] < wide[1]
    assert (narrow[1] - narrow[0]) < 0.15 * (wide[1] - wide[0])


def test_ends_that_are_certain_and_such_as_are_not_known() -> None:
    """Nothing measured beyond: infinite. A NaN is a wall. Without resamples there are no bounds."""
    flat = np.full((4, len(ALPHAS)), 0.8)
    assert bounds(flat, 1000).low == (-math.inf, -math.inf)
    assert bounds(flat, 100_000).high == (math.inf, math.inf)
    flat[0, 6:] = math.nan
    assert bounds(flat, 100_000).high == (pytest.approx(1.6), pytest.approx(1.6))
    assert np.isnan(bounds(flat[:1]).high).all()
    with pytest.raises(UserError, match="add 0 and 1"):
        bounds(flat, alphas=ALPHAS + 0.1)
