"""Accuracy, loss and AUC of logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
    logits, labels = logits.detach(), torch.as_tensor(labels).cpu()
    if not multi_label:
        return _single_label(logits, labels.long())
    logits = logits.to("cpu", torch.float64)
    names = class_names if class_names is not None else [str(index) for index in range(logits.shape[1])]
    return _multi_label(logits, labels, names)


def _single_label(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Part by part: float64 logits of all examples of ImageNet would take 10 GB."""
    if len(labels) == 0:
        return {"accuracy": math.nan, "loss": math.nan}
    rows = max(1, VALUES_AT_ONCE // logits.shape[1])
    correct, losses = 0, []
    for stored, targets in zip(logits.split(rows), labels.split(rows), strict=True):
        part = stored.to("cpu", torch.float64)
        correct += int(((part.argmax(dim=1) == targets) & part.isfinite().all(dim=1)).sum())
        losses.append(float(F.cross_entropy(part, targets, reduction="sum")))
    return {"accuracy": correct / len(labels), "loss": math.fsum(losses) / len(labels)}


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
