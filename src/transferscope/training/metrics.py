"""Accuracy, loss and AUC of logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from transferscope.training.process_group import OneProcess

IGNORED = -1
"""Label of a finding that is neither positive nor negative: it counts nowhere."""

VALUES_AT_ONCE = 1 << 24


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
