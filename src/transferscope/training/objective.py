"""What training minimises, as a sum and what it is divided by, so that the parts of a batch add up to the whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -1
"""Label of a finding that is neither positive nor negative: it counts nowhere."""


def targets_of(labels: Tensor, num_classes: int, *, multi_label: bool, mixed: bool) -> Tensor:
    """Labels as the loss takes them.

    Single label: class indices `(n,)`, or, if they will be mixed, one-hot rows `(n, num_classes)`.
    Multi-label: `(n, num_classes)` floats in [0, 1], or -1 for ignored.
    """
    if multi_label:
        return labels.float()
    return F.one_hot(labels, num_classes).float() if mixed else labels


def loss_weight(targets: Tensor, *, multi_label: bool) -> Tensor:
    """What the loss is divided by, float64: the number of examples, or of known findings; at least 1."""
    if not multi_label:
        return torch.tensor(len(targets), dtype=torch.float64).to(targets.device, non_blocking=True)
    return (targets != IGNORED).sum().clamp(min=1).double()


def summed_loss(logits: Tensor, targets: Tensor, *, multi_label: bool, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy summed over examples, or binary cross entropy summed over known findings, in nats.

    Divided by `loss_weight` it is the mean that the study minimises. Smoothing moves a share `label_smoothing` of each
    target to the uniform distribution over the classes, or over yes and no.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.dtype) if targets.is_floating_point() else targets
    if not multi_label:
        return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
    each = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
    return torch.where(targets != IGNORED, each, 0.0).sum()
