"""The tables of one model replaced by another: identities, symmetries, groups, findings, odd predictions, coverage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from benchmarks.bench_replace import PAIRS, Examples, Pair, coverage, draw
from transferscope.experiment.options import ReplaceOptions
from transferscope.measure.replacements import calibration, flip_gallery, replacement
from transferscope.system.errors import UserError

OPTIONS = ReplaceOptions(groups=("site",))
CLASSES, FINDINGS = PAIRS[0], PAIRS[3]


@pytest.fixture(params=[CLASSES, FINDINGS], ids=["classes", "findings"])
def models(request) -> tuple[Examples, np.ndarray, np.ndarray]:
    return draw(request.param, 300, np.random.default_rng(0))


def test_a_model_replaces_itself(models):
    """No flips and no change, the same mistakes, kappa_p that of its own sureness, "yes"; nothing tells it apart."""
    examples, a, _ = models
    whole, flips = replacement(examples, a, a, OPTIONS)
    assert (flips[["negative_flips", "positive_flips", "accuracy_gain"]] == 0).all(axis=None)
    assert (whole[["changed", "brier_rise"]] == 0).all(axis=None)
    assert whole[["kappa", "kappa_max", "excess_overlap"]].to_numpy() == pytest.approx(1)
    assert (whole["answer"] == "yes").all()
    assert whole[["images_needed", "detectable_difference"]].isna().all(axis=None)
    sure, _ = replacement(examples, 1000 * a, 1000 * a, OPTIONS)
    assert (whole["kappa_p"] < sure["kappa_p"]).all()
    assert sure["kappa_p"].to_numpy() == pytest.approx(1, abs=0.03)


def test_exchanging_the_models_turns_flips_and_differences(models):
    """Negative and positive flips change places, gain and Brier change sign; all agreement stays."""
    examples, a, b = models
    (there, _), (back, _) = (replacement(examples, *pair, OPTIONS) for pair in ((a, b), (b, a)))
    np.testing.assert_array_equal(there["negative_flips"], back["positive_flips"])
    for name in ("accuracy_gain", "brier_rise"):
        np.testing.assert_allclose(there[name], -back[name], atol=1e-12)
        np.testing.assert_allclose(there[f"{name}_low"], -back[f"{name}_high"], atol=1e-12)
    for name in ("changed", "same_wrong", "kappa", "kappa_max", "excess_overlap", "kappa_p", "images_needed"):
        np.testing.assert_allclose(there[name], back[name], atol=1e-12)


def test_groups_and_classes_add_up(models):
    """The flips of the values of a group add up to those of all; a group equals the comparison of its images alone."""
    examples, a, b = models
    _, flips = replacement(examples, a, b, OPTIONS)
    for _, rows in flips.groupby("class_name"):
        sums = rows.groupby("group")[["num_examples", "negative_flips", "positive_flips"]].sum()
        assert (sums == sums.iloc[0]).all(axis=None)
    assert set(flips["group"]) == ({"all", "site"} if examples.multi_label else {"all", "class", "site"})
    alone = np.flatnonzero(examples.columns["site"] == "b")
    own, _ = replacement(examples.take(alone), a[alone], b[alone], OPTIONS)
    rows = flips[(flips["group"] == "site") & (flips["value"] == "b")]
    np.testing.assert_allclose(rows["accuracy_gain"], own["accuracy_gain"])
    np.testing.assert_allclose(rows["negative_flip_rate_low"], own["negative_flip_rate_low"])


def test_numbers_equal_those_of_a_loop_over_images():
    """Changed predictions, equal wrong answers and accuracies, counted one image at a time."""
    examples, a, b = draw(CLASSES, 200, np.random.default_rng(1))
    row = replacement(examples, a, b, OPTIONS)[0].iloc[0]
    changed = both_wrong = same = 0
    for one, other, label in zip(a, b, examples.labels, strict=True):
        first, second = int(np.argmax(one)), int(np.argmax(other))
        changed += first != second
        both_wrong += first != label and second != label
        same += first != label and second == first
    assert row["changed"] == pytest.approx(changed / 200)
    assert row["same_wrong"] == pytest.approx(same / both_wrong)
    assert row["accuracy_a"] == pytest.approx(accuracy_score(examples.labels, a.argmax(axis=1)))


def test_findings_are_judged_where_they_are_labelled():
    """Unlabelled images do not count; a finding without labels has a row of 0 images that says nothing; the threshold
    decides what is predicted.
    """
    examples, a, b = draw(FINDINGS, 200, np.random.default_rng(2))
    labels = examples.labels.copy()
    labels[:50, 0], labels[:, 2] = -1, -1
    known = Examples(labels, examples.class_names, examples.columns)
    whole, _ = replacement(known, a, b, ReplaceOptions(threshold=0.9))
    assert whole["num_examples"].tolist() == [150, 200, 0]
    predicted = 1 / (1 + np.exp(-a[50:, 0])) > 0.9
    assert whole["accuracy_a"][0] == pytest.approx((predicted == (labels[50:, 0] == 1)).mean())
    nothing = whole.iloc[2]
    assert nothing["answer"] == "cannot tell"
    assert np.isnan(nothing[["accuracy_gain", "kappa", "kappa_p", "changed", "brier_rise"]].astype(float)).all()
    assert np.isnan(calibration(known, a, OPTIONS)[0].loc[2, ["brier", "ece", "rms_error"]].astype(float)).all()


def test_constant_predictions_and_a_class_without_examples():
    """A model that always says the first class, and a class that no image has: numbers or NaN, no error, no warning."""
    examples, a, _ = draw(CLASSES, 100, np.random.default_rng(3))
    some = Examples(np.minimum(examples.labels, 8), examples.class_names, examples.columns)
    constant = np.zeros_like(a)
    constant[:, 0] = 1
    whole, flips = replacement(some, a, constant, OPTIONS)
    assert whole["accuracy_b"][0] == pytest.approx((some.labels == 0).mean())
    assert flips[flips["value"] == "class 9"]["num_examples"].tolist() == [0]
    rows, bins = calibration(some, constant, OPTIONS)
    assert len(bins) == 1
    assert rows["overconfidence"][0] == pytest.approx(bins["confidence"][0] - bins["rate"][0])


def test_one_image_and_a_diverged_model():
    """One image says "cannot tell"; logits that are not finite count as wrong, and have no calibration."""
    examples, a, b = draw(CLASSES, 60, np.random.default_rng(4))
    one = examples.take(np.array([0]))
    assert replacement(one, a[:1], b[:1], OPTIONS)[0]["answer"].tolist() == ["cannot tell"]
    calibration(one, a[:1], OPTIONS)
    row = replacement(examples, a, np.full_like(b, np.nan), OPTIONS)[0].iloc[0]
    assert (row["accuracy_b"], row["answer"]) == (0, "no")
    assert np.isnan(row["kappa_p"])
    assert np.isnan(calibration(examples, np.full_like(b, np.nan), OPTIONS)[0]["ece"][0])


def test_few_mistakes_have_no_interval_of_a_mean():
    """With fewer than ten mistakes kappa_p and the Brier score stand without interval; flips keep theirs."""
    examples, a, b = draw(Pair("sure", 10, (9.0, 8.0), 0.5, 1.0), 100, np.random.default_rng(5))
    row = replacement(examples, a, b, OPTIONS)[0].iloc[0]
    assert np.isfinite(row["brier_rise"])
    assert np.isnan([row["brier_rise_low"], row["kappa_p_high"]]).all()
    assert np.isfinite(row["negative_flip_rate_high"])


def test_p_values_are_adjusted_over_the_rows_of_a_group():
    """Ten classes: the smallest p is taken ten times, and none shrinks."""
    examples, a, b = draw(CLASSES, 400, np.random.default_rng(6))
    classes = replacement(examples, a, b, OPTIONS)[1].query("group == 'class'")
    assert (classes["p_holm"] >= classes["p_value"]).all()
    assert classes["p_holm"].min() == pytest.approx(min(1, 10 * classes["p_value"].min()))


def test_a_column_that_is_not_there_is_named():
    """One line that names the task, the column and those there are; too many values likewise."""
    examples, a, b = draw(CLASSES, 60, np.random.default_rng(7))
    with pytest.raises(UserError, match=r"^drawn: its example list has no column 'sex'; .*: site$"):
        replacement(examples, a, b, ReplaceOptions(groups=("sex",)))
    many = Examples(examples.labels, examples.class_names, pd.DataFrame({"age": np.arange(60).astype(str)}))
    with pytest.raises(UserError, match="column 'age' has 60 values: give one of at most 50"):
        replacement(many, a, b, ReplaceOptions(groups={"drawn": ("age",)}))


def test_the_gallery_shows_the_surest_mistakes_first(models):
    """Every image flips in the direction it stands for, and no left-out flip is surer."""
    examples, a, b = models
    shown = flip_gallery(examples, a, b, ReplaceOptions(gallery=3))
    everything = flip_gallery(examples, a, b, ReplaceOptions(gallery=1000))
    assert shown.groupby("only_correct").size().to_dict() == {"a": 3, "b": 3}
    pd.testing.assert_frame_equal(shown, everything[everything["column"] < 3].reset_index(drop=True))
    whole, _ = replacement(examples, a, b, OPTIONS)
    assert (everything["only_correct"] == "a").sum() == whole["negative_flips"].sum()
    right, wrong = everything["only_correct"].to_numpy(), everything["only_correct"].map({"a": "b", "b": "a"})
    for row, good, bad in zip(everything.to_dict("records"), right, wrong, strict=True):
        assert row[f"prediction_{good}"] == row["true_label"] != row[f"prediction_{bad}"]


@pytest.mark.parametrize("pair", [CLASSES, FINDINGS], ids=["classes", "findings"])
def test_intervals_hold_the_truth_in_small_studies(pair):
    """In 60 test sets of 100 images each kind of interval does in 86 % at least (four standard errors below 95 %)."""
    studies = coverage(pair, 100, 60, seed=1)
    over_rows = studies.groupby(["rows", "statistic"])["covered"].mean()
    assert (over_rows > 0.84).all(), over_rows
    assert 0.93 < studies["covered"].mean() < 0.98
