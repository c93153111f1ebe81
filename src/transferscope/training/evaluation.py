"""Logits of a model on a split, and their metrics: accuracy, loss and AUC."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.experiment.options import TrainingPrecision
from transferscope.experiment.seeds import derive_seed
from transferscope.images.feed import Feed
from transferscope.images.seen_images import EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.models.layers import image_channels
from transferscope.models.logits import as_logits
from transferscope.models.memory_layout import as_input, first_weight
from transferscope.system.errors import UserError
from transferscope.training.device import OneProcess, autocast

BATCH_SIZE = 256

IGNORED = -1
"""Label of a finding that is neither positive nor negative: it counts nowhere."""

VALUES_AT_ONCE = 1 << 24


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


def evaluated_examples(split: PackedSplit, limit: int | None) -> np.ndarray | None:
    """Positions of at most `limit` examples, the same for all epochs and runs on a split; None for all of them."""
    if limit is None or len(split) <= limit:
        return None
    generator = np.random.default_rng(derive_seed(split.name, split.part, "evaluation"))
    return np.sort(generator.choice(len(split), limit, replace=False))


def metrics_from_logits(
    logits: Tensor, labels: Tensor | np.ndarray, *, multi_label: bool, class_names: Sequence[str] | None = None
) -> dict[str, float]:
    """Metrics of `logits` `(n, num_classes)` against `labels`, computed in float64.

    Single label, `labels` `(n,)` class indices: `accuracy` (fraction whose largest logit is the label's) and `loss`
    (cross entropy, nats per example).

    Multi-label, `labels` `(n, num_classes)` of 1, 0 and -1 for ignored: `accuracy` (fraction of known findings that
    are on the right side of probability 0.5), `loss` (binary cross entropy, mean over known findings, that is over
    classes and examples), `auc/<class>` (area under the ROC curve over the examples whose finding is known; nan where
    only one of the two values occurs) and `auc` (mean over the classes that have one).

    No example, or no known finding: all nan. A prediction that is not finite is wrong, and its AUC and loss are not
    finite either.
    """
    logits, labels = logits.detach(), torch.as_tensor(labels)
    if not multi_label:
        tally = Tally(logits.shape[1], len(labels), logits.device)
        tally.add(logits, labels)
        return tally.metrics()
    logits = logits.to("cpu", torch.float64)
    names = class_names if class_names is not None else [str(index) for index in range(logits.shape[1])]
    return _multi_label(logits, labels.cpu(), names)


class Tally:
    """Accuracy and loss of single-label examples that come batch by batch, reduced where their logits are.

    Logits of all examples of ImageNet would take 5 GB, and 10 in float64: at most `VALUES_AT_ONCE` are held, and
    nothing is copied from a GPU before `metrics`. The sums do not depend on how the examples are cut into batches.
    """

    def __init__(self, num_classes: int, num_examples: int, device: torch.device) -> None:
        self._device = device
        self._rows = max(1, min(VALUES_AT_ONCE // max(1, num_classes), num_examples))
        self._held: list[tuple[Tensor, Tensor]] = []
        self._num_held = 0
        self._sums: list[Tensor] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count some examples: logits (n, num_classes), labels (n,) class indices."""
        labels = labels.to(logits.device, torch.int64, non_blocking=True)
        while len(labels):
            room = self._rows - self._num_held
            self._held.append((logits[:room], labels[:room]))
            self._num_held += len(labels[:room])
            logits, labels = logits[room:], labels[room:]
            if self._num_held == self._rows:
                self._reduce()

    def metrics(self, group: OneProcess | None = None) -> dict[str, float]:
        """accuracy and loss of all examples, of `group` those of all processes; nan of none."""
        self._reduce()
        sums = torch.stack(self._sums).tolist() if self._sums else []
        counted = [math.fsum(values) for values in zip(*sums, strict=True)] or [0.0, 0.0, 0.0]
        if group is not None and group.size > 1:
            counted = group.sum_(torch.tensor(counted, dtype=torch.float64, device=self._device)).tolist()
        correct, loss, number = counted
        return {"accuracy": correct / number if number else math.nan, "loss": loss / number if number else math.nan}

    def _reduce(self) -> None:
        """Add up what is held, in float64."""
        if not self._held:
            return
        logits, labels = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*self._held, strict=True))
        logits = logits.double()
        correct = ((logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)).sum().double()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        self._sums.append(torch.stack([correct, loss, torch.full_like(loss, len(labels))]))
        self._held, self._num_held = [], 0


def _multi_label(logits: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, float]:
    known = labels != IGNORED
    correct = (((logits > 0) == (labels == 1)) & logits.isfinite()).double()[known]
    loss = F.binary_cross_entropy_with_logits(logits[known], labels[known].double())
    aucs = [_auc(logits[known[:, k], k], labels[known[:, k], k]) for k in range(logits.shape[1])]
    defined = [auc for auc in aucs if not math.isnan(auc)]
    per_class = {f"auc/{name}": auc for name, auc in zip(names, aucs, strict=True)}
    mean = math.fsum(defined) / len(defined) if defined else math.nan
    return {"accuracy": float(correct.mean()), "loss": float(loss), "auc": mean} | per_class


def _auc(scores: Tensor, labels: Tensor) -> float:
    from sklearn.metrics import roc_auc_score  # takes a second to import

    if len(labels.unique()) < 2 or not bool(torch.isfinite(scores).all()):
        return math.nan
    return float(roc_auc_score(labels.numpy(), scores.numpy()))
