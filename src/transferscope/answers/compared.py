"""Models that are compared, with the tables that analyses have made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from transferscope.analysis.barriers import higher_is_better, learned_by
from transferscope.answers.score import Score, score_of
from transferscope.answers.wording import about, count, more_images
from transferscope.claims.evidence import CROSS_DOMAIN, Evidence, TaskResults, main_metric
from transferscope.claims.pair_rows import other_side
from transferscope.experiment.names import CheckpointName, RunName
from transferscope.experiment.options import BARRIER_MARGIN, ReplaceOptions
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import printed_names

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Model:
    """A model by its label, with where it comes from."""

    label: str
    file: str = ""
    architecture: str = ""

    def as_dict(self) -> dict[str, str]:
        """Plain values."""
        return {"label": self.label, "file": self.file, "architecture": self.architecture}


@dataclass(frozen=True)
class Pair:
    """Two of the models on a task, by the names of their runs."""

    first: str
    second: str

    @property
    def task(self) -> str:
        """The task on whose images the two are judged."""
        return RunName.parse(self.first).task

    @property
    def turned(self) -> Pair:
        """The same two in the other order."""
        return Pair(self.second, self.first)


@dataclass(frozen=True)
class TaskFacts:
    """Facts about a task on which models are compared."""

    chance: float = np.nan
    """The test metric of guessing."""
    loss_of_guessing: float = np.nan
    """The test loss of guessing, nats per example (and finding)."""
    figures: frozenset[str] = frozenset()
    """Names of the figures that were drawn."""
    has_images: bool = True


@dataclass(frozen=True)
class Compared:
    """Models on one task or on several, and the tables of `pipelines`, by name; what was not measured has none."""

    tasks: Mapping[str, TaskFacts]
    models: Mapping[str, Model]
    """By the name of the run, `images.a_1`, as tables name it before the sign @; a model is there once on each task."""
    tables: Mapping[str, pd.DataFrame]
    """Each with the rows of all tasks."""
    accepted_loss: float = ReplaceOptions().margin
    """Fall of accuracy with which one model still replaces another."""
    merged: Mapping[str, str] = field(default_factory=dict)
    """Files of merged weights by the name of the merge."""
    across: frozenset[str] = frozenset()
    """Names of the figures that were drawn of several tasks at once."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """Of each model on the test images of its task, by run; of one that is not there nothing is known."""

    @cached_property
    def pairs(self) -> list[Pair]:
        """The pairs on a task that some table compares, in order of the tasks and models."""
        names = list(self.models)
        known = set(names)
        pairs: dict[frozenset[str], Pair] = {}
        for name in PAIR_TABLES:
            for a, b in self._ends(name):
                if a != b and {a, b} <= known and Pair(a, b).task == Pair(b, a).task:
                    pairs.setdefault(frozenset((a, b)), Pair(a, b))
        order = {frozenset(pair): rank for rank, pair in enumerate(combinations(names, 2))}
        return sorted(pairs.values(), key=lambda pair: order[frozenset((pair.first, pair.second))])

    @property
    def pairs_of_weights(self) -> list[Pair]:
        """Of the pairs that differ only in the task the first one, since weights are the same on all."""
        return list({self.key(pair): pair for pair in reversed(self.pairs)}.values())[::-1]

    def key(self, pair: Pair) -> frozenset[Model]:
        """The two models, whatever the task and the order."""
        return frozenset((self.models[pair.first], self.models[pair.second]))

    @property
    def distinct(self) -> list[Model]:
        """The models, each once."""
        return list(dict.fromkeys(self.models.values()))

    @property
    def has_images(self) -> bool:
        """True if some task has images."""
        return any(task.has_images for task in self.tasks.values())

    def _ends(self, name: str) -> list[tuple[str, str]]:
        table = self.tables.get(name)
        if table is None or "checkpoint_a" not in table.columns:
            return []
        ends = dict.fromkeys(zip(table["checkpoint_a"].map(run_of), table["checkpoint_b"].map(run_of), strict=True))
        return list(ends)

    @cached_property
    def _places(self) -> dict[str, dict[tuple[str, str], list[int]]]:
        """Places of the rows of each table of pairs by both runs, found once, as every sentence asks for them."""
        places: dict[str, dict[tuple[str, str], list[int]]] = {}
        for name, table in self.tables.items():
            if "checkpoint_a" in table.columns:
                own = places.setdefault(name, {})
                ends = zip(table["checkpoint_a"].map(run_of), table["checkpoint_b"].map(run_of), strict=True)
                for place, pair in enumerate(ends):
                    own.setdefault(pair, []).append(place)
        return places

    def rows(self, name: str, pair: Pair) -> pd.DataFrame:
        """Rows of a table of pairs that compare these two models; none where there are none.

        A pair is unordered. Where the table has it in the other order only, columns of the two sides change places, and
        so do the ends of a line. Numbers that belong to an order are those of `written`.
        """
        rows = self._in_order(name, pair)
        if len(rows) or name in DIRECTED:
            return rows
        turned = self._in_order(name, pair.turned).rename(columns=other_side)
        return turned.assign(alpha=1 - turned["alpha"]) if "alpha" in turned.columns else turned

    def written(self, name: str, pair: Pair) -> Pair:
        """The pair in the order in which a table has it."""
        return pair if len(self._in_order(name, pair)) or not len(self._in_order(name, pair.turned)) else pair.turned

    def _in_order(self, name: str, pair: Pair) -> pd.DataFrame:
        table = self.tables.get(name)
        if table is None or table.empty or "checkpoint_a" not in table.columns:
            return pd.DataFrame()
        return table.iloc[self._places[name].get((pair.first, pair.second), [])]

    def main_rows(self, name: str, pair: Pair, split: str = "test", metric: str = "") -> pd.DataFrame:
        """Those on the images of a split in a metric; empty: the one that the task is judged by."""
        rows, metric = self.rows(name, pair), metric or self.metric(pair.task)
        return rows[(rows["split"] == split) & (rows["metric"] == metric)] if len(rows) else rows

    def metric(self, task: str) -> str:
        """`auc` where images have several labels, else `accuracy`."""
        lines = self.tables.get("barriers", pd.DataFrame())
        if lines.empty:
            return "accuracy"
        own = [_task_of(name) == task for name in lines["checkpoint_a"]]
        return main_metric(lines[own])

    def label(self, run: str) -> str:
        """The model's label."""
        return self.models[run].label

    def both(self, pair: Pair) -> str:
        """`A and B`."""
        return f"{self.label(pair.first)} and {self.label(pair.second)}"

    def labels(self, pair: Pair) -> tuple[str, str]:
        """The labels of a pair, for an answer."""
        return self.label(pair.first), self.label(pair.second)

    def figure(self, *names: str, task: str | None = None) -> str:
        """The entry of the first of these figures that was drawn; of a name that ends in _ the first that begins so.

        task: whose figure is preferred.
        """
        known = {one: facts.figures for one, facts in self.tasks.items()} | {CROSS_DOMAIN: self.across}
        for one in sorted(known, key=lambda one: one != task):
            for name in names:
                for drawn in sorted(known[one]):
                    if drawn == name or (name.endswith("_") and drawn.startswith(name)):
                        return f"{one}.{drawn}.figure"
        return ""

    def learned(self, pair: Pair, metric: str = "") -> float:
        """By how much a test metric of both ends of a line is better than guessing; NaN where it is not known.

        metric: as of `main_rows`.
        """
        metric = metric or self.metric(pair.task)
        points = self.main_rows("interpolation", pair, metric=metric)
        ends = [points.loc[np.isclose(points["alpha"], end), "value"] for end in (0.0, 1.0)] if len(points) else []
        if not ends or not all(map(len, ends)):
            return np.nan
        facts = self.tasks[pair.task]
        guessing = facts.loss_of_guessing if metric == "loss" else facts.chance
        mean = float(np.mean([end.iloc[0] for end in ends]))
        return learned_by(mean, guessing, higher_is_better=higher_is_better(metric))

    def margin(self, pair: Pair, metric: str = "") -> float:
        """The height above which a barrier is one (`BARRIER_MARGIN` of what both ends have learned).

        metric: as of `main_rows`.
        """
        return BARRIER_MARGIN * self.learned(pair, metric)

    def has_batchnorm(self, pair: Pair) -> bool:
        """True where the networks have running statistics, or barriers were measured with stored ones as well."""
        distances, lines = self.rows("distances", pair), self.rows("barriers", pair)
        stored = len(lines) > 0 and bool(lines["metric"].str.startswith("naive_").any())
        return stored or bool(distances.get("num_statistics", pd.Series(dtype=float)).any())

    def num_examples(self, pair: Pair) -> int:
        """Test images on which predictions were compared."""
        rows = self.rows("replacement", self.written("replacement", pair))
        return int(rows["num_examples"].max()) if len(rows) else 0

    def images_that_tell(self, pair: Pair, needed: float, taken: float, analysis: str) -> str:
        """Test images that would decide, with the option of an analysis that takes fewer than there are.

        needed: NaN where their number is not known. taken: by the analysis, whose options are named so in a plan.
        """
        there, option = self.num_examples(pair), f"analyses.{analysis}.max_examples"
        if not taken < there:
            return more_images(needed)
        if needed <= there:
            return f"about {about(needed)} of the {count(there, 'test image')}, by {option},"
        return f"{more_images(needed)}, with {option} raised as well,"


