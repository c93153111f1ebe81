"""The one way in which models are measured: on packed splits, resampled, remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.analysis.batchnorm import batchnorm_layers, with_recomputed_statistics
from transferscope.analysis.evaluator import Batch, Evaluate, Evaluator, Metrics, Remembered, Store, prepare
from transferscope.analysis.resampling import Outcomes, Resampling, with_draws
from transferscope.experiment.options import Precision
from transferscope.experiment.seeds import derive_seed
from transferscope.images.feed import Feed
from transferscope.images.seen_images import NETWORK_CHANNELS, EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.layers import image_channels
from transferscope.models.parametrised import analysed_model
from transferscope.models.precision import analyses_precision
from transferscope.system.errors import UserError
from transferscope.training.device import choose_device
from transferscope.training.evaluation import metrics_from_logits

VERSION = 1
"""To be raised when a metric changes its meaning: what was remembered before is then measured anew."""
METRICS = ("accuracy", "loss", "auc")
RESIDENT_BYTES = 1 << 30


@dataclass(frozen=True)
class Bench:
    """Examples, memory of results, precision and resamples with which models are measured.

    With one, each function of `transferscope.measure` takes checkpoints and gives tables:

        bench = Bench({"train": train, "test": test}, resamples=300)
        points, barriers = line(bench, first, second)
    """

    splits: Mapping[str, PackedSplit]
    """Examples by part of the task, "train" and "test".

    Networks with BatchNorm layers get their statistics from "train" at every point between checkpoints.
    """
    store: Store = field(default_factory=dict[str, dict[str, Any]])
    """Results by content: with a store on disk nothing is measured twice."""
    precision: Precision = "float32"
    """Of the forward passes; BatchNorm's statistics are recomputed in float32. auto is settled by the device."""
    resamples: int = 0
    """With any, each metric is an array, first that on all examples and then those under resamples of them."""
    compiled: bool = False
    """True if torch compiles the networks of lines, planes, basins, criticality and CKA; values differ by rounding."""

    def __post_init__(self) -> None:
        if self.precision == "auto":  # results are remembered by what was computed
            object.__setattr__(self, "precision", analyses_precision("auto", choose_device(None)))

    @property
    def task(self) -> str:
        """Name of the task that the examples belong to."""
        return next(iter(self.splits.values())).name

    def split(self, part: str) -> PackedSplit:
        """Examples of a part. Raises UserError that names the parts that are there."""
        if part not in self.splits:
            raise UserError(f"the bench has no {part} images, only {', '.join(self.splits)}: add splits['{part}']")
        return self.splits[part]

    def limited(self, max_examples: int | None) -> Bench:
        """At most so many examples of each part, drawn once, so that all points and models see the same."""
        return replace(self, splits={part: subset(split, max_examples, part) for part, split in self.splits.items()})

    def key(self, checkpoint: Checkpoint, *measured: object) -> str:
        """Name what is measured of models of an architecture, besides their weights; splits count by content."""
        metadata = checkpoint.metadata
        computed = [self.precision, "compiled"] if self.compiled else [self.precision]
        architecture = json.dumps([VERSION, metadata.architecture, metadata.model_options, *computed], sort_keys=True)
        return json.dumps([architecture, *(getattr(item, "digest", item) for item in measured)])

    def metrics(self, checkpoint: Checkpoint, parts: Iterable[str] | None = None, *, each: bool = False) -> Evaluate:
        """Measure models of the checkpoint's architecture as they are, `part/metric -> value`, on all or some parts."""
        measures = {part: self._remembered(checkpoint, self.split(part), each) for part in parts or self.splits}

        def measure(model: nn.Module) -> Metrics:
            return {
                f"{part}/{metric}": value
                for part, evaluate in measures.items()
                for metric, value in evaluate(model).items()
            }

        return measure

    def along(
        self, checkpoint: Checkpoint, model: nn.Module, parts: Iterable[str] | None = None, *, each: bool = False
    ) -> Evaluate:
        """Measure all points of a line, a plane or a hull: BatchNorm's statistics are recomputed first.

        `naive_` metrics, with the statistics that the model holds, stand beside it. The checkpoints themselves are
        measured in the same way, so that a difference between points is one of weights. each: what the model makes of
        each example (`resampling.Outcomes.arrays`) instead of metrics.
        """
        parts = list(parts or self.splits)
        plain = self.metrics(checkpoint, parts, each=each)
        if not batchnorm_layers(model):
            return plain
        examples, channels = self.split("train"), image_channels(model)
        # `batches` is asked for only where something is not remembered.
        both = with_recomputed_statistics(plain, lambda: stream(feed_of(examples), channels))
        measured = [self.splits[part] for part in parts]
        of = "each example" if each else self.resamples
        return Remembered(both, self.store, self.key(checkpoint, "recomputed on", examples, *measured, of))

    def resampling(self, split: PackedSplit) -> Resampling:
        """The resamples under which models are measured on the examples of a split."""
        return Resampling(len(split), self.resamples, derive_seed(split.name, split.part, "resampling"))

    def _remembered(self, checkpoint: Checkpoint, split: PackedSplit, each: bool) -> Evaluate:
        evaluate = SplitEvaluator(split, self.resamples, self.precision, each=each, compiled=self.compiled)
        of = "each example" if each else self.resamples
        return Remembered(evaluate, self.store, self.key(checkpoint, split, of))


