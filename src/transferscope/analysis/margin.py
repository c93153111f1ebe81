"""Distance of examples from the decision boundary, in logits: the margin of the generalisation bounds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROWS_AT_ONCE = 1 << 14

LOW = 0.05
"""The share of examples that may lie below the margin of a network, as in Neyshabur et al. 2018."""


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin of every example, float64 (num_examples,): logit of its class less the largest of the others.

    logits: (num_examples, num_classes). labels: int (num_examples,) classes, or (num_examples, num_classes) in
    {1, 0, -1}. Of several labels an example each known one has a margin, its logit with the sign of the label, and all
    are returned in one row; -1 is unknown. Positive where the prediction is right.
    """
    if labels.dim() == 2:
        known = labels >= 0
        return torch.where(labels > 0, logits, -logits)[known].double()
    parts = zip(logits.split(ROWS_AT_ONCE), labels.long()[:, None].split(ROWS_AT_ONCE), strict=True)
    return torch.cat([_of_one_label(part.double(), own) for part, own in parts])


def _of_one_label(logits: Tensor, own: Tensor) -> Tensor:
    return (logits.gather(1, own) - logits.scatter(1, own, -torch.inf).amax(dim=1, keepdim=True))[:, 0]


def margin_row(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """margin, which all but a share of 5 % of the examples reach (in logits, interpolated), and margin_median.

    NaN where a logit is not finite, and where no label is known.
    """
    all_margins = margins(logits, labels)
    if len(all_margins) == 0 or not bool(torch.isfinite(logits).all()):
        return {"margin": float("nan"), "margin_median": float("nan")}
    low, middle = np.quantile(all_margins.numpy(), [LOW, 0.5]).tolist()
    return {"margin": low, "margin_median": middle}
