"""Flips: against a loop over examples, symmetric, defined without examples; Holm against statsmodels; the answer."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from transferscope.analysis.flips import Grouping, answer, flips, holm


@pytest.fixture
def models() -> tuple[np.ndarray, np.ndarray, Grouping]:
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 300)) < np.array([[0.8], [0.7]])
    return a, b, Grouping("sex", ("Female", "Male", "Unknown"), generator.integers(0, 2, 300))


def test_counts_equal_a_loop_over_examples(models):
    """Flips, sizes and accuracies of each group, counted one example at a time; McNemar's p as statsmodels has it."""
    a, b, grouping = models
    table = flips(a, b, grouping)
    for code in range(2):
        lost = gained = right_a = total = both = 0
        for one, other, group in zip(a, b, grouping.codes, strict=True):
            if group == code:
                total, right_a = total + 1, right_a + one
                lost, gained, both = lost + (one and not other), gained + (other and not one), both + (one and other)
        row = table.iloc[code]
        assert (row["num_examples"], row["negative_flips"], row["positive_flips"]) == (total, lost, gained)
        assert row["accuracy_a"] == pytest.approx(right_a / total)
        assert row["accuracy_gain"] == pytest.approx((gained - lost) / total)
        assert row["p_value"] == pytest.approx(mcnemar([[both, lost], [gained, 0]], exact=True).pvalue)


def test_a_model_does_not_flip_against_itself(models):
    """No flips, no gain, p = 1."""
    a, _, grouping = models
    table = flips(a, a, grouping).iloc[:2]
    assert (table[["negative_flips", "positive_flips", "accuracy_gain"]] == 0).all(axis=None)
    assert (table["p_value"] == 1).all()


def test_exchanging_the_models_exchanges_the_flips(models):
    """Negative flips of one direction are the positive ones of the other, with intervals; the gain changes its sign."""
    a, b, grouping = models
    there, back = flips(a, b, grouping), flips(b, a, grouping)
    for suffix in ("", "_low", "_high"):
        np.testing.assert_array_equal(there[f"negative_flip_rate{suffix}"], back[f"positive_flip_rate{suffix}"])
    np.testing.assert_allclose(there["accuracy_gain_low"], -back["accuracy_gain_high"])
    np.testing.assert_array_equal(there["p_value"], back["p_value"])


def test_a_group_without_examples_has_a_row(models):
    """Its counts are 0 and its rates NaN, without a warning."""
    row = flips(*models).iloc[2]
    assert row["num_examples"] == row["negative_flips"] == 0
    assert np.isnan(
        row[["accuracy_gain", "negative_flip_rate_low", "accuracy_gain_high", "p_value"]].astype(float)
    ).all()


def test_one_image():
    """One image that flips: a rate of 1 whose interval is nearly everything."""
    row = flips([True], [False], Grouping.of_all(1)).iloc[0]
    assert (row["value"], row["negative_flip_rate"], row["p_value"]) == ("all", 1, 1)
    assert row["negative_flip_rate_low"] < 0.25
    assert row["accuracy_gain_high"] > 0


def test_holm_equals_statsmodels():
    """Adjusted p-values in their order; a group without examples is not counted as one more test."""
    p = np.array([0.04, 0.001, np.nan, 0.2, 0.02, 0.9])
    known = ~np.isnan(p)
    np.testing.assert_allclose(holm(p)[known], multipletests(p[known], method="holm")[1])
    assert np.isnan(holm(p)[2])
    assert len(holm([])) == 0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.01, 0.03, "yes"), (-0.02, 0.0, "yes"), (-0.05, -0.03, "no"), (-0.05, 0.01, "cannot tell")],
)
def test_the_answer_needs_the_whole_interval_on_one_side(low, high, expected):
    """Yes where a loss above the margin is excluded, no where a smaller one is, else neither."""
    assert answer(low, high, 0.02) == expected
    assert answer(float("nan"), float("nan"), 0.02) == "cannot tell"