class SplitEvaluator:
    """Metrics of a model on a split; its images are prepared once for all models, when the first is measured."""

    def __init__(
        self, split: PackedSplit, resamples: int, precision: Precision, *, each: bool = False, compiled: bool = False
    ) -> None:
        self.split, self.resamples, self.precision = split, resamples, precision
        self.each, self.compiled = each, compiled
        self._evaluator: Evaluator | None = None

    def __call__(self, model: nn.Module) -> Metrics:
        if self._evaluator is None:
            inputs = batches(self.split, image_channels(model))
            self._evaluator = Evaluator(inputs, self._metrics, precision=self.precision, compiled=self.compiled)
        return self._evaluator(model)

    @cached_property
    def _resampling(self) -> Resampling:
        seed = derive_seed(self.split.name, self.split.part, "resampling")
        return Resampling(len(self.split), self.resamples, seed)

    def _metrics(self, logits: Tensor, labels: Tensor) -> Metrics:
        if self.each:
            return Outcomes.of_logits(logits, labels).arrays()
        metrics = metrics_from_logits(logits, labels, multi_label=self.split.multi_label)
        chosen = {name: value for name, value in metrics.items() if name in METRICS}
        return with_draws(chosen, self._resampling.metrics(logits, labels)) if self.resamples else chosen


def workspace(checkpoint: Checkpoint) -> nn.Module:
    """The checkpoint's model with its weights, of plain layers, which may be overwritten.

    It is on the GPU that was granted to this node, else on the CPU.
    """
    return prepare(analysed_model(checkpoint), choose_device(None))


def network(checkpoint: Checkpoint) -> nn.Module:
    """The checkpoint's own network, on the GPU that was granted to this node, else on the CPU."""
    return prepare(checkpoint.build(), choose_device(None))


def batches(split: PackedSplit, channels: int = NETWORK_CHANNELS) -> list[Batch] | Callable[[], Iterator[Batch]]:
    """Network inputs and labels where the `workspace` is: kept if they take less than a GiB, else made for every pass.

    The packed images of a large split stay on a GPU that has room for them.
    """
    side = split.pictures.seen_size
    feed = feed_of(split)
    if len(split) * channels * side * side * 4 < RESIDENT_BYTES:
        return list(stream(feed, channels))
    return lambda: stream(feed, channels)


def feed_of(split: PackedSplit, *, keep_resident: bool = True) -> Feed:
    """The split's packed images, batch by batch, where the `workspace` is."""
    return Feed(split, choose_device(None), keep_resident=keep_resident)


def inputs(feed: Feed, rows: Iterable[np.ndarray], channels: int = NETWORK_CHANNELS) -> Iterator[Tensor]:
    """Network inputs of the examples `rows`, a batch for each array of them."""
    transform = EvaluationTransform(feed.split.pictures, channels)
    return (transform(images) for images in feed.batches(rows))


def stream(feed: Feed, channels: int = NETWORK_CHANNELS, *, size: int = 128) -> Iterator[Batch]:
    """Network inputs and labels of a whole split, made batch by batch from the packed images.

    A last batch of one image goes with the one before: BatchNorm cannot take statistics of one value.
    """
    labels = torch.as_tensor(np.asarray(feed.split.labels)).to(feed.device)
    parts = np.array_split(np.arange(len(feed.split)), range(size, len(feed.split) - 1, size))
    for part, images in zip(parts, inputs(feed, parts, channels), strict=True):
        yield images.contiguous(memory_format=torch.channels_last), labels[part[0] : part[-1] + 1]


def subset(split: PackedSplit, limit: int | None, *seed: object) -> PackedSplit:
    """At most `limit` examples, drawn once per split so that all points and models see the same."""
    if limit is None or len(split) <= limit:
        return split
    generator = np.random.default_rng(derive_seed(split.name, *seed))
    return split.subset(np.sort(generator.choice(len(split), limit, replace=False)))
