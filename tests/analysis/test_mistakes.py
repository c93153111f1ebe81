"""compare_mistakes: the paper's tables, scikit-learn's confusion matrices, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from transferscope.analysis.mistakes import (
    bootstrap_intervals,
    compare_mistakes,
    compare_predictions,
    correct_from_logits,
    spread_over_pairs,
    uncommon_ratio,
    with_intervals,
)
from transferscope.system.errors import UserError

# g1, g2, common mistakes, and r1, r2 as printed. In Tables 3 to 5 g1 counts what only model 1 gets right.
TABLE_3 = [
    (645, 832, 3597, "0.1878", "0.1520"),
    (2361, 2318, 4047, "0.3641", "0.3684"),
    (71, 207, 3009, "0.0643", "0.02305"),
    (2250, 2460, 8835, "0.2177", "0.2029"),
    (3446, 2160, 4200, "0.3396", "0.4506"),
]
TABLE_4 = [
    (704, 773, 3469, "0.1822", "0.1687"),
    (3139, 1499, 4909, "0.2339", "0.3900"),
    (195, 102, 2978, "0.0331", "0.0614"),
    (2070, 2588, 8497, "0.2334", "0.1958"),
    (2001, 3136, 4510, "0.4101", "0.3073"),
]
TABLE_5 = [
    (456, 697, 3732, "0.1573", "0.1088"),
    (2375, 1369, 4996, "0.2150", "0.3222"),
    (63, 139, 3077, "0.0432", "0.0200"),
    (2030, 1879, 9416, "0.1663", "0.1773"),
    (1687, 2398, 3962, "0.3770", "0.2986"),
]
# In Table 6 the printed g1 counts what only model 1 gets WRONG.
TABLE_6 = [
    (521, 2940, 3263, "0.1376", "0.4739"),
    (787, 844, 5359, "0.1280", "0.1360"),
    (619, 584, 3165, "0.1635", "0.1558"),
]
PRINTED_ROUNDED = {"0.1558"}  # .155775...; the paper cuts every other ratio off after its last digit
NUM_CLIPART = 14604


def from_counts(only_a: int, only_b: int, neither: int, both: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, False, False, True], [only_a, only_b, neither, both])
    b = np.repeat([False, True, False, True], [only_a, only_b, neither, both])
    return a, b


def as_printed(ratio: float, printed: str) -> str:
    digits = len(printed) - 2
    shown = ratio if printed in PRINTED_ROUNDED else math.floor(ratio * 10**digits) / 10**digits
    return f"{shown:.{digits}f}"


@pytest.mark.parametrize(("g1", "g2", "common", "r1", "r2"), [*TABLE_3, *TABLE_4, *TABLE_5])
def test_tables_3_to_5_follow_with_g1_right_by_the_first_model_only(g1, g2, common, r1, r2):
    """Every printed ratio of CheXpert follows from its counts, digits cut off, with r1 = g2 / (g2 + common)."""
    result = compare_mistakes(*from_counts(g1, g2, common, 40000))
    assert (result.only_a_correct, result.only_b_correct, result.common_mistakes) == (g1, g2, common)
    assert as_printed(result.uncommon_ratio_a, r1) == r1
    assert as_printed(result.uncommon_ratio_b, r2) == r2


@pytest.mark.parametrize(("g1", "g2", "common", "r1", "r2"), TABLE_6)
def test_table_6_follows_with_g1_wrong_by_the_first_model_only(g1, g2, common, r1, r2):
    """Every printed ratio of clipart follows with the columns g1 and g2 exchanged; .1558 alone is rounded."""
    result = compare_mistakes(*from_counts(g2, g1, common, NUM_CLIPART - g1 - g2 - common))
    assert as_printed(result.uncommon_ratio_a, r1) == r1
    assert as_printed(result.uncommon_ratio_b, r2) == r2


def test_table_6_gives_the_printed_accuracies_of_the_clean_clipart_test_set():
    """A P-T of row P-T, P-T and an RI-T of row RI-T, RI-T have the accuracies 74.32 and 57.91 of appendix B.2 (to .01)."""
    g1, g2, common, *_ = TABLE_6[2]
    pretrained = compare_mistakes(*from_counts(g2, g1, common, NUM_CLIPART - g1 - g2 - common))
    g1, g2, common, *_ = TABLE_6[1]
    random = compare_mistakes(*from_counts(g2, g1, common, NUM_CLIPART - g1 - g2 - common))
    assert 100 * pretrained.accuracy_b == pytest.approx(74.32, abs=0.011)
    assert 100 * random.accuracy_a == pytest.approx(57.91, abs=0.011)


def test_hand_computed_case():
    """Six examples, counted by hand."""
    a = torch.tensor([True, True, True, False, False, False])
    b = torch.tensor([True, True, False, True, False, False])
    result = compare_mistakes(a, b)
    assert (result.num_examples, result.only_a_correct, result.only_b_correct, result.common_mistakes) == (6, 1, 1, 2)
    assert (result.accuracy_a, result.accuracy_b) == (0.5, 0.5)
    assert result.uncommon_ratio_a == result.uncommon_ratio_b == pytest.approx(1 / 3)
    assert result.kappa == pytest.approx((4 / 6 - 0.5) / 0.5)
    assert result.mcnemar_p == 1


def test_counts_equal_scikit_learns_confusion_matrix():
    """The four counts are the confusion matrix of the two models' correctness, class by class."""
    generator = np.random.default_rng(0)
    a, b, valid = generator.random((3, 200, 4)) < np.array([0.7, 0.5, 0.8])[:, None, None]
    result = compare_mistakes(a, b, valid=valid)
    for i in range(4):
        matrix = confusion_matrix(a[valid[:, i], i], b[valid[:, i], i], labels=[False, True])
        assert matrix[0, 0] == result.common_mistakes[i]
        assert matrix[1, 0] == result.only_a_correct[i]
        assert matrix[0, 1] == result.only_b_correct[i]
        assert matrix.sum() == result.num_examples[i]
        assert result.kappa[i] == pytest.approx(cohen_kappa_score(a[valid[:, i], i], b[valid[:, i], i]))


