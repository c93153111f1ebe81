"""The part of a barrier that a way leaves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulated_lines import ALPHAS as LINE
from simulated_lines import resampled, right_or_wrong
from transferscope.analysis.barriers import barrier
from transferscope.analysis.connection import remaining
from transferscope.system.errors import UserError

ALPHAS = [0, 0.25, 0.5, 0.75, 1]
GENERATOR = np.random.default_rng(1)
NOISE = 0.01 * GENERATOR.standard_normal((201, 5))
STRAIGHT = np.array([0.8, 0.5, 0.3, 0.5, 0.7]) + NOISE
WAY = np.array([0.8, 0.75, 0.7, 0.75, 0.7]) + NOISE
HIGH_WAY = np.array([0.8, 0.7, 0.4, 0.7, 0.7]) + 0.01 * GENERATOR.standard_normal((201, 5))


@pytest.mark.parametrize("better", [True, False])
def test_quotient_of_barriers(better: bool) -> None:
    """It is the quotient of the two barriers where one place is the highest by far, of scores and losses."""
    sign = 1 if better else -1
    quotient = remaining(ALPHAS, sign * STRAIGHT, sign * HIGH_WAY, higher_is_better=better)
    way, line = (barrier(ALPHAS, sign * one[0], higher_is_better=better) for one in (HIGH_WAY, STRAIGHT))
    assert quotient.left == pytest.approx(way / line)
    assert quotient.left_low < quotient.left < quotient.left_high < quotient.left_low + 0.2


@pytest.mark.parametrize("height", [0.0, 0.1])
def test_intervals_hold_what_is_left(height: float) -> None:
    """Of 200 samples of 300 examples 92 % or more, also where nothing is left.

    The estimate is nearer to the truth than the quotient of the two largest gaps, which is .04 on average there.
    """
    generator = np.random.default_rng(2)
    covered, errors, naive = [], [], []
    for _ in range(200):
        (straight, deep), (way, low) = (right_or_wrong("bowl", h, 300, generator) for h in (0.5, height))
        way[[0, -1]] = straight[[0, -1]]
        curves = resampled(np.concatenate([straight, way]), generator)
        quotient = remaining(LINE, curves[:, :11], curves[:, 11:], higher_is_better=True)
        truth = low / deep
        covered.append(quotient.left_low <= truth <= quotient.left_high)
        errors.append(quotient.left - truth)
        naive.append(barrier(LINE, curves[0, 11:], higher_is_better=True) / deep - truth)
    assert np.mean(covered) >= 0.92
    assert abs(np.mean(errors)) < np.mean(naive)


def test_limits() -> None:
    """The line itself leaves all, a way above the chord nothing; of no barrier nothing can be left."""
    same = remaining(ALPHAS, STRAIGHT, STRAIGHT, higher_is_better=True)
    assert vars(same) == pytest.approx({"left": 1, "left_low": 1, "left_high": 1})
    better = np.array([0.8, 0.9, 0.9, 0.9, 0.7]) + NOISE
    assert remaining(ALPHAS, STRAIGHT, better, higher_is_better=True).left == 0
    flat = np.full(5, 0.8) + NOISE
    assert math.isnan(remaining(ALPHAS, flat, STRAIGHT, higher_is_better=True).left)
    alone = remaining(ALPHAS, STRAIGHT[:1], WAY[:1], higher_is_better=True)
    assert alone.left > 0
    assert math.isnan(alone.left_low)


def test_bad_input() -> None:
    """Ends and the middle have to be there, and both curves at the same points."""
    with pytest.raises(UserError, match=r"0, 0\.5 and 1"):
        remaining([0, 0.4, 1], STRAIGHT[:, :3], WAY[:, :3], higher_is_better=True)
    with pytest.raises(UserError, match="at 5 alphas"):
        remaining(ALPHAS, STRAIGHT, WAY[:, :4], higher_is_better=True)
