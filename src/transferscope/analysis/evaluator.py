"""Evaluate the same examples, resident in memory, under one state of weights after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from transferscope.analysis.compiled import compiled as as_compiled
from transferscope.analysis.content import content_of
from transferscope.models.duplicate import duplicate
from transferscope.models.image_input import in_fast_layout
from transferscope.models.logits import as_logits
from transferscope.system.errors import UserError

Batch = tuple[Tensor, Tensor]
"""Network input (B, 3, H, W) and labels: int64 (B,) classes, or (B, num_classes) in {1, 0, -1}, -1 = ignored."""

Batches = Sequence[Batch] | Callable[[], Iterable[Batch]]
"""Batches that lie in memory, or a function that makes them anew for every pass."""

Value = float | NDArray[np.float64]
Metrics = Mapping[str, Value]
"""A metric of a model by name: a number, or several (the number on all examples first, then under resamples)."""

Evaluate = Callable[[nn.Module], Metrics]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def iterate(batches: Batches) -> Iterator[Batch]:
    """One pass over the batches."""
    return iter(batches() if callable(batches) else batches)


def resident_batches(
    images: Tensor,
    labels: Tensor,
    transform: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 128,
    device: torch.device | str | None = None,
) -> list[Batch]:
    """Examples preprocessed once, float32 channels_last, for passes that repeat (4 bytes per value: mind the memory).

    images: uint8 (N, C, H, W); `transform` maps a batch of them to the network's input. 128 images of 32 by 32 px stay
    in a core's cache.
    """
    return list(streamed_batches(images, labels, transform, batch_size=batch_size, device=device)())


def streamed_batches(
    images: Tensor,
    labels: Tensor,
    transform: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 128,
    device: torch.device | str | None = None,
) -> Callable[[], Iterator[Batch]]:
    """The same batches preprocessed anew on every pass: only the packed uint8 images stay on the device."""
    if len(images) == 0 or len(images) != len(labels):
        raise UserError(f"{len(images)} images and {len(labels)} labels: give as many of each, and at least one")
    images, labels = images.to(device), labels.to(device)

    def batches() -> Iterator[Batch]:
        for part, targets in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            yield transform(part).contiguous(memory_format=torch.channels_last), targets

    return batches


class Evaluator:
    """`evaluate(model) -> metrics` over fixed batches: the callable that `walk`, planes and basins ask for.

    `metrics(logits, labels)` sees all logits at once (float32, (N, num_classes)), so that AUC is exact. With precision
    "bfloat16" a shadow copy of the model computes, into which the weights are rounded at every call; losses are then
    off by up to a few percent. compiled: by torch's compiler, for each shape of batch once; writing weights in place
    does not compile anew. The model is put into eval mode.
    """

    def __init__(
        self,
        batches: Batches,
        metrics: Callable[[Tensor, Tensor], Metrics] | None = None,
        *,
        precision: str = "float32",
        compiled: bool = False,
    ) -> None:
        if precision not in DTYPES:
            raise UserError(f"precision {precision!r}: choose one of {', '.join(DTYPES)}")
        self.metrics = metrics or accuracy_and_loss
        self.dtype = DTYPES[precision]
        # What lies in memory is rounded once, what is made anew at every pass.
        self.batches = batches if callable(batches) else [(inputs.to(self.dtype), labels) for inputs, labels in batches]
        self._shadows: dict[int, tuple[nn.Module, nn.Module]] = {}
        self._compiled: dict[int, tuple[nn.Module, nn.Module]] | None = {} if compiled else None

    def __call__(self, model: nn.Module) -> Metrics:
        logits, labels = self.logits_and_labels(model)
        return self.metrics(logits, labels)

    @torch.inference_mode()
    def logits_and_labels(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Logits (N, num_classes) in float32 and the labels, in the order of the batches."""
        network = self._as_called(self._network(model))
        logits, labels = [], []
        for inputs, targets in iterate(self.batches):
            logits.append(as_logits(network(inputs.to(self.dtype)), network).float())
            labels.append(targets)
        return torch.cat(logits), torch.cat(labels)

    def _as_called(self, network: nn.Module) -> nn.Module:
        """The network, compiled if asked."""
        if self._compiled is None:
            return network
        if id(network) not in self._compiled:
            self._compiled[id(network)] = (network, as_compiled(network))
        return self._compiled[id(network)][1]

    def _network(self, model: nn.Module) -> nn.Module:
        model.eval()
        if self.dtype == torch.float32:
            return model
        if id(model) not in self._shadows:
            # The model is kept beside its shadow so that its id is not given to another one.
            self._shadows[id(model)] = (model, duplicate(model).to(self.dtype).eval())
        shadow = self._shadows[id(model)][1]
        for own, rounded in zip(model.state_dict().values(), shadow.state_dict().values(), strict=True):
            rounded.copy_(own)
        return shadow


class Store(Protocol):
    """Keeper of measurements by key: a dict, or something that writes through to disk."""

    def get(self, key: str, /) -> dict[str, Any] | None: ...

    def __setitem__(self, key: str, value: dict[str, Any], /) -> None: ...


class Remembered:
    """An `evaluate` that measures each set of weights once: known by the name of its content (`content.content_of`).

    A store on disk makes a walk resumable, and a rerun with more points computes only the new ones. context: what is
    measured, on which data, with which architecture; all that the weights themselves do not say.
    """

    def __init__(self, evaluate: Evaluate, store: Store, context: str) -> None:
        self.evaluate, self.store, self.context = evaluate, store, context

    def __call__(self, model: nn.Module) -> Metrics:
        key = f"{self.context}/{content_of(model)}"
        metrics = self.store.get(key)
        if metrics is None:
            metrics = self.store[key] = dict(self.evaluate(model))
        return metrics


def prepare(model: nn.Module, device: torch.device | str | None = None) -> nn.Module:
    """The model in eval mode, on the device, its convolutions in channels_last (1.5 times faster on CPU).

    A network of the user's own that fails in this layout is left in the usual one, and is given images in it.
    """
    return in_fast_layout(model.to(device=device).eval())


def accuracy_and_loss(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy (fraction) and cross entropy (nats per example); over all known labels where there are several a row.

    Non-finite logits are wrong predictions, and make the loss non-finite.
    """
    correct, losses, known = per_example(logits, labels)
    count = known.sum().item()
    if count == 0:
        return {"accuracy": float("nan"), "loss": float("nan")}
    return {"accuracy": correct.sum().item() / count, "loss": losses.sum().item() / count}


def per_example(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Correct (0 or 1), loss (nats) and known (0 or 1), float64, of every example, or of every label of it.

    Single-label: arg-max and cross entropy. Multi-label (two-dimensional labels): logit above 0 and binary cross
    entropy; what is labelled -1 is unknown and contributes 0 to all three.
    """
    finite = logits.isfinite()
    if labels.dim() == 1:
        correct = (logits.argmax(dim=1) == labels) & finite.all(dim=1)
        losses = F.cross_entropy(logits, labels, reduction="none")
        return correct.double(), losses.double(), torch.ones_like(losses, dtype=torch.float64)
    known = labels >= 0
    correct = ((logits > 0) == (labels > 0)) & finite & known
    losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype).clamp(min=0), reduction="none")
    return correct.double(), losses.double().where(known, 0), known.double()
