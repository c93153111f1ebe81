"""Agreement: kappa and its bounds against scikit-learn and enumeration, kappa_p against a loop and a random draw."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import cohen_kappa_score

from transferscope.analysis.agreement import consistency, kappa_p


def from_counts(counts) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_kappa_equals_scikit_learns():
    """For counts of all kinds, (both, only a, only b, neither)."""
    for counts in np.random.default_rng(0).integers(1, 30, (20, 4)):
        assert consistency([counts])["kappa"][0] == pytest.approx(cohen_kappa_score(*from_counts(counts)))


@pytest.mark.parametrize("accurate", [(70, 90), (50, 50), (20, 95)])
def test_the_bound_of_kappa_is_the_largest_of_all_overlaps(accurate):
    """Of 100 examples and every overlap that two accuracies allow, the most shared mistakes give kappa_max, overlap 1."""
    right_a, right_b = accurate
    kappas, overlaps = [], []
    for both in range(max(0, right_a + right_b - 100), min(accurate) + 1):
        counts = [both, right_a - both, right_b - both, 100 - right_a - right_b + both]
        agreement = consistency([counts])
        kappas.append(agreement["kappa"][0])
        overlaps.append(agreement["excess_overlap"][0])
        assert agreement["excess_overlap"] == pytest.approx(agreement["kappa"] / agreement["kappa_max"])
    assert max(kappas) == pytest.approx(agreement["kappa_max"][0])
    assert max(overlaps) == pytest.approx(1)


def test_independent_mistakes_do_not_overlap_beyond_chance():
    """Shares that are products of the accuracies: kappa and overlap 0, whatever the accuracies."""
    agreement = consistency([[0.9 * 0.6, 0.9 * 0.4, 0.1 * 0.6, 0.1 * 0.4]])
    assert agreement["kappa"][0] == pytest.approx(0, abs=1e-12)
    assert agreement["excess_overlap"][0] == pytest.approx(0, abs=1e-12)


def test_shared_mistakes_that_accuracy_forces_do_not_count():
    """Of 41 and 10 mistakes in 100 all ten are shared: kappa is .33 only, the overlap 1."""
    agreement = consistency([[59, 31, 0, 10]])
    assert agreement["kappa"][0] == pytest.approx(agreement["kappa_max"][0])
    assert agreement["kappa"][0] < 0.35
    assert agreement["excess_overlap"][0] == 1


def test_nothing_is_said_where_a_model_makes_no_mistake_or_only_mistakes():
    """NaN without a warning."""
    for counts in ([10, 0, 0, 0], [5, 5, 0, 0], [0, 0, 5, 5], [0, 0, 0, 10]):
        assert np.isnan([value[0] for value in consistency([counts]).values()]).all()


@pytest.fixture
def probabilities() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 4, 80)
    raised = 1.5 * np.eye(4)[labels]
    a, b = (softmax(raised + generator.normal(size=(80, 4)), axis=1) for _ in range(2))
    return a, b, labels


def of(a: np.ndarray, b: np.ndarray, labels: np.ndarray):
    rows = np.arange(len(labels))
    return kappa_p((a * b).sum(axis=1), a[rows, labels], b[rows, labels], a.shape[1])


def test_kappa_p_equals_a_loop_over_examples_and_classes(probabilities):
    """The definition of arXiv 2502.04313, term by term."""
    a, b, labels = probabilities
    observed = sure_a = sure_b = 0.0
    for one, other, label in zip(a, b, labels, strict=True):
        observed += sum(one[k] * other[k] for k in range(4)) / 80
        sure_a, sure_b = sure_a + one[label] / 80, sure_b + other[label] / 80
    expected = sure_a * sure_b + (1 - sure_a) * (1 - sure_b) / 3
    agreement = of(a, b, labels)
    assert agreement.kappa_p == pytest.approx((observed - expected) / (1 - expected))
    assert agreement.low < agreement.kappa_p < agreement.high


def test_kappa_p_of_sure_models_counts_equal_answers():
    """Of one-hot probabilities the observed agreement is the share of equal answers: 1 against itself; symmetric."""
    a, b, labels = (np.eye(3)[[0, 1, 2, 0, 1]], np.eye(3)[[0, 1, 1, 2, 0]], np.array([0, 1, 2, 1, 1]))
    assert of(a, a, labels).kappa_p == pytest.approx(1)
    accurate_a, accurate_b = 4 / 5, 2 / 5
    expected = accurate_a * accurate_b + (1 - accurate_a) * (1 - accurate_b) / 2
    assert of(a, b, labels).kappa_p == pytest.approx((2 / 5 - expected) / (1 - expected))
    assert of(a, b, labels) == of(b, a, labels)


def test_kappa_p_tells_which_wrong_answer():
    """Two models wrong on the same examples: with the same wrong classes kappa_p is 1, with others 2/7."""
    labels = np.zeros(10, dtype=int)
    a, other = np.eye(3)[[0] * 6 + [1] * 4], np.eye(3)[[0] * 6 + [2] * 4]
    assert of(a, a, labels).kappa_p == pytest.approx(1)
    expected = 0.6 * 0.6 + 0.4 * 0.4 / 2
    assert of(a, other, labels).kappa_p == pytest.approx((0.6 - expected) / (1 - expected))


def test_kappa_p_of_models_independent_given_the_label_is_zero():
    """Wrong answers that are spread evenly and independently: 0 within its interval."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 5, 4000)
    answers = [
        np.where(generator.random(4000) < 0.6, labels, (labels + generator.integers(1, 5, 4000)) % 5) for _ in "ab"
    ]
    agreement = of(*(np.eye(5)[answer] for answer in answers), labels)
    assert agreement.low < 0 < agreement.high
    assert agreement.high - agreement.low < 0.1


def test_kappa_p_without_anything_to_compare():
    """No examples, probabilities that are not finite, both sure of the truth everywhere: NaN."""
    sure = np.eye(3)[[0, 1]]
    assert np.isnan(of(sure, sure, np.array([0, 1])).kappa_p)
    assert np.isnan(of(sure[:0], sure[:0], np.array([], dtype=int)).kappa_p)
    assert np.isnan(of(np.full((2, 3), np.nan), sure, np.array([0, 2])).kappa_p)
