"""The tables of all tasks, read by the role of the runs in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from transferscope.claims.comparisons import Measured, Unit
from transferscope.experiment.names import CheckpointName, PairName, RunName
from transferscope.experiment.plan import Plan, Role, RunSpec
from transferscope.plots.rendered import SavedFigure
from transferscope.system.errors import UserError

CROSS_DOMAIN = "cross_domain"
"""Key of the results that belong to several tasks."""


@dataclass(frozen=True)
class TaskResults:
    """Tables and figures of a task by name, and facts about it (classes, sizes, whether its images are generated)."""

    task: str
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, SavedFigure] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFacts:
    """Facts about a trained run.

    lr: the largest of its schedule. score: final test metric. speed: train metric averaged over the measured epochs.
    A run that diverged is the worst there is, not a missing value: its score and speed are 0.
    """

    name: RunName
    label: str
    lr: float
    score: float
    speed: float
    metric: str
    learned: bool
    diverged: bool


@dataclass(frozen=True)
class PairRows:
    """Rows of a table of pairs, all of one kind of pair, and the runs that were left out with the reason.

    The column `pair` holds each `PairName` as text, the one of the first role first.
    """

    rows: pd.DataFrame
    left_out: Mapping[str, str] = field(default_factory=dict)

    def where(self, column: str, value: object) -> PairRows:
        """The rows with that value."""
        return PairRows(self.rows[self.rows[column] == value] if len(self.rows) else self.rows, self.left_out)

    def mean(self, values: Callable[[pd.DataFrame], pd.Series]) -> Measured:
        """Mean over the rows of each pair of what `values` makes of the rows (a number per row)."""
        if self.rows.empty:
            return Measured({}, self.left_out)
        means = values(self.rows).astype(float).groupby(self.rows["pair"], sort=False).mean()
        return Measured({PairName.parse(str(name)): float(value) for name, value in means.items()}, self.left_out)


class Evidence:
    """The study's tables by task, and which of their rows belong to which role.

    Results name runs; the plan gives each run its role, so that no label decides anything.
    """

    def __init__(self, plan: Plan, results: Mapping[str, TaskResults]) -> None:
        self.plan, self.results = plan, results
        self.tasks = [name for name in results if name != CROSS_DOMAIN]
        self.unions = {name for name, options in plan.study.tasks.items() if options.union}
        self._members: dict[tuple[str, Role], set[RunName]] = {}
        self._pairs: dict[tuple[str, str, Role, Role], PairRows] = {}

    def table(self, scope: str, name: str) -> pd.DataFrame:
        """A table of a task, or of `CROSS_DOMAIN`; without rows where there is none."""
        table = self.results[scope].tables.get(name) if scope in self.results else None
        return pd.DataFrame() if table is None else table

    def each(self, name: str) -> list[tuple[str, pd.DataFrame]]:
        """The tasks whose table of that name has rows, with the table."""
        return [(task, table) for task in self.tasks if len(table := self.table(task, name))]

    def spec(self, name: RunName) -> RunSpec:
        """The plan's run.

        Raises:
            UserError: the plan has no such run, so the table that names it was made by another plan.
        """
        if str(name) not in self.plan.runs:
            raise UserError(f"a table names the run {name}, which the plan does not have: run its analysis again")
        return self.plan.runs[str(name)]

    @cached_property
    def runs(self) -> dict[RunName, RunFacts]:
        """Every run that has a history."""
        every = (one for task, history in self.each("history") for one in self._facts_of(task, history))
        return {one.name: one for one in every}

    def _facts_of(self, task: str, history: pd.DataFrame) -> list[RunFacts]:
        metric, summary = main_metric(history), self.table(task, "runs")
        facts = {str(row["run"]): row for row in summary.to_dict("records")}
        runs = []
        for run, epochs in history.sort_values("epoch", kind="stable").groupby("run", sort=False):
            fact: Mapping[Any, Any] = facts.get(str(run), {})
            diverged = fact.get("status") == "diverged"
            name = RunName.parse(str(run), task)
            one = RunFacts(
                name=name,
                label=self.spec(name).label,
                lr=float(fact.get("lr", epochs["lr"].max())),
                score=0.0 if diverged else float(epochs[f"test_{metric}"].iloc[-1]),
                speed=0.0 if diverged else float(fact.get("optimization_speed", np.nan)),
                metric=metric,
                learned=bool(fact.get("learned", True)) and not diverged,
                diverged=diverged,
            )
            runs.append(one)
        return runs

    def members(self, scope: str, role: Role) -> set[RunName]:
        """Runs of a role that are compared on a task; on all tasks for `CROSS_DOMAIN`."""
        key = (scope, role)
        if key not in self._members:
            tasks = self.plan.study.tasks if scope == CROSS_DOMAIN else (scope,)
            choose = self.plan.in_role if role == "source" else self.plan.compared
            self._members[key] = {_name(run) for task in tasks for run in choose(task, role)}
        return self._members[key]

    def metric(self, task: str) -> str:
        """The metric by which a task is judged: auc where it is multi-label."""
        return main_metric(self.table(task, "history"))

    def scores(self, task: str, role: Role, number: Callable[[RunFacts], float] = lambda run: run.score) -> Measured:
        """Final test metric of the runs of a role, or another number of them, diverged runs included."""
        return self._scores([_name(run) for run in self.plan.compared(task, role)], number)

    def scores_by_lr(self, task: str, role: Role) -> dict[float, Measured]:
        """Final test metric of all runs of a role by their learning rate, the smallest first, variants included."""
        by_lr: dict[float, list[RunName]] = {}
        for name in (_name(run) for run in self.plan.in_role(task, role)):
            if name in self.runs:
                by_lr.setdefault(self.runs[name].lr, []).append(name)
        return {lr: self._scores(by_lr[lr], lambda run: run.score) for lr in sorted(by_lr)}

    def _scores(self, names: Iterable[RunName], number: Callable[[RunFacts], float]) -> Measured:
        facts = [self.runs[name] for name in names if name in self.runs]
        notes: dict[Unit, str] = {one.name: f"diverged, counted as 0: {one.name}" for one in facts if one.diverged}
        return Measured({one.name: number(one) for one in facts}, notes=notes)

    def failures(self, names: Iterable[RunName]) -> dict[str, str]:
        """Runs that diverged or did not learn, with which of both; a run without history counts as learned."""
        failed = [self.runs[name] for name in names if name in self.runs and not self.runs[name].learned]
        return {str(one.name): "diverged" if one.diverged else "not learned" for one in failed}

    def by_run(self, task: str, role: Role, values: Mapping[Any, float] | pd.Series) -> Measured:
        """Numbers by the name of their run (`pt_1`), of the runs of a role that have learned."""
        numbers = {RunName.parse(str(run), task): float(value) for run, value in values.items()}
        numbers = {name: value for name, value in numbers.items() if name in self.members(task, role)}
        failed = self.failures(numbers)
        return Measured({name: value for name, value in numbers.items() if str(name) not in failed}, failed)

    def pairs(self, scope: str, table: str, first: Role, second: Role) -> PairRows:
        """Rows of a table of pairs whose runs have these roles and have learned; final epochs where the table has them.

        The first role is made the side `a`: columns that end in `_a` and `_b` change places where it is not. A pair
        with `shared_init` is one that shares its initial weights. Untrained weights and a model with itself are no
        pairs.
        """
        key = (scope, table, first, second)
        if key not in self._pairs:
            kinds = self.members(scope, first), self.members(scope, second)
            self._pairs[key] = self._choose(self.table(scope, table), lambda a, b: self._is_pair(a, b, *kinds))
        return self._pairs[key]

    def travelled(self, task: str, role: Role) -> PairRows:
        """Rows of the table of distances from the trained weights of a run to its own initial weights."""
        members = self.members(task, role)
        return self._choose(
            self.table(task, "distances"),
            lambda a, b: a.run_name == b.run_name and a.run_name in members and b.epoch == 0,
        )

    def _is_pair(self, a: CheckpointName, b: CheckpointName, firsts: set[RunName], seconds: set[RunName]) -> bool:
        first, second = a.run_name, b.run_name
        if first == second or 0 in (a.epoch, b.epoch) or first not in firsts or second not in seconds:
            return False
        one, other = self.spec(first), self.spec(second)
        sharing = "shared_init" in (one.role, other.role)
        return not sharing or (one.task, one.init_seed) == (other.task, other.init_seed)

    def _choose(self, table: pd.DataFrame, wanted: Callable[[CheckpointName, CheckpointName], bool]) -> PairRows:
        if table.empty:
            return PairRows(table)
        sides = ("checkpoint_a", "checkpoint_b")
        names = {text: CheckpointName.parse(text) for side in sides for text in table[side].unique()}
        keys = list(zip(table["checkpoint_a"], table["checkpoint_b"], strict=True))
        turned = {}
        for a, b in dict.fromkeys(keys):
            if wanted(names[a], names[b]) or wanted(names[b], names[a]):
                turned[a, b] = not wanted(names[a], names[b])
        final = [pair for pair in turned if all(names[text].epoch in ("final", 0) for text in pair)]
        failed = {pair: self.failures(names[text].run_name for text in pair) for pair in final or turned}
        left_out = {name: why for reasons in failed.values() for name, why in reasons.items()}
        kept = {pair for pair, reasons in failed.items() if not reasons}
        straight = table[[key in kept and not turned[key] for key in keys]]
        others = table[[key in kept and turned[key] for key in keys]].rename(columns=_other_side)
        rows = pd.concat([straight, others]) if len(others) else straight
        return PairRows(rows.assign(pair=rows["checkpoint_a"] + " & " + rows["checkpoint_b"]), left_out)


def _name(run: RunSpec) -> RunName:
    return RunName(run.task, run.name)


def _other_side(column: str) -> str:
    """`kappa_low` as it is, `accuracy_a` as `accuracy_b`, `accuracy_a_low` as `accuracy_b_low`."""
    for own, other in (("_a", "_b"), ("_b", "_a")):
        if column.endswith(own):
            return column.removesuffix(own) + other
        if f"{own}_" in column:
            return column.replace(f"{own}_", f"{other}_")
    return column


def main_metric(table: pd.DataFrame) -> str:
    """AUC where a task has it (multi-label), else accuracy; from a history or from a table with a column metric."""
    if "metric" in table.columns:
        return "auc" if (table["metric"] == "auc").any() else "accuracy"
    has_auc = "test_auc" in table.columns and table["test_auc"].notna().any()
    return "auc" if has_auc else "accuracy"


def last_epochs(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of each run's `final` epoch, or else of its largest one."""
    names = table["epoch"].astype(str)
    rank = pd.to_numeric(names, errors="coerce").fillna(-1.0).mask(names == "final", np.inf)
    return table[rank == rank.groupby(table["run"]).transform("max")]
