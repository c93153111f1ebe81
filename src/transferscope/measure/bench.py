"""The one way in which landscape measures a model: on packed splits, resampled, remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.analysis.batchnorm import batchnorm_layers, with_recomputed_statistics
from transferscope.analysis.evaluation import Batch, Evaluate, Evaluator, Metrics, Remembered, Store, prepare
from transferscope.analysis.resampling import Resampling, with_draws
from transferscope.experiment.options import Precision
from transferscope.experiment.plan import derive_seed
from transferscope.images.augment import NETWORK_CHANNELS, EvaluationTransform
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.layers import image_channels
from transferscope.models.parametrised import analysed_model
from transferscope.training.device import choose_device
from transferscope.training.feed import Feed
from transferscope.training.metrics import metrics_from_logits

VERSION = 1
"""To be raised when a metric changes its meaning: what was remembered before is then measured anew."""
METRICS = ("accuracy", "loss", "auc")
RESIDENT_BYTES = 1 << 30


class Engine:
    """Measures models of one architecture on some parts of a task, `part/metric -> value`.

    splits: part ("train", "test") -> examples. store: where measurements are remembered by content. resamples: with
    any, each value is an array, the metric on all examples first and then under every resample of them. precision: of
    the forward passes; BatchNorm's statistics are recomputed in float32.
    recompute_on: training examples on which models with BatchNorm layers get their statistics anew at every point.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        splits: dict[str, Any],
        store: Store,
        *,
        precision: Precision = "float32",
        resamples: int = 0,
        recompute_on: Any = None,
    ) -> None:
        metadata = checkpoint.metadata
        self.architecture = json.dumps(
            [VERSION, metadata.architecture, metadata.model_options, precision], sort_keys=True
        )
        self.store = store
        self._parts = {part: self._remember(split, resamples, precision) for part, split in splits.items()}
        self._recompute_on = recompute_on
        self._splits, self._resamples = splits, resamples

    def _remember(self, split: Any, resamples: int, precision: Precision) -> Evaluate:
        return Remembered(SplitEvaluator(split, resamples, precision), self.store, self.context(split, resamples))

    def context(self, *what: Any) -> str:
        """What is measured on what, besides the weights."""
        return json.dumps([self.architecture, *(getattr(item, "digest", item) for item in what)])

    def checkpoint(self, model: nn.Module) -> Metrics:
        """The metrics of the weights and statistics that the model holds."""
        return {
            f"{part}/{metric}": value
            for part, measure in self._parts.items()
            for metric, value in measure(model).items()
        }

    def along(self, model: nn.Module) -> Evaluate:
        """The measure for all points of a line, a plane or a hull: BatchNorm's statistics are recomputed first.

        `naive_` metrics, with the statistics that the model holds, stand beside it. The checkpoints themselves are
        measured in the same way, so that a difference between points is one of weights.
        """
        if not batchnorm_layers(model):
            return self.checkpoint
        examples, channels = self._recompute_on, image_channels(model)
        # `batches` is asked for only where something is not remembered.
        both = with_recomputed_statistics(self.checkpoint, lambda: stream(feed_of(examples), channels))
        what = self.context("recomputed on", examples, *self._splits.values(), self._resamples)
        return Remembered(both, self.store, what)


class SplitEvaluator:
    """Metrics of a model on a split; its images are prepared once for all models, when the first is measured."""

    def __init__(self, split: Any, resamples: int, precision: Precision) -> None:
        self.split, self.resamples, self.precision = split, resamples, precision
        self._evaluator: Evaluator | None = None

    def __call__(self, model: nn.Module) -> Metrics:
        if self._evaluator is None:
            inputs = batches(self.split, image_channels(model))
            self._evaluator = Evaluator(inputs, self._metrics, precision=self.precision)
        return self._evaluator(model)

    @cached_property
    def _resampling(self) -> Resampling:
        seed = derive_seed(self.split.name, self.split.part, "resampling")
        return Resampling(len(self.split), self.resamples, seed)

    def _metrics(self, logits: Tensor, labels: Tensor) -> Metrics:
        found = metrics_from_logits(logits, labels, multi_label=self.split.multi_label)
        chosen = {name: value for name, value in found.items() if name in METRICS}
        return with_draws(chosen, self._resampling.metrics(logits, labels)) if self.resamples else chosen


def workspace(checkpoint: Checkpoint) -> nn.Module:
    """A network of plain layers to write weights into, on the GPU that was granted to this step, else on the CPU."""
    return prepare(analysed_model(checkpoint), choose_device(None))


def batches(split: Any, channels: int = NETWORK_CHANNELS) -> list[Batch] | Callable[[], Iterator[Batch]]:
    """Network inputs and labels where the `workspace` is: kept if they take less than a GiB, else made for every pass.

    The packed images of a large split stay on a GPU that has room for them.
    """
    side = split.pictures.seen_size
    feed = feed_of(split)
    if len(split) * channels * side * side * 4 < RESIDENT_BYTES:
        return list(stream(feed, channels))
    return lambda: stream(feed, channels)


def feed_of(split: Any) -> Feed:
    """The split's packed images, batch by batch, where the `workspace` is."""
    return Feed(split, choose_device(None))


def stream(feed: Feed, channels: int = NETWORK_CHANNELS, *, size: int = 128) -> Iterator[Batch]:
    """The same, made batch by batch from the packed images.

    A last batch of one image goes with the one before: BatchNorm cannot take statistics of one value.
    """
    split = feed.split
    transform = EvaluationTransform(split.pictures, channels)
    labels = torch.as_tensor(np.asarray(split.labels)).to(feed.device)
    parts = np.array_split(np.arange(len(split)), range(size, len(split) - 1, size))
    for part, images in zip(parts, feed.batches(parts), strict=True):
        yield transform(images).contiguous(memory_format=torch.channels_last), labels[part[0] : part[-1] + 1]


def subset(split: Any, limit: int | None, *seed: object) -> Any:
    """At most `limit` examples, drawn once per split so that all points and models see the same."""
    if limit is None or len(split) <= limit:
        return split
    generator = np.random.default_rng(derive_seed(split.name, *seed))
    return split.subset(np.sort(generator.choice(len(split), limit, replace=False)))
