"""Metrics under resamples of the examples: intervals for anything that several models measure on the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transferscope.analysis.device_resamples import DeviceResamples
from transferscope.analysis.evaluator import per_example

Draws = NDArray[np.float64]

VALUES_AT_ONCE = 1 << 15
"""Products that are made at once: 256 KiB, which stay in a core's cache."""


@dataclass(frozen=True)
class Outcomes:
    """Results of a model on each example, so that metrics of any of them follow: all float64 (num_examples,).

    correct, known: number of right and of known labels, 0 or 1 where an example has one label. loss: in nats, summed
    over labels. scores, targets: logits and labels, (num_examples, num_classes), where an example has several labels.
    """

    correct: Draws
    loss: Draws
    known: Draws
    scores: Draws | None = None
    targets: NDArray[np.int8] | None = None

    @classmethod
    def of_logits(cls, logits: Tensor, labels: Tensor) -> Outcomes:
        """logits: (num_examples, num_classes); labels as in `evaluation.Batch`."""
        correct, loss, known = (
            (values if values.dim() == 1 else values.sum(dim=1)).cpu().numpy()
            for values in per_example(logits.double(), labels)
        )
        if labels.dim() == 1:
            return cls(correct, loss, known)
        return cls(correct, loss, known, logits.double().cpu().numpy(), labels.cpu().numpy())

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> Outcomes:
        """The inverse of `arrays`."""
        targets = arrays.get("targets")
        return cls(
            arrays["correct"],
            arrays["loss"],
            arrays["known"],
            arrays.get("scores"),
            None if targets is None else np.nan_to_num(targets, nan=-1).astype(np.int8),
        )

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """By name, without what is missing, as measurements are remembered."""
        return {name: np.asarray(value, dtype=float) for name, value in vars(self).items() if value is not None}


class Resampling:
    """The same bootstrap resamples for every model, so that differences between models are paired.

    A resample is a vector of counts, how often each example is drawn, and a metric under it a weighted metric: what a
    model leaves behind is one number a resample, however many examples there are.
    """

    def __init__(self, num_examples: int, num_resamples: int, seed: int) -> None:
        even = np.full(num_examples, 1 / max(num_examples, 1))
        drawn = np.random.default_rng(seed).multinomial(num_examples, even, num_resamples)
        self.counts = drawn.astype(np.float32)
        self._on_device: dict[torch.device, DeviceResamples] = {}

    @classmethod
    def everything(cls, num_examples: int) -> Resampling:
        """One sample that has every example once: its metrics are those on all examples."""
        sample = cls(num_examples, 0, 0)
        sample.counts = np.ones((1, num_examples), dtype=np.float32)
        return sample

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, Draws]:
        """accuracy and loss, and for several labels an example auc, each (num_resamples,).

        logits: (num_examples, num_classes); labels as in `evaluation.Batch`. The AUC of a class in which a resample
        has one value only is left out of that resample's mean. Non-finite logits make loss and AUC NaN. Logits on a GPU
        are resampled there; sums then differ from those of the CPU by rounding.
        """
        if logits.device.type == "cpu":
            return self.of(Outcomes.of_logits(logits, labels))
        if logits.device not in self._on_device:
            self._on_device[logits.device] = DeviceResamples(torch.from_numpy(self.counts).to(logits.device))
        return self._on_device[logits.device].metrics(logits, labels)

    def of(self, outcomes: Outcomes) -> dict[str, Draws]:
        """The same of what a model made of each example."""
        # Sums, not a matrix product, which rounds otherwise with another number of BLAS threads.
        columns = outcomes.correct, outcomes.loss, outcomes.known
        parts = [np.stack([(part * values).sum(axis=1) for values in columns], axis=1) for part in self._parts()]
        sums = np.concatenate(parts) if parts else np.zeros((0, len(columns)))
        with np.errstate(invalid="ignore", divide="ignore"):
            metrics = {"accuracy": sums[:, 0] / sums[:, 2], "loss": sums[:, 1] / sums[:, 2]}
        if outcomes.scores is None or outcomes.targets is None:
            return metrics
        return metrics | {"auc": self._mean_auc(outcomes.scores, outcomes.targets)}

    def _parts(self) -> Iterator[Draws]:
        """Some resamples after the other."""
        rows = max(1, VALUES_AT_ONCE // max(1, self.counts.shape[1]))
        return (self.counts[start : start + rows].astype(np.float64) for start in range(0, len(self.counts), rows))

    def _mean_auc(self, scores: Draws, targets: NDArray[np.int8]) -> Draws:
        areas = np.stack([self._auc(scores[:, k], targets[:, k]) for k in range(targets.shape[1])])
        defined = ~np.isnan(areas)
        with np.errstate(invalid="ignore"):
            return np.where(defined, areas, 0).sum(axis=0) / defined.sum(axis=0)

    def _auc(self, scores: Draws, targets: NDArray[np.int8]) -> Draws:
        """Chance that a positive example scores above a negative one, a tie counting half."""
        rows = np.flatnonzero(targets >= 0)
        if len(rows) == 0 or not np.isfinite(scores[rows]).all():
            return np.full(len(self.counts), np.nan)
        rows = rows[np.argsort(scores[rows], kind="stable")]
        is_positive = targets[rows] > 0
        ordered = scores[rows][~is_positive]
        first, last = (np.searchsorted(ordered, scores[rows][is_positive], side) for side in ("left", "right"))
        areas = []
        for part in self._parts():
            # Sums of whole numbers and halves, which are exact in any order.
            positive = part[:, rows[is_positive]]
            total = np.zeros((len(part), len(ordered) + 1))
            np.cumsum(part[:, rows[~is_positive]], axis=1, out=total[:, 1:])
            below = total[:, first] if np.array_equal(first, last) else (total[:, first] + total[:, last]) / 2
            with np.errstate(invalid="ignore"):
                areas.append(np.einsum("ij,ij->i", positive, below) / (positive.sum(axis=1) * total[:, -1]))
        return np.concatenate(areas) if areas else np.zeros(0)


def with_draws(metrics: dict[str, float], draws: dict[str, Draws]) -> dict[str, Draws]:
    """Each metric as (1 + num_resamples,): on the examples themselves, then under every resample."""
    return {name: np.concatenate([[value], draws[name]]) for name, value in metrics.items()}
