"""Images that choose and images that judge: a task's examples in two parts, and what models make of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transferscope.analysis.evaluator import Batches, iterate, per_example
from transferscope.analysis.intervals import paired_difference_interval, rate_interval
from transferscope.analysis.refitting import LinearClassifier
from transferscope.analysis.resampling import Resampling
from transferscope.experiment.options import MergingOptions
from transferscope.experiment.seeds import derive_seed
from transferscope.images.split import PackedSplit
from transferscope.measure.bench import Bench, batches, subset
from transferscope.system.errors import UserError
from transferscope.training.evaluation import metrics_from_logits


@dataclass(frozen=True)
class Outcome:
    """The judging images of a task under a model: right or wrong of each, or the AUC on all and under resamples."""

    values: NDArray[np.float64]
    multi_label: bool

    @property
    def interval(self) -> tuple[float, float, float]:
        """The metric with its 95 % interval."""
        if self.multi_label:
            return _percentiles(self.values)
        low, high = rate_interval(self.values.sum(), len(self.values))
        return float(self.values.mean()), float(low), float(high)

    def minus(self, other: Outcome) -> tuple[float, float, float]:
        """The difference to another model on the same images, with its interval."""
        if self.multi_label:
            return _percentiles(self.values - other.values)
        gained = float(((self.values > 0) & (other.values == 0)).sum())
        lost = float(((self.values == 0) & (other.values > 0)).sum())
        low, high = paired_difference_interval(gained, lost, len(self.values))
        return (gained - lost) / len(self.values), float(low), float(high)


def _percentiles(draws: NDArray[np.float64]) -> tuple[float, float, float]:
    if not np.isfinite(draws).all():
        return float(draws[0]), math.nan, math.nan
    low, high = np.percentile(draws[1:], [2.5, 97.5])
    return float(draws[0]), float(low), float(high)


def mean_interval_of_tasks(intervals: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The mean of independent estimates, each (value, low, high), with the interval that follows from theirs.

    Squares of the distances from each estimate to its bounds add up (MOVER; Zou and Donner 2008).
    """
    values = np.array(intervals, dtype=float)
    mean = values[:, 0].mean()
    down, up = (np.sqrt(((values[:, 0] - values[:, end]) ** 2).sum()) / len(values) for end in (1, 2))
    return float(mean), float(mean - down), float(mean + up)


class JudgedImages:
    """A task's images: those that choose, those that judge, and training images.

    Raises UserError for fewer test images than it takes for both.
    """

    def __init__(self, bench: Bench, options: MergingOptions, channels: int) -> None:
        self.bench, self.task, self.channels, self.options = bench, bench.task, channels, options
        test = bench.split("test")
        self.multi_label, self.num_classes = test.multi_label, test.num_classes
        if "validation" in bench.splits:
            self.choice_split, self.judge_split = bench.split("validation"), test
        else:
            order = np.random.default_rng(derive_seed(test.name, "merging", "choice")).permutation(len(test))
            count = round(options.choice * len(test))
            if count < 1 or count >= len(test):
                raise UserError(
                    f"{bench.task} has {len(test)} test images: too few for some that choose and others that judge"
                )
            self.choice_split, self.judge_split = (
                test.subset(np.sort(part)) for part in (order[:count], order[count:])
            )

    @cached_property
    def choice(self) -> Batches:
        """Network inputs and labels of the choosing images."""
        return batches(self.choice_split, self.channels)

    @cached_property
    def judge(self) -> Batches:
        """Those of the judging images."""
        return batches(self.judge_split, self.channels)

    @cached_property
    def resampling(self) -> Resampling:
        """Resamples of the judging images."""
        split = self.judge_split
        return Resampling(len(split), self.options.resamples, derive_seed(split.name, "merging", "resampling"))

    def train(self, limit: int, what: str) -> PackedSplit:
        """Training images, for which `what` asks."""
        if "train" not in self.bench.splits:
            raise UserError(f'{what} needs training images of {self.task}: give the bench\'s splits some as "train"')
        return subset(self.bench.split("train"), limit, "merging", what)

    def outcome(self, logits: Tensor, labels: Tensor) -> Outcome:
        """Of logits of the judging images."""
        if not self.multi_label:
            correct, _, _ = per_example(logits, labels)
            return Outcome(correct.cpu().numpy(), False)
        value = metrics_from_logits(logits, labels, multi_label=True)["auc"]
        return Outcome(np.concatenate([[value], self.resampling.metrics(logits, labels)["auc"]]), True)

    def score(self, logits: Tensor, labels: Tensor) -> float:
        """The main metric."""
        return metrics_from_logits(logits, labels, multi_label=self.multi_label)[self.metric]

    @property
    def metric(self) -> str:
        """The metric that the task is judged by."""
        return "auc" if self.multi_label else "accuracy"


def labels_of(split: PackedSplit) -> Tensor:
    """The labels of a split, in its order."""
    return torch.as_tensor(np.asarray(split.labels))


@contextmanager
def inputs_of(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """A list to which each call of a layer adds its input."""
    seen: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


@torch.inference_mode()
def predict_both(
    network: nn.Module, images: Batches, head: str | None = None, classifier: LinearClassifier | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits and labels, and the logits of another classifier on the same features, all on the CPU."""
    network.eval()
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    again: list[Tensor] = []
    watching: AbstractContextManager[list[Tensor]] = nullcontext([])
    if head and classifier:
        watching = inputs_of(network, head)
    with watching as seen:
        for inputs, targets in iterate(images):
            logits.append(network(inputs).float().cpu())
            labels.append(targets.cpu())
            if classifier is not None and seen:
                again.append(torch.from_numpy(classifier.logits(seen.pop().flatten(1).cpu().numpy())))
    return torch.cat(logits), torch.cat(labels), torch.cat(again) if again else None
