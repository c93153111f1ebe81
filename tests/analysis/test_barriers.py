from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from simulated_lines import ALPHAS as ALPHAS11
from simulated_lines import resampled, right_or_wrong
from transferscope.analysis.barriers import (
    barrier,
    barrier_row,
    find_barrier,
    mean_over_pairs,
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
    highest = find_barrier(ALPHAS, ((2 * ALPHAS - 1) ** 2 - 1) ** 2, higher_is_better=False)
    assert highest.barrier == pytest.approx(1)
    assert highest.barrier_alpha == pytest.approx(0.5)
    assert highest.midpoint_gain == pytest.approx(-1)


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
    highest = find_barrier([0, 0.5, 1], [0.784, 0.793, 0.784], higher_is_better=True)
    assert highest.barrier == 0
    assert highest.midpoint_gain == pytest.approx(0.009)


def test_the_midpoint_is_interpolated_where_it_is_not_measured() -> None:
    """A grid of 50 points has none at .5; its neighbours stand in."""
    alphas = np.linspace(0, 1, 50)
    highest = find_barrier(alphas, 1 - np.abs(alphas - 0.5), higher_is_better=True)
    assert highest.midpoint_gain == pytest.approx(0.5, abs=0.011)


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


def test_mean_over_pairs_covers_the_mean() -> None:
    """In about 95 of 100 sets of 8 models whose pairs share what their models add, the interval holds the true mean."""
    generator = np.random.default_rng(0)
    couples = list(itertools.combinations(range(8), 2))
    first, second = ([f"m{couple[side]}" for couple in couples] for side in (0, 1))
    covered = []
    for _ in range(400):
        own, both = generator.normal(size=8), generator.normal(size=len(couples))
        values = [own[a] + own[b] + noise for (a, b), noise in zip(couples, both, strict=True)]
        interval = mean_over_pairs(values, first, second)
        covered.append(interval.low <= 0 <= interval.high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_few_models_have_no_interval_and_nan_pairs_do_not_count() -> None:
    """Five models cannot tell their spread, however many pairs they make; a diverged pair is left out of the count."""
    couples = list(itertools.combinations("abcdef", 2))
    first, second = zip(*couples, strict=True)
    values = np.arange(15.0)
    assert mean_over_pairs(values, first, second).low < 7 < mean_over_pairs(values, first, second).high
    values[[couple[1] == "f" for couple in couples]] = math.nan
    few = mean_over_pairs(values, first, second)
    assert few.num == 10
    assert math.isnan(few.low)
    assert mean_over_pairs([math.nan], ["a"], ["b"]).num == 0


def test_two_halves_give_the_estimate_of_the_row() -> None:
    """Choosing the place on one half of the examples and measuring on the other, over many halves, is the same number.

    With an independent formulation: real halves of the examples instead of noise added and taken away.
    """
    generator = np.random.default_rng(4)
    correct, _ = right_or_wrong("bowl", 0.05, 400, generator)
    heights = []
    for _ in range(400):
        order = generator.permutation(400)
        for chosen, measured in ((order[:200], order[200:]), (order[200:], order[:200])):
            place = gaps_of(correct[:, chosen])[1:-1].argmax() + 1
            heights.append(gaps_of(correct[:, measured])[place])
    row = barrier_row(ALPHAS11, resampled(correct, generator, 2000), higher_is_better=True, num_examples=400)
    assert row["barrier"] == pytest.approx(np.mean(heights), abs=0.004)
    assert row["largest_gap"] == pytest.approx(gaps_of(correct).max())
    assert row["barrier"] < row["largest_gap"]


def gaps_of(correct: np.ndarray) -> np.ndarray:
    """The gap of every place to the chord of the ends, by its definition."""
    accuracy = correct.mean(axis=1)
    return (1 - ALPHAS11) * accuracy[0] + ALPHAS11 * accuracy[-1] - accuracy


@pytest.mark.parametrize(("shape", "height"), [("flat", 0.0), ("bowl", 0.02), ("peak", 0.1), ("peak", 0.4)])
def test_intervals_cover_the_true_barrier(shape: str, height: float) -> None:
    """Of 300 samples of 300 examples 92 % or more hold it.

    The estimate is not above the truth on average; the largest gap is by more than a point on a flat line.
    """
    generator = np.random.default_rng(6)
    rows = []
    for _ in range(300):
        correct, truth = right_or_wrong(shape, height, 300, generator)
        row = barrier_row(
            ALPHAS11, resampled(correct, generator, 200), higher_is_better=True, num_examples=300, is_share=True
        )
        covered = row["barrier_low"] <= truth <= row["barrier_high"]
        rows.append((covered, row["barrier"] - truth, row["largest_gap"] - truth))
    covered, bias, largest = np.mean(rows, axis=0)
    assert covered >= 0.92
    assert -0.012 < bias < 3 * np.std(rows, axis=0)[1] / math.sqrt(300)
    if shape == "flat":
        assert largest > 0.01


def test_intervals_of_the_middle_cover_its_gain() -> None:
    """Of 400 samples of 200 examples 92 to 98 % hold the true gain half-way."""
    generator = np.random.default_rng(7)
    hits = []
    for _ in range(400):
        correct, truth = right_or_wrong("bowl", 0.1, 200, generator)
        row = barrier_row(
            ALPHAS11, resampled(correct, generator, 100), higher_is_better=True, num_examples=200, is_share=True
        )
        hits.append(row["gain_low"] <= -truth <= row["gain_high"])
    assert 0.92 <= np.mean(hits) <= 0.98


def test_a_line_on_which_no_example_changes_has_an_interval() -> None:
    """Of 100 examples that all stay right, one more could change: the interval is not empty and holds 0."""
    row = barrier_row([0, 0.5, 1], np.ones((50, 3)), higher_is_better=True, num_examples=100, is_share=True)
    assert row["barrier"] == 0
    ends = [norm.ppf(0.0375), norm.ppf(0.9875)]
    assert [100 * row["barrier_low"], 100 * row["barrier_high"]] == pytest.approx(ends)


@pytest.mark.parametrize("flips", [0.001, 0.005, 0.01])
def test_a_few_changing_examples_are_no_barrier(flips: float) -> None:
    """On flat lines of 100 examples of which few or none change at a place, 93 % or more of 400 samples hold 0.

    At a share of .01 it is less than 99 %: with each place's own noise it would be nearly all.
    """
    generator = np.random.default_rng(8)
    lines = [right_or_wrong("flat", 0.0, 100, generator, flips)[0] for _ in range(400)]
    rows = [
        barrier_row(ALPHAS11, resampled(line, generator, 200), higher_is_better=True, num_examples=100, is_share=True)
        for line in lines
    ]
    held = np.mean([row["barrier_low"] <= 0 <= row["barrier_high"] for row in rows])
    assert 0.93 <= held <= (0.99 if flips == 0.01 else 1)


@pytest.mark.parametrize("num", [100, 500])
def test_a_flat_line_that_is_noisy_in_its_middle_is_no_barrier(num: int) -> None:
    """Three places of eleven change answers, as many to right as to wrong: 92 % or more of 300 samples hold 0.

    With the mean noise of all places for each it is 71 to 79 %.
    """
    generator = np.random.default_rng(9)
    share = np.where(np.abs(ALPHAS11 - 0.5) < 0.15, 0.03, 0.0)[:, None]
    held = 0
    for _ in range(300):
        right = generator.random(num) < 0.8
        line = right ^ (generator.random((11, num)) < share * np.where(right, 1, 4))
        curves = resampled(line.astype(float), generator, 200)
        row = barrier_row(ALPHAS11, curves, higher_is_better=True, num_examples=num, is_share=True)
        held += row["barrier_low"] <= 0 <= row["barrier_high"]
    assert held / 300 >= 0.92


def test_the_other_way_round_a_line_has_the_same_row() -> None:
    """From b to a, and with errors for accuracies, every number is the same; the order of alphas does not matter."""
    generator = np.random.default_rng(1)
    alphas = np.array([1.0, 0.0, 0.7, 0.3, 1.5])
    values = generator.random((201, 5))
    row = barrier_row(alphas, values, higher_is_better=True)
    for other in (
        barrier_row(alphas, 1 - values, higher_is_better=False),
        barrier_row(1 - alphas, values, higher_is_better=True) | {"barrier_alpha": row["barrier_alpha"]},
        barrier_row(alphas[::-1], values[:, ::-1], higher_is_better=True),
    ):
        assert other == pytest.approx(row)


def test_the_place_of_a_barrier_below_0_lies_between_the_ends() -> None:
    """Where all places are better than the chord, the place is that of the least gain, as the height is."""
    line = np.array([0.6, 0.72, 0.9, 0.7, 0.6])
    curves = line + 0.001 * np.random.default_rng(0).standard_normal((101, 5))
    row = barrier_row(np.linspace(0, 1, 5), np.vstack([line, curves]), higher_is_better=True)
    assert row["barrier"] == pytest.approx(-0.1, abs=0.005)
    assert row["barrier_alpha"] == 0.75


def test_without_resamples_there_is_no_interval() -> None:
    """A plain curve has its barrier and NaN for bounds; so has one with a NaN."""
    row = barrier_row([0, 0.5, 1], [1, 0.4, 1], higher_is_better=True)
    assert row["barrier"] == pytest.approx(0.6)
    assert row["largest_gap"] == row["barrier"]
    assert all(math.isnan(row[name]) for name in ("barrier_low", "barrier_high", "barrier_se", "gain_low", "gain_se"))
    unknown = barrier_row([0, 0.5, 1], [[1, math.nan, 1]] * 4, higher_is_better=True)
    assert all(math.isnan(value) for value in unknown.values())


def test_summary_has_a_row_per_scenario_and_kind() -> None:
    """Means, extremes and intervals of hand-made pairs; best and final are kept apart."""
    keys = {"scenario": "within", "task": "real", "split": "test", "pair_kind": "P-T & P-T", "metric": "accuracy"}
    rows = [
        {**keys, "epochs": f"{epoch} & {epoch}", "barrier": height, "midpoint_gain": -height,
         "checkpoint_a": f"real.pt_1@{epoch}", "checkpoint_b": f"real.pt_2@{epoch}",
         "barrier_low": height - 0.1, "barrier_high": height + 0.1}
        for epoch, height in (("final", 0.2), ("final", 0.4), ("best", 0.7))
    ]  # fmt: skip
    table = summarise_barriers(pd.DataFrame(rows)).set_index("epochs")
    final, best = table.loc["final & final"], table.loc["best & best"]
    assert (final["pairs"], best["pairs"]) == (2, 1)
    assert final[["mean", "smallest", "largest", "midpoint_gain"]].tolist() == pytest.approx([0.3, 0.2, 0.4, -0.3])
    assert final[["examples_low", "examples_high"]].tolist() == pytest.approx([0.1, 0.5])
    assert math.isnan(final["pairs_low"])
    assert math.isnan(best["pairs_high"])
