"""Logits and metrics of a model on a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.experiment.options import TrainingPrecision
from transferscope.images.augment import EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.models.layers import image_channels
from transferscope.models.layouts import as_logits
from transferscope.system.errors import UserError
from transferscope.training.device import as_input, autocast, first_weight
from transferscope.training.feed import Feed
from transferscope.training.metrics import Tally, metrics_from_logits
from transferscope.training.process_group import OneProcess

__all__ = ["evaluate", "metrics_from_logits", "predict"]

BATCH_SIZE = 256


def evaluate(
    model: nn.Module,
    split: PackedSplit | Feed,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device | None = None,
    precision: TrainingPrecision = "float32",
    indices: np.ndarray | None = None,
    group: OneProcess | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Metrics of `model` on `split`, or on the examples `indices` of it: see `metrics_from_logits`, `predict`.

    Where an example has one label, logits are reduced batch by batch; an AUC takes all of them.
    """
    passes = _Pass(model, split, batch_size, device, precision, indices, group, progress)
    labels, names = np.asarray(passes.labels), passes.split.class_names
    if passes.split.multi_label:
        return metrics_from_logits(passes.logits(), labels, multi_label=True, class_names=names)
    tally, classes = Tally(passes.split.num_classes, len(labels), passes.device), torch.from_numpy(labels)
    for start, logits in passes.batches():
        tally.add(logits, classes[start : start + len(logits)])
    return tally.metrics(group)


def evaluate_each(
    call: Callable[[Tensor], Tensor],
    number: int,
    model: nn.Module,
    feed: Feed,
    *,
    precision: TrainingPrecision = "float32",
    indices: np.ndarray | None = None,
) -> list[dict[str, float]]:
    """Metrics of several models that see the same images at once, as `evaluate` gives them of each.

    call: from images to the logits `(number, num_images, num_classes)` of all; it computes as `model` does, which is
    put into evaluation mode meanwhile.
    """
    passes = _Pass(model, feed, BATCH_SIZE, None, precision, indices, None, None, call)
    labels, names = np.asarray(passes.labels), passes.split.class_names
    if passes.split.multi_label:
        logits = torch.cat([part for _, part in passes.batches()], dim=1)
        return [metrics_from_logits(own, labels, multi_label=True, class_names=names) for own in logits]
    tallies = [Tally(passes.split.num_classes, len(labels), passes.device) for _ in range(number)]
    classes = torch.from_numpy(labels).to(passes.device)
    for start, part in passes.batches():
        for tally, own in zip(tallies, part, strict=True):
            tally.add(own, classes[start : start + len(own)])
    return [tally.metrics() for tally in tallies]


def predict(
    model: nn.Module,
    split: PackedSplit | Feed,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device | None = None,
    precision: TrainingPrecision = "float32",
    indices: np.ndarray | None = None,
    group: OneProcess | None = None,
    progress: Callable[[int], None] | None = None,
    to_cpu: bool = True,
) -> Tensor:
    """Logits `(num_examples, num_classes)` of `model` in evaluation mode, float32 (float64 of such a model).

    Examples come in the order of the split, or of `indices`, through the split's `EvaluationTransform`. `device`
    defaults to the model's own; the model is moved there and put back into its mode. With a `group` of several
    processes whole batches are shared out, so each is computed as one process would, and all get all logits.
    `progress` is called with the number of examples done since its last call. Without `to_cpu` they stay on the device.
    """
    logits = _Pass(model, split, batch_size, device, precision, indices, group, progress).logits()
    return logits.cpu() if to_cpu else logits


class _Pass:
    """One pass of a model over a split, of which a process of a group does its batches."""

    def __init__(
        self,
        model: nn.Module,
        split: PackedSplit | Feed,
        batch_size: int,
        device: str | torch.device | None,
        precision: TrainingPrecision,
        indices: np.ndarray | None,
        group: OneProcess | None,
        progress: Callable[[int], None] | None,
        call: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.call = call or (lambda images: as_logits(model(images), model))
        self.model, self.precision, self.progress = model, precision, progress
        self.group, self.batch_size = group or OneProcess(), batch_size
        self.weight = first_weight(model)
        self.device = torch.device(device) if device is not None else self.weight.device
        self.feed = split if isinstance(split, Feed) else Feed(split, self.device, keep_resident=False)
        self.split = self.feed.split
        self.order = np.arange(len(self.split)) if indices is None else np.asarray(indices)
        self.labels = self.split.labels if indices is None else self.split.labels[indices]

    def batches(self) -> Iterator[tuple[int, Tensor]]:
        """The place of each batch of this process in the order, and its logits."""
        starts = range(self.group.rank * self.batch_size, len(self.order), self.group.size * self.batch_size)
        batches = self.feed.batches(self.order[start : start + self.batch_size] for start in starts)
        transform = EvaluationTransform(self.split.pictures, image_channels(self.model))
        images: Tensor | None = None
        with _evaluating(self.model, self.device):
            for start, batch in zip(starts, batches, strict=True):
                with torch.inference_mode(), autocast(self.device, self.precision):
                    # Large images take longer to get new memory for than to normalise.
                    images = transform(batch, out=images if images is not None and len(images) == len(batch) else None)
                    logits = self.call(as_input(images, self.weight))
                    _check_outputs(logits, self.split)
                    logits = logits.to(torch.promote_types(self.weight.dtype, torch.float32))
                yield start, logits
                if self.progress is not None:
                    self.progress(len(logits))

    def logits(self) -> Tensor:
        """All logits in their order, in every process of the group."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        logits = torch.zeros(len(self.order), self.split.num_classes, dtype=dtype, device=self.device)
        for start, part in self.batches():
            logits[start : start + len(part)] = part
        return self.group.sum_(logits)


@contextmanager
def _evaluating(model: nn.Module, device: torch.device) -> Iterator[None]:
    was_training = model.training
    model.to(device).eval()
    try:
        yield
    finally:
        model.train(was_training)


def _check_outputs(outputs: Tensor, split: PackedSplit) -> None:
    if outputs.shape[-1] != split.num_classes:
        raise UserError(
            f"the model gives outputs of shape {tuple(outputs.shape[-1:])} an example, but split '{split.name}' has "
            f"{split.num_classes} classes: build the model with num_classes={split.num_classes}"
        )
