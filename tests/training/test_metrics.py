"""Metrics of logits, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from transferscope.training import evaluation
from transferscope.training.device import OneProcess
from transferscope.training.evaluation import metrics_from_logits


def test_single_label_by_hand() -> None:
    """Two of three right; cross entropy of softmax (3/4, 1/4) and (1/2, 1/2)."""
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)], [math.log(3.0), 0.0]])
    metrics = metrics_from_logits(logits, np.array([0, 1, 1]), multi_label=False)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["loss"] == pytest.approx((2 * math.log(4 / 3) + math.log(4)) / 3)
    assert metrics.keys() == {"accuracy", "loss"}


def test_multi_label_by_hand() -> None:
    """Five known findings: accuracy 3/5, mean binary cross entropy over them, AUC of each class."""
    logits = torch.tensor([[2.0, 1.0], [-1.0, 3.0], [1.0, -1.0]])
    labels = np.array([[1, 0], [0, 1], [0, -1]], dtype=np.int8)
    metrics = metrics_from_logits(logits, labels, multi_label=True, class_names=("ant", "bee"))
    losses = [math.log1p(math.exp(-margin)) for margin in (2, 1, -1, -1, 3)]
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["loss"] == pytest.approx(sum(losses) / 5)
    assert (metrics["auc/ant"], metrics["auc/bee"], metrics["auc"]) == (1.0, 1.0, 1.0)


def test_auc_counts_ties_as_half() -> None:
    """Scores 0, 0, 1 of labels 1, 0, 0: of the two pairs one is a tie and one is wrong."""
    metrics = metrics_from_logits(torch.tensor([[0.0], [0.0], [1.0]]), np.array([[1], [0], [0]]), multi_label=True)
    assert metrics["auc"] == pytest.approx(0.25)


def test_mean_auc_is_over_classes_that_have_both_values() -> None:
    """A class with one value has no AUC and does not enter the mean; if all are such, the mean is nan."""
    logits = torch.tensor([[0.0, 5.0], [1.0, 4.0]])
    metrics = metrics_from_logits(logits, np.array([[0, 1], [1, 1]]), multi_label=True)
    assert math.isnan(metrics["auc/1"])
    assert metrics["auc"] == metrics["auc/0"] == 1.0
    assert math.isnan(metrics_from_logits(logits, np.ones((2, 2)), multi_label=True)["auc"])


def test_ignored_findings_count_nowhere() -> None:
    """Replacing the logits of ignored findings by anything changes no metric."""
    generator = np.random.default_rng(0)
    labels = generator.integers(-1, 2, (40, 3))
    logits = torch.from_numpy(generator.normal(size=(40, 3)))
    changed = torch.where(torch.from_numpy(labels) == -1, 99.0, logits)
    assert metrics_from_logits(logits, labels, multi_label=True) == metrics_from_logits(
        changed, labels, multi_label=True
    )


def test_order_of_examples_does_not_matter() -> None:
    """A permutation of the examples changes metrics by rounding at most."""
    generator = np.random.default_rng(0)
    logits, labels = torch.from_numpy(generator.normal(size=(30, 4))), generator.integers(0, 4, 30)
    order = generator.permutation(30)
    shuffled = metrics_from_logits(logits[order], labels[order], multi_label=False)
    assert shuffled == pytest.approx(metrics_from_logits(logits, labels, multi_label=False))


def test_logits_that_are_not_finite_give_nan() -> None:
    """A diverged model has the loss nan and the AUC nan, and raises nothing."""
    logits = torch.full((4, 2), math.nan)
    assert math.isnan(metrics_from_logits(logits, np.zeros(4, int), multi_label=False)["loss"])
    assert math.isnan(metrics_from_logits(logits, np.eye(4, 2, dtype=int), multi_label=True)["auc"])


def test_predictions_that_are_not_finite_are_wrong() -> None:
    """Not class 0, and not "no finding"; the others count as ever."""
    logits = torch.tensor([[math.nan, math.nan], [math.inf, 0.0], [2.0, 1.0]])
    assert metrics_from_logits(logits, np.zeros(3, int), multi_label=False)["accuracy"] == 1 / 3
    assert metrics_from_logits(logits, np.zeros((3, 2), int), multi_label=True)["accuracy"] == 1 / 6


def test_parts_make_the_same_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many examples are taken part by part, so that float64 logits of all never lie in memory."""
    generator = np.random.default_rng(0)
    logits, labels = torch.from_numpy(generator.normal(size=(31, 4))), generator.integers(0, 4, 31)
    whole = metrics_from_logits(logits, labels, multi_label=False)
    monkeypatch.setattr(evaluation, "VALUES_AT_ONCE", 20)
    assert metrics_from_logits(logits, labels, multi_label=False) == pytest.approx(whole, rel=1e-14)


def test_a_process_without_a_batch_adds_up_on_its_device() -> None:
    """Processes of GPUs exchange no tensor that lies on the CPU."""

    class Others(OneProcess):
        size = 2

        def sum_(self, tensor: Tensor) -> Tensor:
            assert tensor.device.type == "meta"
            return torch.tensor([3.0, 8.0, 4.0])

    tally = evaluation.Tally(3, 4, torch.device("meta"))
    assert tally.metrics(Others()) == {"accuracy": 0.75, "loss": 2.0}
