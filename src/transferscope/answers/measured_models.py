"""Measure models that were given: every pair, their features, and their average, as the tables of a study."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
from torch import Tensor

from transferscope.answers.answer import ONE_TASK
from transferscope.answers.compared import final_of
from transferscope.answers.given_models import GivenModel
from transferscope.answers.score import Score, score_of
from transferscope.claims.merging import with_verdicts
from transferscope.experiment.options import AnalysesOptions, LandscapeOptions, MistakesOptions
from transferscope.experiment.pairs import pair_kind
from transferscope.experiment.seeds import derive_seed
from transferscope.images.auto_size import LARGEST
from transferscope.images.split import PackedSplit
from transferscope.images.summary import label_counts
from transferscope.measure.bench import Bench, network
from transferscope.measure.connection import connect
from transferscope.measure.criticalities import modules_of
from transferscope.measure.identities import identity
from transferscope.measure.lines import line
from transferscope.measure.merging import Merging, merge
from transferscope.measure.predictions import mistakes, predict
from transferscope.measure.replacements import replacement
from transferscope.measure.similarity import cka
from transferscope.measure.weights import distance
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.image_input import common_side
from transferscope.system.errors import UserError
from transferscope.training.evaluation import metrics_from_logits

log = logging.getLogger(__name__)

MERGE = "average"

Pair = tuple[str, str]
Named = Iterator[tuple[str, pd.DataFrame]]
"""Tables with their names."""


@dataclass(frozen=True)
class MeasuredModels:
    """Models by the name of their run on a task, and what is measured on its test and train images.

    Without splits only weights are measured.
    """

    models: Mapping[str, GivenModel]
    splits: Mapping[str, PackedSplit]
    options: AnalysesOptions
    pairs: Sequence[Pair]
    task: str = ONE_TASK
    """Its name in tables and seeds."""
    store: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """Results that several measurements share."""

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of every pair by name, then those of the features of all models."""
        parts: dict[str, list[pd.DataFrame]] = {}
        for pair in self.pairs:
            for name, table in self._pair(pair):
                parts.setdefault(name, []).append(self._with_names(pair, table))
        tables = {name: pd.concat(of_pairs, ignore_index=True) for name, of_pairs in parts.items()}
        return tables | self._features()

    def _pair(self, pair: Pair) -> Named:
        a, b = self._checkpoints(pair)
        bench = self.bench() if self.splits else None
        side = None if bench is not None else self._side(pair)
        same = identity(a, b, self.options.modules, bench=bench, side=side)
        yield "identity", same.summary
        if len(same.matched):
            yield "aligned_distances", same.matched
        comparable = bool(same.summary["comparable"].iloc[0])
        if comparable and self.options.similarity is not None:
            yield "distances", distance(a, b, self.options.modules)
        if self.splits and self.options.mistakes is not None:
            yield from self._mistakes(pair, self.options.mistakes)
        if self.splits and comparable and self.options.landscape is not None:
            yield from self._ways(pair, self.options.landscape)

    def _mistakes(self, pair: Pair, options: MistakesOptions) -> Named:
        test = self.splits["test"]
        first, second = (self._logits[run] for run in pair)
        if first.shape != second.shape:
            log.warning("%s: no mistakes are compared, for the outputs differ in number", self._kind(pair))
            return
        seeds = {name: derive_seed(*map(final_of, pair), name) for name in ("bootstrap", "replacement")}
        yield "mistakes", mistakes(test, first, second, resamples=options.bootstrap, seed=seeds["bootstrap"])
        if options.replace is not None:
            whole, flips = replacement(test, first, second, options.replace, seed=seeds["replacement"])
            yield "replacement", whole
            yield "flips", flips

    def _ways(self, pair: Pair, options: LandscapeOptions) -> Named:
        a, b = self._checkpoints(pair)
        name = self._kind(pair)
        outside = options.extrapolation.outside() if options.extrapolation else []
        try:
            bench = self.bench(options.max_examples, options.resamples)
            points, barriers = line(
                bench,
                a,
                b,
                options.alphas_for(self.task),
                outside=outside,
                until_decided=options.until_decided,
                name=name,
            )
            yield "interpolation", points
            yield "barriers", barriers
            if options.connection is not None:
                modules = modules_of(a, self.options.modules)
                bench = self.bench(resamples=options.resamples)
                connection = connect(bench, a, b, options=options.connection, modules=modules, name=name)
                yield "connection_points", connection.points
                yield "connection", connection.barriers
                yield "connection_modules", connection.modules
        except UserError as error:
            log.warning("%s: no way between these two: %s", name, error)

    def _features(self) -> dict[str, pd.DataFrame]:
        """The tables of `cka`, of all models in one pass."""
        if not self.splits or self.options.similarity is None:
            return {}
        checkpoints = {final_of(run): one.checkpoint for run, one in self.models.items()}
        kinds = {(final_of(a), final_of(b)): self._kind((a, b)) for a, b in self.pairs}
        try:
            tables = cka(self.bench(), checkpoints, kinds, self.options.similarity)
            return {name: table.assign(task=self.task) for name, table in tables.items()}
        except UserError as error:
            log.warning("features are not compared: %s", error)
            return {}

    def scores(self) -> dict[str, Score]:
        """The main metric of each compared model on all test images, by run; none without images."""
        if not self.splits:
            return {}
        test = self.splits["test"]
        sizes, metric = label_counts([test]).assign(part="test"), "auc" if test.multi_label else "accuracy"
        scores = {}
        for run, logits in self._logits.items():
            found = metrics_from_logits(logits, test.labels, multi_label=test.multi_label)
            scores[run] = score_of(found[metric], found["loss"], sizes, metric, len(test))
        return scores

    @property
    def networks(self) -> set[tuple[str | None, str]]:
        """The different architectures."""
        known = [one.checkpoint.metadata for one in self.models.values()]
        return {(one.architecture, str(one.model_options)) for one in known}

    def bench(self, max_examples: int | None = None, resamples: int = 0) -> Bench:
        """The task's images, at most so many of each part."""
        return Bench(self.splits, self.store, self.options.precision, resamples).limited(max_examples)

    @cached_property
    def _logits(self) -> dict[str, Tensor]:
        """Outputs on test images by run."""
        compared = {run for pair in self.pairs for run in pair}
        return {run: predict(self.bench(), self.models[run].checkpoint) for run in self.models if run in compared}

    def _checkpoints(self, pair: Pair) -> tuple[Checkpoint, Checkpoint]:
        return self.models[pair[0]].checkpoint, self.models[pair[1]].checkpoint

    def _kind(self, pair: Pair) -> str:
        return pair_kind(*(self.models[run].label for run in pair))

    def _with_names(self, pair: Pair, table: pd.DataFrame) -> pd.DataFrame:
        """A table of a pair with the columns that name it, as a study has them."""
        names = {"pair_kind": self._kind(pair), "checkpoint_a": final_of(pair[0]), "checkpoint_b": final_of(pair[1])}
        columns = [column for column in table.columns if column not in ("task", *names)]
        return table[columns].assign(task=self.task, **names)[["task", *names, *columns]]

    def _side(self, pair: Pair) -> int:
        """Of noise images, in pixels: as a network demands, or the first that both take."""
        demanded = [side for run in pair if (side := self.models[run].side) is not None]
        return common_side(map(network, self._checkpoints(pair)), demanded) or LARGEST


def merged(tasks: Sequence[MeasuredModels]) -> Merging | None:
    """Merge the models and judge on all tasks with images; None without such or options, and where that cannot be."""
    judged = [one for one in tasks if one.splits]
    first = judged[0] if judged else None
    if first is None or first.options.merging is None or len(first.networks) > 1:
        return None
    benches = {one.task: one.bench() for one in judged}
    candidates = {final_of(run): one.checkpoint for run, one in first.models.items()}
    try:
        return merge(benches, candidates, first.options.merging, methods=first.options.merging.methods)
    except UserError as error:
        log.warning("nothing is merged: %s", error)
        return None


def merging_table(merging: Merging, models: Mapping[str, GivenModel]) -> pd.DataFrame:
    """The table `merging` of a study."""
    label = " & ".join(one.label for one in models.values())
    table = with_verdicts(merging.table).assign(merge=MERGE, label=label)
    return table[["merge", "label", *table.columns.drop(["merge", "label"])]]
