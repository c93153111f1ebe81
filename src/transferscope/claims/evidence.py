"""Access to the tables of all tasks, and effects: what the measurements say about a claim, unit by unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from transferscope.claims.results import TaskResults

CROSS_DOMAIN = "cross_domain"
"""Key of the results that belong to several tasks."""


@dataclass(frozen=True)
class Effect:
    """One measurement that bears on a claim.

    value: positive where it is as claimed. first, second: the two numbers that are compared (second is None where a
    number is held against a fixed bound). place: task or scenario; unit: the runs or pairs that it was measured on.
    """

    place: str
    unit: str
    value: float
    first: float
    second: float | None = None
    metric: str = "accuracy"


def compare(
    place: str,
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    larger: bool = True,
    metric: str = "accuracy",
) -> list[Effect]:
    """Every run (or pair) of the first kind against every one of the second; claimed: the first is larger (smaller)."""
    sign = 1.0 if larger else -1.0
    return [
        Effect(place, f"{name_a} : {name_b}", sign * (a - b), a, b, metric)
        for name_a, a in first.items()
        for name_b, b in second.items()
        if name_a != name_b and np.isfinite(a) and np.isfinite(b)
    ]


def against_bound(
    place: str, values: Mapping[str, float], bound: float, *, above: bool, metric: str = "accuracy"
) -> list[Effect]:
    """Every value against a fixed bound; claimed: it lies above (below)."""
    return [
        Effect(place, name, (value - bound) if above else (bound - value), value, None, metric)
        for name, value in values.items()
        if np.isfinite(value)
    ]


def full_name(task: str, run: str) -> str:
    """`clipart.pt_1`, whether the table says so or says `pt_1`; epochs are cut off."""
    name = str(run).split("@")[0]
    return name if name.startswith(f"{task}.") else f"{task}.{name}"


def last_epochs(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of each run's `final` epoch, or else of its largest one."""
    names = table["epoch"].astype(str)
    rank = pd.to_numeric(names, errors="coerce").fillna(-1.0).mask(names == "final", np.inf)
    return table[rank == rank.groupby(table["run"]).transform("max")]


