"""Logits and metrics of a model on a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.experiment.options import Precision
from transferscope.images.augment import EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.models.layers import image_channels
from transferscope.system.errors import UserError
from transferscope.training.device import as_input, autocast, first_weight
from transferscope.training.feed import Feed
from transferscope.training.metrics import metrics_from_logits
from transferscope.training.process_group import OneProcess

__all__ = ["evaluate", "metrics_from_logits", "predict"]

BATCH_SIZE = 256


def evaluate(
    model: nn.Module,
    split: PackedSplit | Feed,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
    indices: np.ndarray | None = None,
    group: OneProcess | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Metrics of `model` on `split`, or on the examples `indices` of it: see `metrics_from_logits`, `predict`."""
    logits = predict(
        model,
        split,
        batch_size=batch_size,
        device=device,
        precision=precision,
        indices=indices,
        group=group,
        progress=progress,
        to_cpu=False,
    )
    source = split.split if isinstance(split, Feed) else split
    labels = source.labels if indices is None else source.labels[indices]
    return metrics_from_logits(
        logits, np.asarray(labels), multi_label=source.multi_label, class_names=source.class_names
    )


def predict(
    model: nn.Module,
    split: PackedSplit | Feed,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
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
    group = group or OneProcess()
    weight = first_weight(model)
    device = torch.device(device) if device is not None else weight.device
    feed = split if isinstance(split, Feed) else Feed(split, device, keep_resident=False)
    order = np.arange(len(feed.split)) if indices is None else np.asarray(indices)
    starts = range(group.rank * batch_size, len(order), group.size * batch_size)
    batches = feed.batches(order[start : start + batch_size] for start in starts)
    transform = EvaluationTransform(feed.split.pictures, image_channels(model))
    dtype = torch.promote_types(weight.dtype, torch.float32)
    images: Tensor | None = None
    logits = torch.zeros(len(order), feed.split.num_classes, dtype=dtype, device=device)
    with _evaluating(model, device), torch.inference_mode(), autocast(device, precision):
        for start, batch in zip(starts, batches, strict=True):
            # Large images take longer to get new memory for than to normalise.
            images = transform(batch, out=images if images is not None and len(images) == len(batch) else None)
            part = model(as_input(images, weight))
            _check_outputs(part, feed.split)
            logits[start : start + len(part)] = part
            if progress is not None:
                progress(len(part))
    logits = group.sum_(logits)
    return logits.cpu() if to_cpu else logits


@contextmanager
def _evaluating(model: nn.Module, device: torch.device) -> Iterator[None]:
    was_training = model.training
    model.to(device).eval()
    try:
        yield
    finally:
        model.train(was_training)


def _check_outputs(outputs: Tensor, split: PackedSplit) -> None:
    if outputs.ndim != 2 or outputs.shape[1] != split.num_classes:
        raise UserError(
            f"the model gives outputs of shape {tuple(outputs.shape[1:])} an example, but split '{split.name}' has "
            f"{split.num_classes} classes: build the model with num_classes={split.num_classes}"
        )
