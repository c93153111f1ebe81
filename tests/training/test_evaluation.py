"""Logits of a model on a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.images.seen_images import EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.system.errors import UserError
from transferscope.training import evaluation
from transferscope.training.evaluation import Tally, evaluate, metrics_from_logits, predict

Make = Callable[..., Any]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3))


def test_predictions_are_the_models_outputs_in_order(train_split: PackedSplit, model: nn.Module) -> None:
    """Whatever the batch size, logits are those of one forward pass in evaluation mode; the mode is put back."""
    images = EvaluationTransform(train_split.pictures)(torch.from_numpy(np.array(train_split.images)))
    with torch.no_grad():
        expected = model.eval()(images)
    model.train()
    for batch_size in (1, 7, 40, 256):
        torch.testing.assert_close(predict(model, train_split, batch_size=batch_size), expected)
    assert model.training


def test_indices_choose_and_order_examples(train_split: PackedSplit, model: nn.Module) -> None:
    """Metrics of some examples are those of the split that holds only them."""
    indices = np.array([5, 3, 30, 8])
    logits = predict(model, train_split)
    torch.testing.assert_close(predict(model, train_split, indices=indices), logits[indices])
    chosen = evaluate(model, train_split, indices=indices)
    assert chosen == pytest.approx(evaluate(model, train_split.subset(indices)))


def test_evaluate_joins_predictions_and_metrics(make_split: Make, model: nn.Module) -> None:
    """Per-class AUC carries the names of the split's classes."""
    split = make_split(30, multi_label=True)
    measured = evaluate(model, split)
    assert measured == metrics_from_logits(
        predict(model, split), split.labels, multi_label=True, class_names=split.class_names
    )
    assert "auc/bee" in measured


@pytest.mark.parametrize("at_once", [1, 21, 60, 1 << 24])
@pytest.mark.parametrize("batch_size", [7, 40])
def test_single_label_evaluation_is_reduced_batch_by_batch(
    at_once: int, batch_size: int, train_split: PackedSplit, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never are logits of more values held than asked for, and the metrics are those of all logits together."""
    logits = predict(model, train_split).double()
    labels = torch.from_numpy(train_split.labels)
    losses = -logits.log_softmax(1)[torch.arange(40), labels]
    monkeypatch.setattr(evaluation, "VALUES_AT_ONCE", at_once)
    sizes: list[int] = []
    original = Tally._reduce

    def reduce(tally: Tally) -> None:
        sizes.extend(part.numel() for part, _ in tally._held)
        original(tally)

    monkeypatch.setattr(Tally, "_reduce", reduce)
    measured = evaluate(model, train_split, batch_size=batch_size)
    assert max(sizes) <= max(at_once, 3)
    assert sum(sizes) == logits.numel()
    assert measured["accuracy"] == (logits.argmax(1) == labels).double().mean().item()
    assert measured["loss"] == pytest.approx(losses.mean().item(), rel=1e-14)


def test_models_of_float64_give_float64(train_split: PackedSplit, model: nn.Module) -> None:
    """Images follow the type of the weights."""
    assert predict(model.double(), train_split).dtype == torch.float64


def test_bfloat16_is_near_float32(train_split: PackedSplit, model: nn.Module) -> None:
    """Logits come back as float32 and agree to bfloat16's three digits."""
    half = predict(model, train_split, precision="bfloat16")
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, predict(model, train_split), rtol=0.05, atol=0.05)


def test_progress_counts_examples(train_split: PackedSplit, model: nn.Module) -> None:
    """The hook hears of each batch."""
    heard: list[int] = []
    predict(model, train_split, batch_size=16, progress=heard.append)
    assert heard == [16, 16, 8]


def test_a_model_of_other_classes_is_refused(train_split: PackedSplit) -> None:
    """The message says both numbers."""
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with pytest.raises(UserError, match=r"outputs of shape \(5,\) an example, but split 'toy' has 3 classes"):
        predict(other, train_split)
