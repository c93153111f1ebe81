"""Logits of a model on a split, and the batches that it is fed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.images.image_array import ConcatenatedImages
from transferscope.images.seen_images import EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.system.errors import UserError
from transferscope.training import metrics
from transferscope.training.evaluation import evaluate, metrics_from_logits, predict
from transferscope.training.feed import Feed, Ring
from transferscope.training.metrics import Tally

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
    monkeypatch.setattr(metrics, "VALUES_AT_ONCE", at_once)
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


class LateCopies:
    """A way to a device on which copies are made some time after they were asked for, each by a thread of its own."""

    def __init__(self) -> None:
        self.memories: list[int] = []
        self.threads: list[threading.Thread] = []
        self.in_use = self.most_in_use = 0

    def memory(self, shape: tuple[int, ...]) -> torch.Tensor:
        self.memories.append(shape[0])
        return torch.empty(shape, dtype=torch.uint8)

    def send(self, memory: torch.Tensor) -> tuple[torch.Tensor, Callable[[], None]]:
        copied = torch.empty_like(memory)

        def copy() -> None:
            time.sleep(0.003 * (len(self.threads) % 3))
            copied.copy_(memory)

        self.threads.append(threading.Thread(target=copy))
        self.threads[-1].start()
        self.in_use += 1
        self.most_in_use = max(self.most_in_use, self.in_use)
        return copied, self.threads[-1].join

    def queued(self) -> Callable[[], None]:
        def wait() -> None:
            self.in_use -= 1

        return wait


@pytest.mark.parametrize("slots", [1, 2, 6])
@pytest.mark.parametrize("kind", ["array", "packed", "subset", "union"])
def test_a_ring_gives_every_batch_though_copies_are_late(
    kind: str, slots: int, make_split: Make, tmp_path: Path
) -> None:
    """Memory is not written again before its copy is made, batches come in order, and no more memory than slots.

    Neither on the host nor on the device, though the host never waits for the device itself.
    """
    split = make_split(40, folder=None if kind == "array" else tmp_path / "split")
    split = split.subset(np.arange(39, 3, -1)) if kind == "subset" else split
    if kind == "union":
        split.images = ConcatenatedImages([split.images, make_split(9, seed=1).images])
    batches = [np.random.default_rng(seed).integers(0, 36, 5 + seed % 3) for seed in range(30)]
    copies = LateCopies()
    given = list(Ring(split, copies, readers=3, slots=slots).batches(iter(batches)))
    for thread in copies.threads:
        thread.join()
    assert len(given) == len(batches)
    for indices, images in zip(batches, given, strict=True):
        assert torch.equal(images, split.gather(indices))
    assert len(copies.memories) <= 3 * slots  # one for each slot, or a larger one for a larger batch
    assert copies.most_in_use == slots


def test_a_ring_passes_on_the_error_of_a_reader(make_split: Make) -> None:
    """And ends its threads."""
    with pytest.raises(IndexError, match="index outside"):
        list(Ring(make_split(4), LateCopies()).batches([np.array([0]), np.array([7])]))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


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


@pytest.mark.parametrize("num_batches", [0, 1, 2, 7])
def test_batches_read_ahead_are_the_same(train_split: PackedSplit, num_batches: int) -> None:
    """What is read ahead comes in order, and equals what is gathered on the spot."""
    feed, copies = Feed(train_split, torch.device("cpu")), LateCopies()
    wanted = [np.arange(5) + 3 * number for number in range(num_batches)]
    ahead = list(Ring(train_split, copies).batches(iter(wanted)))
    for thread in copies.threads:
        thread.join()
    assert len(ahead) == num_batches
    for batch, plain, indices in zip(ahead, feed.batches(wanted), wanted, strict=True):
        assert torch.equal(batch, plain)
        assert torch.equal(batch, train_split.gather(indices))
