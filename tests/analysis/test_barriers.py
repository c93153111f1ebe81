from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from transferscope.analysis.barriers import (
    barrier,
    barrier_row,
    bootstrap_mean,
    find_barrier,
    summarise_barriers,
)
from transferscope.system.errors import UserError

ALPHAS = np.linspace(0, 1, 21)


def test_a_convex_loss_has_no_barrier() -> None:
    """A parabola lies below each of its chords."""
    for shift in (-0.5, 0.0, 0.3, 2.0):
        assert barrier(ALPHAS, (ALPHAS - shift) ** 2, higher_is_better=False) == pytest.approx(0, abs=1e-15)


def test_a_straight_line_has_no_barrier() -> None:
    """The chord itself is never worse than the chord."""
    for better in (True, False):
        assert barrier(ALPHAS, 0.2 + 0.7 * ALPHAS, higher_is_better=better) == pytest.approx(0, abs=1e-15)


def test_double_well_has_its_height() -> None:
    """(w² - 1)² between the minima -1 and 1 rises to 1 half-way."""
    found = find_barrier(ALPHAS, ((2 * ALPHAS - 1) ** 2 - 1) ** 2, higher_is_better=False)
    assert found.barrier == pytest.approx(1)
    assert found.barrier_alpha == pytest.approx(0.5)
    assert found.midpoint_gain == pytest.approx(-1)


def test_tilted_double_well_is_measured_from_the_chord() -> None:
    """Adding a linear function to the curve does not change its barrier."""
    well = ((2 * ALPHAS - 1) ** 2 - 1) ** 2
    assert barrier(ALPHAS, well + 3 * ALPHAS - 7, higher_is_better=False) == pytest.approx(1)


def test_accuracy_and_error_have_the_same_barrier() -> None:
    """Turning a score upside down and saying so changes nothing; the order of the points neither."""
    accuracy = np.array([0.9, 0.5, 0.1, 0.4, 0.7])
    alphas = np.linspace(0, 1, 5)
    expected = barrier(alphas, accuracy, higher_is_better=True)
    assert expected == pytest.approx(0.8 - 0.1)
    assert barrier(alphas, 1 - accuracy, higher_is_better=False) == pytest.approx(expected)
    assert barrier(alphas[[3, 0, 4, 2, 1]], accuracy[[3, 0, 4, 2, 1]], higher_is_better=True) == expected


def test_points_outside_the_segment_do_not_count() -> None:
    """What happens by extrapolation is no barrier."""
    assert barrier([-1, 0, 0.5, 1, 2], [0.0, 0.8, 0.8, 0.8, 0.0], higher_is_better=True) == 0


def test_a_gain_in_the_middle_is_reported() -> None:
    """Figure 12, real: 78.4 at both ends, 79.3 in the middle."""
    found = find_barrier([0, 0.5, 1], [0.784, 0.793, 0.784], higher_is_better=True)
    assert found.barrier == 0
    assert found.midpoint_gain == pytest.approx(0.009)


def test_the_midpoint_is_interpolated_where_it_is_not_measured() -> None:
    """A grid of 50 points has none at .5; its neighbours stand in."""
    alphas = np.linspace(0, 1, 50)
    found = find_barrier(alphas, 1 - np.abs(alphas - 0.5), higher_is_better=True)
    assert found.midpoint_gain == pytest.approx(0.5, abs=0.011)


def test_nan_is_kept() -> None:
    """A curve with an unknown value has an unknown barrier, unless it lies outside [0, 1]."""
    assert math.isnan(barrier([0, 0.5, 1], [0.8, math.nan, 0.8], higher_is_better=True))
    assert math.isnan(barrier([0, 0.5, 1], [math.nan, 0.8, 0.8], higher_is_better=True))
    assert barrier([-1, 0, 0.5, 1], [math.nan, 0.8, 0.7, 0.8], higher_is_better=True) == pytest.approx(0.1)


def test_an_infinite_loss_on_the_way_is_an_infinite_barrier() -> None:
    """Overflow between two sound ends is the highest of walls."""
    assert barrier([0, 0.5, 1], [0.1, math.inf, 0.1], higher_is_better=False) == math.inf


@pytest.mark.parametrize(
    ("alphas", "values", "message"),
    [
        ([0, 0.5], [1, 1], "no value at alpha 1"),
        ([0.5, 1], [1, 1], "no value at alpha 0"),
        ([], [], "no value at alpha 0"),
        ([0, 1], [1, 1, 1], "one value per alpha"),
    ],
)
def test_both_ends_are_needed(alphas: list[float], values: list[float], message: str) -> None:
    """Without its ends a curve has no chord."""
    with pytest.raises(UserError, match=message):
        barrier(alphas, values, higher_is_better=True)


