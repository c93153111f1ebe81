"""The tables of all tasks, read by the role of the runs in them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from transferscope.analysis.learning import loss_of_guessing
from transferscope.claims.comparisons import Measured, Unit
from transferscope.claims.inference import Kinship
from transferscope.claims.pair_rows import NORMAL_975 as NORMAL_975
from transferscope.claims.pair_rows import PairRows, other_side
from transferscope.claims.run_facts import MIN_OF_CLASS, RunFacts, facts_of_runs, main_metric
from transferscope.experiment.names import CheckpointName, PairName, RunName
from transferscope.experiment.plan import NO_TREATMENT, Plan
from transferscope.experiment.run import Role, RunSpec
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


class Evidence:
    """The study's tables by task, and which of their rows belong to which role.

    Results name runs; the plan gives each run its role, so that no label decides anything.
    """

    def __init__(self, plan: Plan, results: Mapping[str, TaskResults]) -> None:
        self.plan, self.results = plan, results
        self.tasks = [name for name in results if name != CROSS_DOMAIN]
        self.unions = {name for name, options in plan.study.tasks.items() if options.union}
        self.compared_tasks = self._without_views()
        self._members: dict[tuple[str, Role], set[RunName]] = {}
        self._pairs: dict[tuple[str, str, Role, Role], PairRows] = {}

    def table(self, scope: str, name: str) -> pd.DataFrame:
        """A table of a task, or of `CROSS_DOMAIN`; without rows where there is none."""
        table = self.results[scope].tables.get(name) if scope in self.results else None
        return pd.DataFrame() if table is None else table

    def each(self, name: str) -> list[tuple[str, pd.DataFrame]]:
        """The tasks whose table of that name has rows, with the table."""
        return [(task, table) for task in self.tasks if len(table := self.table(task, name))]

    def each_compared(self, name: str) -> list[tuple[str, pd.DataFrame]]:
        """As `each`, of `compared_tasks`."""
        return [(task, table) for task, table in self.each(name) if task in self.compared_tasks]

    def _without_views(self) -> list[str]:
        """The tasks whose images no other one shows; of a union or a view the parts count, where they have runs."""
        unions = {name: set(options.union or ()) for name, options in self.plan.study.tasks.items()}
        chosen: list[str] = []
        shown: set[str] = set()
        for task in sorted(self.tasks, key=lambda task: bool(unions.get(task))):
            images = unions.get(task) or {task}
            if not images & shown and (not unions.get(task) or self.plan.runs_of(task)):
                chosen.append(task)
                shown |= images if self.plan.runs_of(task) else set()
        return [task for task in self.tasks if task in chosen]

    @property
    def views(self) -> dict[str, str]:
        """Tasks with runs that show images of other tasks, as they are left out of comparisons over tasks."""
        others = (task for task, _ in self.each("history") if task not in self.compared_tasks)
        return dict.fromkeys(others, "shows the images of other tasks")

    def kinship(self) -> Kinship:
        """The traits of runs: which are replicas of each other, and from which run or file they start."""
        return Kinship(kind=self._kind, parent=lambda run: self.spec(run).pretrained)

    def _kind(self, run: RunName) -> Hashable | None:
        spec = self.spec(run)
        if spec.role == "source":
            return None
        model, training = spec.model.model_dump_json(), spec.training.model_dump_json(exclude=NO_TREATMENT)
        start = spec.pretrained_epoch, spec.transfer, spec.transfer_until, spec.split_epoch
        return spec.role, model, training, *start

    def chance(self, task: str) -> float:
        """The test metric of guessing on a task, NaN where its runs table does not have it."""
        table = self.table(task, "runs")
        return float(table["chance"].iloc[0]) if "chance" in table else np.nan

    def guessing(self, task: str, split: str, metric: str) -> float:
        """A metric of a part of a task without knowledge of its images: `chance`, or the entropy of the labels."""
        if metric != "loss":
            return self.chance(task)
        sizes = self.table(task, "class_sizes")
        metric = "auc" if self.plan.is_multi_label(task) else "accuracy"  # by the plan, since a task may have no runs
        return loss_of_guessing(sizes[sizes["part"] == split], metric) if len(sizes) else np.nan

    def num_test(self, task: str) -> int:
        """Number of test images of a task, 0 where it is not known."""
        return int(self.results[task].facts.get("num_test", 0)) if task in self.results else 0

    def class_counts(self, task: str) -> dict[str, tuple[int, int]]:
        """Test images that have each class, and that lack it, of a task whose table of class sizes is there."""
        table = self.table(task, "class_sizes")
        if not {"part", "class_name", "count", "negatives"} <= set(table.columns):
            return {}
        rows = table[table["part"] == "test"]
        return {str(row["class_name"]): (int(row["count"]), int(row["negatives"])) for row in rows.to_dict("records")}

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
        return {
            one.name: one
            for task, history in self.each("history")
            for one in facts_of_runs(
                task, history, self.table(task, "runs"), self.class_counts(task), self.num_test(task), self._label
            )
        }

    def _label(self, run: RunName) -> str:
        return self.spec(run).label

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
        """Final test metric of the runs of a role that have learned, or another number of them."""
        return self._scores([_name(run) for run in self.plan.compared(task, role)], number)

    def scores_by_lr(
        self, task: str, role: Role, number: Callable[[RunFacts], float] = lambda run: run.score
    ) -> dict[float, Measured]:
        """Final test metric, or another number, of all runs of a role by their learning rate, the smallest first.

        Variants of the role are included.
        """
        by_lr: dict[float, list[RunName]] = {}
        for name in (_name(run) for run in self.plan.in_role(task, role)):
            if name in self.runs:
                by_lr.setdefault(self.runs[name].lr, []).append(name)
        return {lr: self._scores(by_lr[lr], number) for lr in sorted(by_lr)}

    def _scores(self, names: Iterable[RunName], number: Callable[[RunFacts], float]) -> Measured:
        facts = [self.runs[name] for name in names if name in self.runs]
        left_out = self.failures(one.name for one in facts)
        learned = [one for one in facts if one.learned]
        for one in learned:
            left_out |= dict.fromkeys(
                (f"{one.name.task}: {name}" for name in one.small_classes),
                f"fewer than {MIN_OF_CLASS} test images have it, or lack it",
            )
        values: dict[Unit, float] = {one.name: number(one) for one in learned}
        errors: dict[Unit, float] = {one.name: one.error for one in learned if values[one.name] == one.score}
        return Measured(values, left_out, errors=errors)

    def failures(self, names: Iterable[RunName]) -> dict[str, str]:
        """Runs that diverged or did not learn, with which of both; a run without history counts as learned."""
        failed = [self.runs[name] for name in names if name in self.runs and not self.runs[name].learned]
        return {str(one.name): "diverged" if one.diverged else "not learned" for one in failed}

    def unfinished(self, names: Iterable[RunName]) -> str:
        """Name the runs that were not trained to the end, and by how much, as `RI-T, 7 of 8 runs (+1.1 to +9.6)`.

        In brackets points of the train metric per epoch. Empty where all were.
        """
        by_label: dict[str, list[RunFacts]] = {}
        for name in sorted(names):
            if name in self.runs:
                by_label.setdefault(self.runs[name].label, []).append(self.runs[name])
        texts = []
        for label, runs in by_label.items():
            rises = [100 * run.rise for run in runs if np.isfinite(run.rise)]
            if rises:
                ends = dict.fromkeys(f"{rise:+.1f}" for rise in (min(rises), max(rises)))
                texts.append(f"{label}, {len(rises)} of {len(runs)} runs ({' to '.join(ends)})")
        return "; ".join(texts)

    def by_run(self, task: str, role: Role, values: Mapping[Any, float] | pd.Series) -> Measured:
        """Numbers by the name of their run (`pt_1`), of the runs of a role that have learned."""
        numbers = {RunName.parse(str(run), task): float(value) for run, value in values.items()}
        numbers = {name: value for name, value in numbers.items() if name in self.members(task, role)}
        failed = self.failures(numbers)
        return Measured({name: value for name, value in numbers.items() if str(name) not in failed}, failed)

    def by_role(self, task: str, values: Mapping[Any, float] | pd.Series, *roles: Role) -> list[Measured]:
        """`by_run` of each of the roles, to be compared."""
        return [self.by_run(task, role, values) for role in roles]

    def wins(self, task: str, table: pd.DataFrame, first: Role, second: Role) -> Measured:
        """Share of the rows in which a run of the first role has the larger number, for every pair with the second.

        table: a column per run, a row per thing on which all are measured, such as a class. Ties count half.
        """
        sides = self.by_role(task, dict.fromkeys(table.columns, 0.0), first, second)
        shares: dict[Unit, float] = {
            PairName(a.at("final"), b.at("final")): _share_of_wins(table[a.run] - table[b.run])
            for (a,), (b,) in product(*([unit.runs for unit in side.values] for side in sides))
        }
        errors = {unit: _error_of_share(share, len(table)) for unit, share in shares.items()}
        return Measured(shares, {**sides[0].left_out, **sides[1].left_out}, errors=errors)

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

    def untrained(self, task: str, table: str, role: Role) -> PairRows:
        """Rows of a table of pairs between the initial weights of two runs of a role."""
        members = self.members(task, role)
        return self._choose(
            self.table(task, table),
            lambda a, b: a.run_name != b.run_name and a.epoch == b.epoch == 0 and {a.run_name, b.run_name} <= members,
            learned=False,
        )

    def _is_pair(self, a: CheckpointName, b: CheckpointName, firsts: set[RunName], seconds: set[RunName]) -> bool:
        first, second = a.run_name, b.run_name
        if first == second or 0 in (a.epoch, b.epoch) or first not in firsts or second not in seconds:
            return False
        one, other = self.spec(first), self.spec(second)
        if not _of_one_parent(one, other):
            return False
        sharing = "shared_init" in (one.role, other.role)
        return not sharing or (one.task, one.init_seed) == (other.task, other.init_seed)

    def _choose(
        self,
        table: pd.DataFrame,
        wanted: Callable[[CheckpointName, CheckpointName], bool],
        *,
        learned: bool = True,
    ) -> PairRows:
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
        failed = {
            pair: self.failures(names[text].run_name for text in pair) if learned else {} for pair in final or turned
        }
        left_out = {name: why for reasons in failed.values() for name, why in reasons.items()}
        kept = {pair for pair, reasons in failed.items() if not reasons}
        straight = table[[key in kept and not turned[key] for key in keys]]
        others = table[[key in kept and turned[key] for key in keys]].rename(columns=other_side)
        rows = pd.concat([straight, others]) if len(others) else straight
        return PairRows(rows.assign(pair=rows["checkpoint_a"] + " & " + rows["checkpoint_b"]), left_out)


def _of_one_parent(one: RunSpec, other: RunSpec) -> bool:
    """True if two P-T start from one P, and a P-T is compared with its own P; true of all other pairs."""
    if "fine_tuned" not in (one.role, other.role):
        return True
    if one.role == other.role:
        return one.pretrained == other.pretrained
    tuned, rest = (one, other) if one.role == "fine_tuned" else (other, one)
    return rest.role != "source" or tuned.pretrained == rest.full_name


def _name(run: RunSpec) -> RunName:
    return RunName(run.task, run.name)


def last_epochs(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of each run's `final` epoch, or else of its largest one."""
    names = table["epoch"].astype(str)
    rank = pd.to_numeric(names, errors="coerce").fillna(-1.0).mask(names == "final", np.inf)
    return table[rank == rank.groupby(table["run"]).transform("max")]


def _share_of_wins(differences: pd.Series) -> float:
    """Share of positive differences, ties counted half; NaN without any."""
    known = differences.dropna()
    return float((known > 0).mean() + (known == 0).mean() / 2)


def _error_of_share(share: float, number: int) -> float:
    """Standard error of a share of so many things, of the share with two more of either kind (Agresti and Coull 1998).

    So that it is not 0 where all of them agree.
    """
    middle = (share * number + 2) / (number + 4)
    return float(np.sqrt(middle * (1 - middle) / (number + 4)))