def test_exchanging_the_models_exchanges_the_fields():
    """Comparing b with a is comparing a with b, names exchanged; kappa and p stay."""
    generator = np.random.default_rng(1)
    a, b = generator.random((2, 100)) < 0.6
    forward, backward = compare_mistakes(a, b), compare_mistakes(b, a)
    assert forward.only_a_correct == backward.only_b_correct
    assert forward.uncommon_ratio_a == backward.uncommon_ratio_b
    assert forward.kappa == pytest.approx(backward.kappa)
    assert forward.mcnemar_p == backward.mcnemar_p


def test_order_of_examples_does_not_matter():
    """A permutation of the examples, the same for both models, changes nothing."""
    generator = np.random.default_rng(2)
    a, b = generator.random((2, 100)) < 0.6
    order = generator.permutation(100)
    assert compare_mistakes(a, b) == compare_mistakes(a[order], b[order])


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    """With 2 against 8 discordant examples p is 2 P(X <= 2) for 10 fair coins, 112/1024."""
    assert compare_mistakes(*from_counts(2, 8, 5, 5)).mcnemar_p == pytest.approx(112 / 1024)


def test_models_without_mistakes_have_no_ratio_and_no_kappa():
    """Ratios and kappa are NaN, without a warning, where there is nothing to divide by."""
    result = compare_mistakes([True] * 5, [True] * 5)
    assert np.isnan([result.uncommon_ratio_a, result.uncommon_ratio_b, result.kappa]).all()
    assert np.isnan(uncommon_ratio(0, 0))


def test_the_table_has_a_row_per_class():
    """`to_frame` names its rows, "all" for a single comparison."""
    a = np.eye(3, dtype=bool)
    assert list(compare_mistakes(a, ~a).to_frame(["x", "y", "z"])["class_name"]) == ["x", "y", "z"]
    assert list(compare_mistakes(a[0], a[1]).to_frame()["class_name"]) == ["all"]
    with pytest.raises(UserError, match="2 class names for 3 classes"):
        compare_mistakes(a, a).to_frame(["x", "y"])


def test_correctness_from_logits():
    """Single-label: the arg max; multi-label: the sign, with unlabelled entries marked."""
    correct, valid = correct_from_logits(
        torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1]), multi_label=False
    )
    assert correct.tolist() == [True, False]
    assert valid.all()
    correct, valid = correct_from_logits([[1.0, -2.0], [3.0, 1.0]], [[1, 1], [-1, 0]], multi_label=True)
    assert correct[:, 1].tolist() == [False, False]
    assert correct[0, 0]
    assert valid.tolist() == [[True, True], [False, True]]


