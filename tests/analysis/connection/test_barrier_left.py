"""The part of a barrier that a way leaves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from transferscope.analysis.barriers import barrier
from transferscope.analysis.connection import remaining
from transferscope.system.errors import UserError

ALPHAS = [0, 0.25, 0.5, 0.75, 1]
GENERATOR = np.random.default_rng(1)
NOISE = 0.01 * GENERATOR.standard_normal((201, 5))
STRAIGHT = np.array([0.8, 0.5, 0.3, 0.5, 0.7]) + NOISE
WAY = np.array([0.8, 0.75, 0.7, 0.75, 0.7]) + NOISE


@pytest.mark.parametrize("better", [True, False])
def test_quotient_of_barriers(better: bool) -> None:
    """It is the quotient of the two barriers, with percentiles of the resamples' quotients, of scores and losses."""
    sign = 1 if better else -1
    found = remaining(ALPHAS, sign * STRAIGHT, sign * WAY, higher_is_better=better)
    parts = [
        barrier(ALPHAS, sign * way, higher_is_better=better) / barrier(ALPHAS, sign * line, higher_is_better=better)
        for way, line in zip(WAY, STRAIGHT, strict=True)
    ]
    assert found.left == pytest.approx(parts[0])
    assert (found.left_low, found.left_high) == pytest.approx(tuple(np.percentile(parts[1:], [2.5, 97.5])))


def test_limits() -> None:
    """The line itself leaves all, a way above the chord nothing; of no barrier nothing can be left."""
    same = remaining(ALPHAS, STRAIGHT, STRAIGHT, higher_is_better=True)
    assert vars(same) == {"left": 1, "left_low": 1, "left_high": 1}
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
