"""The choice of examples for the gallery of uncommon mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from transferscope.analysis.uncommon_examples import class_indices, uncommon_examples
from transferscope.system.errors import UserError

# Class 0: example 0 only a right, example 1 only b right. Class 1: only a right, twice. Class 2: both right.
LABELS = np.array([0, 0, 1, 1, 2])
LOGITS_A = np.array([[5.0, 0, 0], [0, 4, 0], [0, 3, 0], [0, 6, 0], [0, 0, 1]])
LOGITS_B = np.array([[0, 2.0, 0], [5, 0, 0], [3, 0, 0], [6, 0, 0], [0, 0, 1]])


def test_classes_with_both_kinds_of_mistake_come_first():
    """Class 0 has examples in both rows, so it comes before class 1; class 2 has none and is left out."""
    table = uncommon_examples(LOGITS_A, LOGITS_B, LABELS)
    assert list(dict.fromkeys(table["class_index"])) == [0, 1]
    assert table[table["class_index"] == 0]["example"].tolist() == [0, 1]
    assert table[table["class_index"] == 0]["row"].tolist() == ["only_a_correct", "only_b_correct"]


def test_the_surest_examples_come_first():
    """Within a cell the models' confidence decides."""
    table = uncommon_examples(LOGITS_A, LOGITS_B, LABELS, classes=[1], examples_per_cell=2)
    assert table["example"].tolist() == [3, 2]
    assert table["rank"].tolist() == [0, 1]


def test_captions_hold_label_predictions_and_confidences():
    """Every row states what both models predict, and the probability they give to it."""
    row = uncommon_examples(LOGITS_A, LOGITS_B, LABELS).iloc[0]
    assert (row["label"], row["prediction_a"], row["prediction_b"]) == (0, 0, 1)
    assert row["confidence_a"] == pytest.approx(np.exp(5) / (np.exp(5) + 2))


def test_findings_of_a_multi_label_task_are_chosen_one_by_one():
    """A finding's examples are those that have a label for it; prediction and label are 1 or 0."""
    logits_a, logits_b = np.array([[2.0], [-2.0], [-1.0]]), np.array([[-1.0], [3.0], [1.0]])
    table = uncommon_examples(logits_a, logits_b, np.array([[1], [1], [-1]]), multi_label=True)
    assert table["example"].tolist() == [0, 1]
    assert table[["label", "prediction_a", "prediction_b"]].to_numpy().tolist() == [[1, 1, 0], [1, 0, 1]]
    assert table["confidence_b"].tolist() == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-3))])


def test_models_that_agree_give_an_empty_table():
    """No disagreement, no rows, and still the columns."""
    table = uncommon_examples(LOGITS_A, LOGITS_A, LABELS)
    assert table.empty
    assert "confidence_a" in table


def test_classes_are_chosen_by_name_or_number():
    """By name in the order given; by number those with most disagreement; unknown names list the classes."""
    assert class_indices(["c", "a"], ["a", "b", "c"]) == [2, 0]
    with pytest.raises(UserError, match="no class named barn, angel; there are: a, b, c"):
        class_indices(["barn", "a", "angel"], ["a", "b", "c"])
    table = uncommon_examples(LOGITS_A, LOGITS_B, LABELS, classes=1)
    assert set(table["class_index"]) == {0}


def test_bad_input_is_named():
    """Unknown classes and logits of another size are refused."""
    with pytest.raises(UserError, match=r"classes \[7\] do not exist"):
        uncommon_examples(LOGITS_A, LOGITS_B, LABELS, classes=[7])
    with pytest.raises(UserError, match="differ in shape"):
        uncommon_examples(LOGITS_A, LOGITS_B[:3], LABELS)
    with pytest.raises(UserError, match="do not fit"):
        uncommon_examples(LOGITS_A, LOGITS_B, LABELS[:3])
