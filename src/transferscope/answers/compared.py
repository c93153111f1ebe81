"""Models that are compared, with the tables that analyses have made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from transferscope.claims.evidence import Evidence, TaskResults, main_metric
from transferscope.experiment.names import CheckpointName, RunName
from transferscope.experiment.options import BARRIER_MARGIN, ReplaceOptions
from transferscope.experiment.plan import Plan

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
    """Two of the models, by the names of their runs."""

    first: str
    second: str


@dataclass(frozen=True)
class Compared:
    """Models of one task and the tables of `pipelines`, by name; what was not measured has none."""

    task: str
    models: Mapping[str, Model]
    """By the name of the run, `images.a_1`, as tables name it before the sign @."""
    tables: Mapping[str, pd.DataFrame]
    figures: frozenset[str] = frozenset()
    """Names of the figures that were drawn."""
    chance: float = np.nan
    """The test metric of guessing."""
    accepted_loss: float = ReplaceOptions().margin
    """Fall of accuracy with which one model still replaces another."""
    has_images: bool = True
    merged: Mapping[str, str] = field(default_factory=dict)
    """Files of merged weights by the name of the merge."""

    @cached_property
    def pairs(self) -> list[Pair]:
        """The pairs that some table compares, in order of the models."""
        names = list(self.models)
        found: dict[frozenset[str], Pair] = {}
        for name in PAIR_TABLES:
            for a, b in self._ends(name):
                if a != b and {a, b} <= set(names):
                    found.setdefault(frozenset((a, b)), Pair(a, b))
        order = {frozenset(pair): rank for rank, pair in enumerate(combinations(names, 2))}
        return sorted(found.values(), key=lambda pair: order[frozenset((pair.first, pair.second))])

    def _ends(self, name: str) -> list[tuple[str, str]]:
        table = self.tables.get(name)
        if table is None or "checkpoint_a" not in table.columns:
            return []
        ends = dict.fromkeys(zip(table["checkpoint_a"].map(run_of), table["checkpoint_b"].map(run_of), strict=True))
        return list(ends)

    def rows(self, name: str, pair: Pair) -> pd.DataFrame:
        """Rows of a table of pairs that compare these two models in this order; none where there are none."""
        table = self.tables.get(name)
        if table is None or table.empty or "checkpoint_a" not in table.columns:
            return pd.DataFrame()
        a, b = table["checkpoint_a"].map(run_of), table["checkpoint_b"].map(run_of)
        return table[(a == pair.first) & (b == pair.second)]

    def main_rows(self, name: str, pair: Pair) -> pd.DataFrame:
        """Those on test images in the metric that the task is judged by."""
        rows = self.rows(name, pair)
        return rows[(rows["split"] == "test") & (rows["metric"] == self.metric)] if len(rows) else rows

    @cached_property
    def metric(self) -> str:
        """`auc` where images have several labels, else `accuracy`."""
        lines = self.tables.get("barriers", pd.DataFrame())
        return main_metric(lines) if len(lines) else "accuracy"

    def label(self, run: str) -> str:
        """The model's label."""
        return self.models[run].label

    def both(self, pair: Pair) -> str:
        """`A and B`."""
        return f"{self.label(pair.first)} and {self.label(pair.second)}"

    def labels(self, pair: Pair) -> tuple[str, str]:
        """The labels of a pair, for an answer."""
        return self.label(pair.first), self.label(pair.second)

    def figure(self, *names: str) -> str:
        """The entry of the first of these figures that was drawn; of a name that ends in _ the first that begins so."""
        for name in names:
            drawn = [one for one in sorted(self.figures) if one == name or (name[-1] == "_" and one.startswith(name))]
            if drawn:
                return f"{self.task}.{drawn[0]}.figure"
        return ""

    def learned(self, pair: Pair) -> float:
        """Mean of the test metric of both ends of a line above chance; NaN where it is not known."""
        points = self.main_rows("interpolation", pair)
        ends = [points.loc[np.isclose(points["alpha"], end), "value"] for end in (0.0, 1.0)] if len(points) else []
        if not ends or not all(map(len, ends)):
            return np.nan
        return float(np.mean([end.iloc[0] for end in ends])) - self.chance

    def margin(self, pair: Pair) -> float:
        """The height above which a barrier is one (`BARRIER_MARGIN` of what both ends have learned)."""
        return BARRIER_MARGIN * self.learned(pair)

    def num_examples(self, pair: Pair) -> int:
        """Test images on which predictions were compared."""
        rows = self.rows("replacement", pair)
        return int(rows["num_examples"].max()) if len(rows) else 0


PAIR_TABLES = ("identity", "distances", "replacement", "mistakes", "barriers", "connection")
"""Tables that say which pairs are compared."""


def run_of(checkpoint: str) -> str:
    """The run of a checkpoint's name: `images.a_1` of `images.a_1@final`."""
    return str(CheckpointName.parse(str(checkpoint)).run_name)


def final_of(run: str) -> str:
    """The last checkpoint of a run, `images.a_1@final` of `images.a_1`."""
    return str(RunName.parse(run).at("final"))


def compared_models(
    plan: Plan, results: Mapping[str, TaskResults], merged: Mapping[str, str] | None = None
) -> Iterator[Compared]:
    """Collect the models that a study of checkpoint files compares, task by task.

    merged: files of merged weights by the name of the merge.
    """
    evidence = Evidence(plan, results)
    mistakes = plan.study.analyses.mistakes
    replace = mistakes.replace if mistakes is not None and mistakes.replace is not None else ReplaceOptions()
    for task in evidence.tasks:
        runs = plan.runs_of(task)
        if not runs:
            continue
        models = {
            run.full_name: Model(run.label, str(run.checkpoint or run.pretrained or ""), run.model.name) for run in runs
        }
        yield Compared(
            task=task,
            models=models,
            tables=results[task].tables,
            figures=frozenset(results[task].figures),
            chance=evidence.chance(task),
            accepted_loss=replace.margin,
            has_images=plan.has_images(task),
            merged=dict(merged or {}),
        )