class Evidence:
    """The study's tables by task."""

    def __init__(self, study: Mapping[str, Any], results: Mapping[str, TaskResults]) -> None:
        self.results = results
        options = study.get("tasks") or {}
        self.unions = {name for name, task in options.items() if isinstance(task, Mapping) and task.get("union")}
        self.tasks = [name for name in results if name != CROSS_DOMAIN]
        self.left_out: dict[str, None] = {}
        """Units that an effect left out, with the reason, in order of appearance."""
        self.worst: dict[str, None] = {}
        """Runs that diverged, whose score or speed an effect took as 0."""
        self._pairs: dict[tuple[str, str, str], tuple[pd.DataFrame, tuple[str, ...]]] = {}

    def table(self, task: str, name: str) -> pd.DataFrame | None:
        """A table that is there and has rows."""
        found = self.results[task].tables.get(name) if task in self.results else None
        return None if found is None or found.empty else found

    def each(self, name: str) -> list[tuple[str, pd.DataFrame]]:
        """The tasks that have a table, with it."""
        return [(task, table) for task in self.tasks if (table := self.table(task, name)) is not None]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """All runs by full name: task, label, lr (largest), score (final, test), metric, speed, learned, diverged.

        A run that diverged is the worst there is, not a missing value: score and speed are 0.
        """
        rows = [row for task, history in self.each("history") for row in self._runs_of(task, history)]
        columns = ["name", "task", "label", "lr", "score", "metric", "speed", "learned", "diverged"]
        return pd.DataFrame(rows, columns=columns).set_index("name")

    def _runs_of(self, task: str, history: pd.DataFrame) -> list[tuple[Any, ...]]:
        metric = main_metric(history)
        summary = self.table(task, "runs")
        facts = {} if summary is None else {str(row["run"]): row for row in summary.to_dict("records")}
        rows = []
        for run, epochs in history.sort_values("epoch", kind="stable").groupby("run", sort=False):
            fact: Mapping[Any, Any] = facts.get(str(run), {})
            diverged = fact.get("status") == "diverged"
            score = float(epochs[f"test_{metric}"].iloc[-1])
            speed = float(fact.get("optimization_speed", np.nan))
            learned = bool(fact.get("learned", True)) and not diverged
            rows.append(
                (
                    full_name(task, str(run)),
                    task,
                    str(epochs["label"].iloc[0]),
                    float(fact.get("lr", epochs["lr"].max())),
                    0.0 if diverged else score,
                    metric,
                    0.0 if diverged else speed,
                    learned,
                    diverged,
                )
            )
        return rows

    def runs_of(self, task: str, label: str) -> pd.DataFrame:
        """Runs of a kind on a task."""
        runs = self.runs
        return runs[(runs["task"] == task) & (runs["label"] == label)]

    def values(self, runs: pd.DataFrame, column: str) -> dict[str, float]:
        """A column of some rows of `runs` by name; those that diverged are noted."""
        self.worst.update(dict.fromkeys(runs.index[runs["diverged"].astype(bool)]))
        return named(runs[column])

    def learned(self, *checkpoints: str) -> bool:
        """Whether all of these runs are known not to be at chance; a run without history counts as learned."""
        names = [str(name).split("@")[0] for name in checkpoints]
        failed = [name for name in names if name in self.runs.index and not self.runs.at[name, "learned"]]
        self.left_out.update(
            {f"{name} ({'diverged' if self.runs.at[name, 'diverged'] else 'not learned'})": None for name in failed}
        )
        return not failed

    def pairs(self, task: str, name: str, pair_kind: str) -> pd.DataFrame:
        """Rows of a table of pairs with one kind of pair, both of whose runs have learned; final epochs where given."""
        key = (task, name, pair_kind)
        if key not in self._pairs:
            before, self.left_out = self.left_out, {}
            rows = self._find_pairs(*key)
            self._pairs[key], self.left_out = (rows, tuple(self.left_out)), before
        rows, left_out = self._pairs[key]
        self.left_out.update(dict.fromkeys(left_out))
        return rows

    def _find_pairs(self, task: str, name: str, pair_kind: str) -> pd.DataFrame:
        table = self.table(task, name)
        if table is None:
            return pd.DataFrame()
        rows = table[table["pair_kind"] == pair_kind]
        final = rows[rows["checkpoint_a"].str.endswith("@final") & rows["checkpoint_b"].str.endswith("@final")]
        rows = rows if final.empty else final
        kept = [self.learned(a, b) for a, b in zip(rows["checkpoint_a"], rows["checkpoint_b"], strict=True)]
        return rows[np.array(kept, dtype=bool)] if len(rows) else rows


def pair_name(row: pd.Series) -> str:
    """`clipart.pt_1@final & clipart.pt_2@final`."""
    return f"{row['checkpoint_a']} & {row['checkpoint_b']}"


def by_pair(rows: pd.DataFrame, values: pd.Series) -> dict[str, float]:
    """Mean of `values` (one per row) for each pair."""
    if rows.empty:
        return {}
    names = rows["checkpoint_a"].astype(str) + " & " + rows["checkpoint_b"].astype(str)
    return {str(name): float(value) for name, value in values.groupby(names, sort=False).mean().items()}


def named(values: pd.Series) -> dict[str, float]:
    """A column of numbers as name -> number."""
    return {str(name): float(value) for name, value in values.items()}


def main_metric(table: pd.DataFrame) -> str:
    """AUC where a task has it (multi-label), else accuracy; from a history or from a table with a column metric."""
    if "metric" in table.columns:
        return "auc" if (table["metric"] == "auc").any() else "accuracy"
    has_auc = "test_auc" in table.columns and table["test_auc"].notna().any()
    return "auc" if has_auc else "accuracy"