def test_ends_may_miss_by_rounding() -> None:
    """0 and 1 of a floating-point grid count as the ends."""
    assert barrier([1e-16, 0.5, 1 - 1e-12], [1, 0, 1], higher_is_better=True) == pytest.approx(1)


def test_bootstrap_interval_covers_the_mean() -> None:
    """In about 95 of 100 samples of 40 pairs the interval holds the true mean."""
    generator = np.random.default_rng(0)
    samples = generator.exponential(1.0, (200, 40))
    found = [bootstrap_mean(sample, num_resamples=500) for sample in samples]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in found])
    assert 0.87 <= covered <= 0.99


def test_one_pair_has_no_interval_and_nan_pairs_do_not_count() -> None:
    """A single value cannot tell its spread; a diverged pair is left out and the count says so."""
    single = bootstrap_mean([0.3, math.nan])
    assert (single.value, single.num) == (0.3, 1)
    assert math.isnan(single.low)
    assert bootstrap_mean([]).num == 0


def test_barrier_row_is_the_barrier_of_every_resample() -> None:
    """The point estimate is that of all examples; the bounds are percentiles of barriers computed one by one."""
    generator = np.random.default_rng(1)
    alphas = np.array([1.0, 0.0, 0.7, 0.3, 1.5])
    values = generator.random((201, 5))
    found = barrier_row(alphas, values, higher_is_better=True)
    each = [find_barrier(alphas, row, higher_is_better=True) for row in values]
    assert (found["barrier"], found["barrier_alpha"], found["midpoint_gain"]) == tuple(vars(each[0]).values())
    for low, high, name in (("barrier_low", "barrier_high", "barrier"), ("gain_low", "gain_high", "midpoint_gain")):
        expected = np.percentile([getattr(one, name) for one in each[1:]], [2.5, 97.5])
        assert [found[low], found[high]] == pytest.approx(expected.tolist())


def test_without_resamples_there_is_no_interval() -> None:
    """A plain curve has its barrier and NaN for bounds; so has one with a NaN."""
    found = barrier_row([0, 0.5, 1], [1, 0.4, 1], higher_is_better=True)
    assert found["barrier"] == pytest.approx(0.6)
    assert math.isnan(found["barrier_low"])
    unknown = barrier_row([0, 0.5, 1], [[1, math.nan, 1]] * 4, higher_is_better=True)
    assert all(math.isnan(value) for value in unknown.values())


def test_intervals_cover_the_true_barrier() -> None:
    """In nearly all of 60 samples of 300 examples the 95 % interval holds the barrier of the whole population."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        correct = generator.random((3, 300)) < np.array([0.9, 0.4, 0.8])[:, None]
        counts = generator.multinomial(300, np.full(300, 1 / 300), 300)
        values = np.vstack([correct.mean(axis=1), counts @ correct.T / 300])
        found = barrier_row([0, 0.5, 1], values, higher_is_better=True)
        hits += found["barrier_low"] <= 0.45 <= found["barrier_high"]
    assert hits >= 52


def test_summary_has_a_row_per_scenario_and_kind() -> None:
    """Means, extremes and intervals of hand-made pairs; best and final are kept apart."""
    keys = {"scenario": "within", "task": "real", "split": "test", "pair_kind": "P-T & P-T", "metric": "accuracy"}
    rows = [
        {**keys, "epochs": f"{epoch} & {epoch}", "barrier": height, "midpoint_gain": -height,
         "barrier_low": height - 0.1, "barrier_high": height + 0.1}
        for epoch, height in (("final", 0.2), ("final", 0.4), ("best", 0.7))
    ]  # fmt: skip
    table = summarise_barriers(pd.DataFrame(rows)).set_index("epochs")
    final, best = table.loc["final & final"], table.loc["best & best"]
    assert (final["pairs"], best["pairs"]) == (2, 1)
    assert final[["mean", "smallest", "largest", "midpoint_gain"]].tolist() == pytest.approx([0.3, 0.2, 0.4, -0.3])
    assert final[["examples_low", "examples_high"]].tolist() == pytest.approx([0.1, 0.5])
    assert (final["pairs_low"], final["pairs_high"]) == pytest.approx((0.2, 0.4))
    assert math.isnan(best["pairs_low"])
