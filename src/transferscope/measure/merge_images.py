"""The images of all tasks of a merge: what a network scores on them, and training images for what needs some."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.analysis.evaluator import Batch, Batches, iterate
from transferscope.analysis.refitting import LinearClassifier, fit_classifier
from transferscope.experiment.options import MergingOptions
from transferscope.measure.bench import Bench, feed_of, stream
from transferscope.measure.judging import JudgedImages, inputs_of, labels_of, predict_both
from transferscope.measure.merge_table import MeasuredModel
from transferscope.measure.ways import ONE_PASS_BYTES
from transferscope.system.errors import UserError


class MergeImages:
    """Images that choose, that judge and that train, of one task or several.

    Args:
        known: The classes that the first candidate, `name`, was trained for, if it names them.
        channels: Of the images that networks see.
        head: The layer of networks that classifies, whose inputs are features; None where there is none.

    Raises UserError for no task, and for tasks of different classes or of another number of labels per image.
    """

    def __init__(
        self,
        benches: Sequence[Bench],
        options: MergingOptions,
        channels: int,
        head: str | None,
        known: tuple[str, ...],
        name: str,
    ) -> None:
        self.options, self.head, self.channels = options, head, channels
        self.tasks = [JudgedImages(bench, options, channels) for bench in benches]
        self.by_task = {one.task: one for one in self.tasks}
        self._check_classes(known, name)

    def _check_classes(self, known: tuple[str, ...], name: str) -> None:
        if not self.tasks:
            raise UserError("there are no images to judge a merge by: give a bench with test images")
        kinds = {one.multi_label: one.task for one in reversed(self.tasks)}
        if len(kinds) > 1:
            raise UserError(
                f"images of {kinds[False]} have one label each and those of {kinds[True]} several: judge a merge on "
                "tasks of one kind"
            )
        classes = {one.task: tuple(one.bench.split("test").class_names) for one in self.tasks}
        first, names = next(iter(classes.items()))
        for task, other in classes.items():
            if other != names:
                raise UserError(f"{first} and {task} have different classes: judge a merge on tasks of the same ones")
        if known and known != names:
            raise UserError(f"{name} was trained for other classes than those of {first}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the images that judge."""
        return tuple(self.tasks[0].judge_split.class_names)

    # Training images.

    def all_training(self, what: str, limit: int) -> Batches:
        """Training images of all tasks, one task after the other, for which `what` asks."""
        splits = [one.train(limit, what) for one in self.tasks]
        channels = self.channels

        def made() -> Iterator[Batch]:
            for split in splits:
                yield from stream(feed_of(split), channels)

        return made

    def training_of(self, task: str | None, what: str, limit: int) -> Batches:
        """Training images of a task, or of all where there is none of that name."""
        own = self.by_task.get(task or "")
        if own is None:
            return self.all_training(what, limit)
        split = own.train(limit, what)
        return lambda: stream(feed_of(split), own.channels)

    def in_one_batch(self, given: Batches) -> Batches:
        """The same images, in one batch where they are small: statistics of channels then need a single pass."""
        side = self.tasks[0].judge_split.pictures.seen_size
        count = len(self.tasks) * self.options.statistics
        if count * 4 * self.channels * side**2 > ONE_PASS_BYTES:
            return given
        inputs, labels = zip(*iterate(given), strict=True)
        return [(torch.cat(inputs), torch.cat(labels))]

    # Scores.

    def choice(self, network: nn.Module) -> tuple[float, list[Tensor]]:
        """Mean of the main metric over the tasks on the choosing images, and the logits."""
        of_tasks, scores = [], []
        for one in self.tasks:
            logits, labels, _ = predict_both(network, one.choice)
            scores.append(one.score(logits, labels))
            of_tasks.append(logits)
        return float(np.mean(scores)), of_tasks

    def measured(
        self, network: nn.Module, model: str, kind: str, setting: str, choice: float
    ) -> tuple[MeasuredModel, list[Tensor]]:
        """The entry of a network, and its logits of the judging images of each task."""
        classifier = self._refit(network)
        outcomes, refitted, kept = {}, {}, []
        for one in self.tasks:
            logits, labels, again = predict_both(network, one.judge, self.head, classifier)
            outcomes[one.task] = one.outcome(logits, labels)
            refitted[one.task] = math.nan if again is None else one.score(again, labels)
            kept.append(logits)
        return MeasuredModel(model, kind, setting, choice, outcomes, refitted), kept

    def _refit(self, network: nn.Module) -> LinearClassifier | None:
        """A classifier fitted to the features of training images of all tasks, where there are such."""
        if self.head is None or any("train" not in one.bench.splits for one in self.tasks):
            return None
        features, labels = [], []
        with inputs_of(network, self.head) as seen, torch.inference_mode():
            for inputs, targets in iterate(self.all_training("the refitted classifier", self.options.statistics)):
                network(inputs)
                features.append(seen.pop().flatten(1).cpu())
                labels.append(targets.cpu())
        first = self.tasks[0]
        return fit_classifier(
            torch.cat(features).numpy(), torch.cat(labels).numpy(), first.num_classes, multi_label=first.multi_label
        )

    def ensemble(self, choosing: Sequence[Tensor], judging: Sequence[Tensor], setting: str) -> MeasuredModel:
        """The entry of networks whose logits, on the images of each task that choose and that judge, were added."""
        scores = [
            one.score(logits, labels_of(one.choice_split)) for one, logits in zip(self.tasks, choosing, strict=True)
        ]
        outcomes = {
            one.task: one.outcome(logits, labels_of(one.judge_split))
            for one, logits in zip(self.tasks, judging, strict=True)
        }
        none = dict.fromkeys(outcomes, math.nan)
        return MeasuredModel("ensemble", "ensemble", setting, float(np.mean(scores)), outcomes, none)