PAIR_TABLES = ("identity", "distances", "replacement", "mistakes", "barriers", "connection")
"""Tables that say which pairs are compared."""
DIRECTED = ("identity", "distances", "aligned_distances", "replacement")
"""Tables whose numbers belong to an order: relative to the first weights, or of the second in the first's place."""
READ = (*PAIR_TABLES, "aligned_distances", "interpolation", "connection_modules", "merging")
"""Tables that answers are read from."""


@lru_cache(maxsize=4096)
def run_of(checkpoint: str) -> str:
    """The run of a checkpoint's name: `images.a_1` of `images.a_1@final`."""
    return str(CheckpointName.parse(str(checkpoint)).run_name)


@lru_cache(maxsize=4096)
def _task_of(checkpoint: str) -> str:
    return RunName.parse(run_of(checkpoint)).task


def final_of(run: str) -> str:
    """The last checkpoint of a run, `images.a_1@final` of `images.a_1`."""
    return str(RunName.parse(run).at("final"))


def compared_models(
    plan: Plan, results: Mapping[str, TaskResults], merged: Mapping[str, str] | None = None
) -> Compared:
    """Collect the models that a study of checkpoint files compares, on all tasks but those of parents alone.

    merged: files of merged weights by the name of the merge.
    """
    evidence = Evidence(plan, results)
    mistakes = plan.study.analyses.mistakes
    replace = mistakes.replace if mistakes is not None and mistakes.replace is not None else ReplaceOptions()
    tasks = [task for task in evidence.tasks if any(run.role != "source" for run in plan.runs_of(task))]
    runs = [run for task in tasks for run in plan.runs_of(task)]
    names = printed_names(runs)
    return Compared(
        tasks={
            task: TaskFacts(
                evidence.chance(task),
                evidence.guessing(task, "test", "loss"),
                frozenset(results[task].figures),
                plan.has_images(task),
            )
            for task in tasks
        },
        models={
            run.full_name: Model(names[run.full_name], str(run.checkpoint or run.pretrained or ""), run.model.name)
            for run in runs
        },
        tables=_joined([evidence.results[scope].tables for scope in (*tasks, CROSS_DOMAIN) if scope in results]),
        accepted_loss=replace.margin,
        merged=dict(merged or {}),
        across=frozenset(results[CROSS_DOMAIN].figures) if CROSS_DOMAIN in results else frozenset(),
        scores={name: score for task in tasks for name, score in _scores(evidence, task)},
    )


def _scores(evidence: Evidence, task: str) -> Iterator[tuple[str, Score]]:
    """Scores of the runs of a task whose test metric is finite, by the tables `runs` and `class_sizes`."""
    sizes, number = evidence.table(task, "class_sizes"), evidence.num_test(task)
    if sizes.empty or not number:
        return
    for row in evidence.table(task, "runs").to_dict("records"):
        value, loss = float(row["final_test"]), float(row["final_test_loss"])
        if np.isfinite(value):
            yield str(RunName(task, str(row["run"]))), score_of(value, loss, sizes, str(row["metric"]), number)


def _joined(tables: Sequence[Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Tables of several scopes by name, with the rows of all."""
    joined = {}
    for name in READ:
        parts = [each[name] for each in tables if name in each and len(each[name])]
        if parts:
            joined[name] = pd.concat(parts, ignore_index=True)
    return joined