def test_bootstrap_intervals_hold_the_value_and_repeat():
    """Intervals contain the value, have about the binomial width, and are the same for the same seed."""
    result = compare_mistakes(*from_counts(100, 300, 200, 400))
    table = bootstrap_intervals(result).set_index("statistic")
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    width = table.loc["accuracy_a", "high"] - table.loc["accuracy_a", "low"]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.5 * 0.5 / 1000), rel=0.1)
    assert table.loc["kappa", "value"] == pytest.approx(result.kappa)
    assert table.loc["uncommon_ratio_difference", "value"] < 0
    assert table.equals(bootstrap_intervals(result).set_index("statistic"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([True], [True, False]), "same examples and classes"),
        ((np.ones((4, 2), bool), np.ones((4, 3), bool)), "same examples and classes"),
        (([], []), "no example with a label"),
        (([0.5, 1.0], [1.0, 1.0]), "correct_a: expected True or False"),
        ((np.ones((2, 2, 2), bool),) * 2, r"expected \(num_examples,\)"),
    ],
)
def test_bad_input_is_named(arguments, message):
    """Other examples, other classes, nothing to compare, numbers that are no truth values: one-line errors."""
    with pytest.raises(UserError, match=message):
        compare_mistakes(*arguments)


def test_a_class_without_any_label_is_named():
    """A finding that no example has a label for cannot be compared."""
    valid = np.array([[True, False], [True, False]])
    with pytest.raises(UserError, match="class 1 has no example with a label"):
        compare_mistakes(valid, valid, valid=valid)


def test_spread_over_the_pairs_of_a_kind():
    """Two pairs of one kind: their mean, range and number, and the mean of their intervals."""
    frames = []
    for neither in (100, 300):
        comparison = compare_mistakes(*from_counts(100, 200, neither, 400))
        frames.append(with_intervals(comparison.to_frame(), comparison, num_resamples=200))
    table = pd.concat(frames).assign(task="clipart", pair_kind="P-T & RI-T")
    spread = spread_over_pairs(table).set_index("statistic")
    row = spread.loc["common_mistakes"]
    assert (row["num_pairs"], row["mean"], row["min"], row["max"]) == (2, 200, 100, 300)
    assert row["std"] == pytest.approx(20000**0.5)
    assert row["pair_kind"] == "P-T & RI-T"
    assert np.isnan(row["low"])
    row = spread.loc["uncommon_ratio_a"]
    assert row["mean"] == pytest.approx((2 / 3 + 2 / 5) / 2)
    assert row["low"] == pytest.approx(table["uncommon_ratio_a_low"].mean())
    assert row["low"] < row["mean"] < row["high"]


def test_classes_keep_apart_in_the_spread():
    """A row per class and statistic, also where the ratio of a class is undefined."""
    correct = np.array([[True, False], [True, True], [True, False]])
    comparison = compare_mistakes(correct, correct)
    table = with_intervals(comparison.to_frame(["x", "y"]), comparison, num_resamples=20)
    spread = spread_over_pairs(table.assign(task="chest", pair_kind="P-T & P-T"))
    ratios = spread[spread["statistic"] == "uncommon_ratio_a"].set_index("class_name")["mean"]
    assert np.isnan(ratios["x"])
    assert ratios["y"] == 0


def test_models_of_other_tasks_are_refused():
    """Logits of other examples or classes than the labels, and a finding without any label: named."""
    logits = np.zeros((4, 3))
    assert compare_predictions(logits, logits, [0, 1, 2, 0], "abc", multi_label=False).num_examples == 4
    with pytest.raises(UserError, match=r"second model's logits have shape \(4, 2\), but there are 4 examples of 3"):
        compare_predictions(logits, logits[:, :2], [0, 1, 2, 0], "abc", multi_label=False)
    with pytest.raises(UserError, match=r"first model's logits have shape \(3, 3\)"):
        compare_predictions(logits[:3], logits, [0, 1, 2, 0], "abc", multi_label=False)
    labels = np.array([[1, 0, -1]] * 4)
    with pytest.raises(UserError, match="no example has a label for edema: leave it out"):
        compare_predictions(logits, logits, labels, ["a", "b", "edema"], multi_label=True)


def test_what_is_not_finite_is_wrong() -> None:
    """A diverged model predicts neither class 0 nor "no finding"."""
    logits = np.array([[np.nan, np.nan], [np.inf, 0.0], [2.0, 1.0]])
    assert correct_from_logits(logits, np.zeros(3, int), multi_label=False)[0].tolist() == [False, False, True]
    assert correct_from_logits(logits, np.zeros((3, 2), int), multi_label=True)[0].sum() == 1
