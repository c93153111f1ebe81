"""Metrics under resamples, computed where the logits are, so that a GPU does not wait for a thread of the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transferscope.analysis.evaluator import per_example

VALUES_AT_ONCE = 1 << 24
"""Counts that are made float64 at once: 128 MiB."""


class DeviceResamples:
    """Resamples of the examples as counts on a device; the metrics are those of `resampling.Resampling`.

    counts: float32 (num_resamples, num_examples).
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, NDArray[np.float64]]:
        """accuracy and loss, and for several labels an example auc, each (num_resamples,), on the CPU."""
        labels = labels.to(logits.device)
        logits = logits.double()
        columns = [values if values.dim() == 1 else values.sum(dim=1) for values in per_example(logits, labels)]
        values = torch.stack(columns, dim=1)
        sums = torch.cat([part @ values for part in self._parts(self.counts)])
        correct, loss, known = sums.unbind(dim=1)
        metrics = {"accuracy": correct / known, "loss": loss / known}
        if labels.dim() == 2:
            areas = torch.stack([self._auc(logits[:, k], labels[:, k]) for k in range(labels.shape[1])])
            metrics["auc"] = areas.nanmean(dim=0)
        return {name: value.cpu().numpy() for name, value in metrics.items()}

    def _auc(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Chance that a positive example scores above a negative one, a tie counting half; (num_resamples,)."""
        known = targets >= 0
        scores, targets, counts = scores[known], targets[known], self.counts[:, known]
        if len(scores) == 0 or not bool(scores.isfinite().all()):
            return torch.full_like(self.counts[:, 0], torch.nan, dtype=torch.float64)
        order = scores.argsort(stable=True)
        scores, counts, is_positive = scores[order], counts[:, order], targets[order] > 0
        negative = scores[~is_positive].contiguous()
        places = [
            torch.searchsorted(negative, scores[is_positive].contiguous(), right=right) for right in (False, True)
        ]
        areas = []
        for part in self._parts(counts):
            # Sums of whole numbers and halves, which are exact in any order.
            below = torch.nn.functional.pad(part[:, ~is_positive].cumsum(dim=1), (1, 0))
            positive, total = part[:, is_positive], below[:, -1]
            pairs = (positive * (below[:, places[0]] + below[:, places[1]]) / 2).sum(dim=1)
            areas.append(pairs / (positive.sum(dim=1) * total))
        return torch.cat(areas)

    def _parts(self, counts: Tensor) -> Iterator[Tensor]:
        """Some resamples after the other, in float64."""
        rows = max(1, VALUES_AT_ONCE // max(1, counts.shape[1]))
        return (part.double() for part in counts.split(rows))
