"""Power of McNemar's exact test: against simulation and enumeration; images needed and the detectable difference."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from transferscope.analysis.flips import mcnemar_p
from transferscope.analysis.power import connor, detectable_difference, images_needed, mcnemar_power


def test_power_equals_the_sum_over_all_outcomes():
    """Of 12 examples: the probability of every pair of counts with p at most .05, by the multinomial distribution."""
    negative, positive = 0.1, 0.5
    total = 0.0
    for lost, gained in product(range(13), repeat=2):
        if lost + gained <= 12 and mcnemar_p(lost, gained) <= 0.05:
            rest = 12 - lost - gained
            total += stats.multinomial.pmf([lost, gained, rest], 12, [negative, positive, 0.4])
    assert mcnemar_power(12, negative, positive) == pytest.approx(total, abs=1e-8)


@pytest.mark.parametrize(("negative", "positive"), [(0.05, 0.10), (0.02, 0.04), (0.24, 0.04)])
def test_images_needed_give_80_percent_in_simulations(negative, positive):
    """Of 4,000 test sets of that size the test finds a difference in 78 to 82 %; of 20 % fewer images in less."""
    generator = np.random.default_rng(0)
    needed = int(images_needed(negative, positive))

    def power_of(size: int) -> float:
        drawn = generator.multinomial(size, [negative, positive, 1 - negative - positive], size=4000)
        return float((mcnemar_p(drawn[:, 0], drawn[:, 1]) <= 0.05).mean())

    assert power_of(needed) == pytest.approx(0.8, abs=0.02)
    assert power_of(int(0.8 * needed)) < 0.77
    assert 1 <= needed / connor(negative, positive) < 1.25


def test_direction_does_not_matter():
    """A model that is worse takes as many images as one that is better."""
    assert images_needed(0.05, 0.1) == images_needed(0.1, 0.05)
    assert mcnemar_power(200, 0.05, 0.1) == pytest.approx(mcnemar_power(200, 0.1, 0.05))


def test_what_does_not_differ_is_never_told_apart():
    """Equal flips take infinitely many images, no flips have no number; the power is that of a false alarm or 0."""
    assert images_needed(0.1, 0.1) == math.inf
    assert math.isnan(images_needed(0.0, 0.0))
    assert math.isnan(images_needed(math.nan, math.nan))
    assert math.isnan(detectable_difference(0, math.nan))
    assert mcnemar_power(1000, 0.1, 0.1) <= 0.05
    assert mcnemar_power(1000, 0.0, 0.0) == mcnemar_power(0, 0.1, 0.2) == 0


def test_small_differences_take_the_formula():
    """A tenth of a point takes about 80,000 images at 1 % flips, one hundredth of a point millions."""
    assert images_needed(0.0055, 0.0045) == pytest.approx(connor(0.0055, 0.0045), rel=0.03)
    assert images_needed(0.00505, 0.00495) == math.ceil(connor(0.00505, 0.00495)) > 1e6


def test_the_detectable_difference_is_just_told():
    """At it the power is 80 %, below it is lower; more images tell less; a handful of flips tells nothing."""
    difference = detectable_difference(500, 0.1)
    assert mcnemar_power(500, (0.1 + difference) / 2, (0.1 - difference) / 2) == pytest.approx(0.8, abs=1e-3)
    assert detectable_difference(2000, 0.1) < difference
    assert math.isnan(detectable_difference(20, 0.05))
    assert math.isnan(detectable_difference(500, 0.0))
