"""Outcomes: probabilities, correctness and Brier scores against loops; what is not finite; memory in parts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import brier_score_loss

from transferscope.analysis.outcomes import ROWS, class_outcomes, finding_outcomes, same_answer, same_state


def test_outcomes_of_classes_equal_a_loop_over_examples():
    """Also across the parts in which probabilities are computed; 4,100 examples in float32."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(ROWS + 4, 3)).astype(np.float32)
    labels = generator.integers(0, 3, len(logits))
    outcomes = class_outcomes(logits, labels)
    for i in (0, 1, ROWS - 1, ROWS, ROWS + 3):
        p = softmax(logits[i].astype(float))
        assert outcomes.predicted[i] == p.argmax()
        assert outcomes.correct[i] == outcomes.happened[i] == (p.argmax() == labels[i])
        assert outcomes.confidence[i] == pytest.approx(p.max())
        assert outcomes.true[i] == pytest.approx(p[labels[i]])
        assert outcomes.brier[i] == pytest.approx(sum((p[k] - (k == labels[i])) ** 2 for k in range(3)))
    assert outcomes.num_mistakes == (logits.argmax(axis=1) != labels).sum()


def test_outcomes_of_a_finding():
    """Predicted above the threshold; confidence is the probability of the finding; Brier as scikit-learn has it."""
    logits, labels = np.array([2.0, -1.0, 0.5, -3.0]), np.array([1, 1, 0, 0])
    outcomes = finding_outcomes(logits, labels, threshold=0.7)
    assert outcomes.predicted.tolist() == [1, 0, 0, 0]
    assert outcomes.correct.tolist() == [True, False, True, True]
    np.testing.assert_allclose(outcomes.confidence, expit(logits))
    np.testing.assert_allclose(outcomes.true, np.where(labels == 1, expit(logits), 1 - expit(logits)))
    assert outcomes.brier.mean() == pytest.approx(brier_score_loss(labels, expit(logits)))


def test_a_finding_is_a_task_of_two_classes():
    """Agreement of two findings' probabilities equals that of the two-class logits (0, z)."""
    a, b = np.random.default_rng(1).normal(size=(2, 20))
    labels = np.arange(20) % 2
    two = same_answer(*(np.stack([np.zeros(20), z], axis=1) for z in (a, b)))
    np.testing.assert_allclose(same_state(*(finding_outcomes(z, labels).true for z in (a, b))), two)


def test_what_is_not_finite_is_wrong_and_has_no_probability():
    """A diverged model has prediction -1 and NaN, its other examples have theirs; no examples give empty arrays."""
    outcomes = class_outcomes(np.array([[np.nan, 1.0], [2.0, 1.0]]), np.array([0, 0]))
    assert outcomes.predicted.tolist() == [-1, 0]
    assert outcomes.correct.tolist() == [False, True]
    assert np.isnan(outcomes.true).tolist() == [True, False]
    one = finding_outcomes([np.inf, 1.0], [1, 1])
    assert one.predicted.tolist() == [-1, 1]
    assert not one.correct[0]
    assert len(class_outcomes(np.zeros((0, 3)), np.zeros(0, dtype=int)).brier) == 0
    assert len(same_answer(np.zeros((0, 3)), np.zeros((0, 3)))) == 0
