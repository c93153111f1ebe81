"""Logits and metrics of a model on a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.experiment.options import TrainingPrecision
from transferscope.images.seen_images import EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.models.layers import image_channels
from transferscope.models.logits import as_logits
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
    (metrics,) = Pass(model, split, batch_size, device, precision, indices, group, progress).metrics()
    return metrics


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
    (logits,) = Pass(model, split, batch_size, device, precision, indices, group, progress).logits()
    return logits.cpu() if to_cpu else logits


class Pass:
    """One pass of a model over a split, of which a process of a group does its batches; options as those of `predict`.

    call: from images `(n, channels, height, width)` to the logits `(number, n, num_classes)` of several models that
    compute as `model` does; it is put into evaluation mode meanwhile.
    """

    def __init__(
        self,
        model: nn.Module,
        split: PackedSplit | Feed,
        batch_size: int = BATCH_SIZE,
        device: str | torch.device | None = None,
        precision: TrainingPrecision = "float32",
        indices: np.ndarray | None = None,
        group: OneProcess | None = None,
        progress: Callable[[int], None] | None = None,
        call: Callable[[Tensor], Tensor] | None = None,
        number: int = 1,
    ) -> None:
        self.call, self.number = call or (lambda images: as_logits(model(images), model)[None]), number
        self.model, self.precision, self.progress = model, precision, progress
        self.group, self.batch_size = group or OneProcess(), batch_size
        self.weight = first_weight(model)
        self.device = torch.device(device) if device is not None else self.weight.device
        self.feed = split if isinstance(split, Feed) else Feed(split, self.device, keep_resident=False)
        self.split = self.feed.split
        self.order = np.arange(len(self.split)) if indices is None else np.asarray(indices)
        self.labels = self.split.labels if indices is None else self.split.labels[indices]

    def batches(self) -> Iterator[tuple[int, Tensor]]:
        """The place of each batch of this process in the order, and its logits `(number, n, num_classes)`."""
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
                    self.progress(logits.shape[1])

    def logits(self) -> Tensor:
        """All logits `(number, num_examples, num_classes)` in their order, in every process of the group."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        shape = (self.number, len(self.order), self.split.num_classes)
        logits = torch.zeros(shape, dtype=dtype, device=self.device)
        for start, part in self.batches():
            logits[:, start : start + part.shape[1]] = part
        return self.group.sum_(logits)

    def metrics(self) -> list[dict[str, float]]:
        """The metrics of each model; where an example has one label, logits are reduced batch by batch."""
        labels, names = np.asarray(self.labels), self.split.class_names
        if self.split.multi_label:
            return [metrics_from_logits(own, labels, multi_label=True, class_names=names) for own in self.logits()]
        tallies = [Tally(self.split.num_classes, len(labels), self.device) for _ in range(self.number)]
        classes = torch.from_numpy(labels).to(self.device)
        for start, part in self.batches():
            for tally, own in zip(tallies, part, strict=True):
                tally.add(own, classes[start : start + len(own)])
        return [tally.metrics(self.group) for tally in tallies]


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
