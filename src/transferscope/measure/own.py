"""Analyses and figures of the user's own: decorated functions in a module outside the package.

The parameters name the modules, `analyses.own.modules`. Each analysis becomes a node per task with the table
`{task}.own_<name>.table`, and each figure one with `{task}.own_<name>.figure`; both stand in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal, TypeVar

import pandas as pd

from transferscope.experiment.names import RunName
from transferscope.experiment.node_parameters import PairSpec
from transferscope.measure.bench import Bench
from transferscope.models.series import CheckpointSeries, Epoch
from transferscope.system.errors import UserError
from transferscope.system.references import load_module

KEY = "analyses.own.modules"

Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True)
class Analysis:
    """A function of the user's own that measures each run or each pair of a task."""

    reference: str
    """`module:function`."""
    of: Literal["run", "pair"]

    @property
    def name(self) -> str:
        """Name of its table."""
        return f"own_{self.reference.partition(':')[2]}"


@dataclass(frozen=True)
class OwnFigure:
    """A function of the user's own that draws a table of a task."""

    reference: str
    table: str

    @property
    def name(self) -> str:
        """Name of its figure."""
        return f"own_{self.reference.partition(':')[2]}"


def analysis(*, of: Literal["run", "pair"]) -> Callable[[Function], Function]:
    """Make a function an analysis.

    Args:
        of: "run" for a function of `(checkpoint, bench)`, "pair" for one of `(first, second, bench)`. It returns a
            DataFrame; columns that name the run or the pair are put before its own.
    """

    def mark(function: Function) -> Function:
        function._own = ("analysis", of)  # type: ignore[attr-defined]
        return function

    return mark


def figure(*, table: str) -> Callable[[Function], Function]:
    """Make a function a figure.

    Args:
        table: the table of each task that it gets as a DataFrame, for example "mistakes", or "own_<name>" for the one
            of an analysis of the user's own. It returns a matplotlib Figure.
    """

    def mark(function: Function) -> Function:
        function._own = ("figure", table)  # type: ignore[attr-defined]
        return function

    return mark


def own_parts(modules: Iterable[str]) -> tuple[list[Analysis], list[OwnFigure]]:
    """The analyses and figures in modules, in the order in which they are written.

    Raises:
        UserError: a module does not exist or holds neither, or two functions share a name.
    """
    analyses: list[Analysis] = []
    figures: list[OwnFigure] = []
    for name in modules:
        marked = _marked(load_module(name, KEY))
        if not marked:
            raise UserError(f"{KEY}: {name} has no function that is decorated with @analysis or @figure")
        for function, (kind, value) in marked.items():
            reference = f"{name}:{function}"
            if kind == "figure":
                figures.append(OwnFigure(reference, value))
            else:
                analyses.append(Analysis(reference, "pair" if value == "pair" else "run"))
    for parts in (analyses, figures):
        names = [part.name for part in parts]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{KEY}: two functions are named {twice.removeprefix('own_')}: rename one of them")
    return analyses, figures


def _marked(module: ModuleType) -> dict[str, tuple[str, str]]:
    """Kind and argument of every decorated function that the module itself defines."""
    functions = {name: value for name, value in vars(module).items() if hasattr(value, "_own")}
    return {name: value._own for name, value in functions.items() if value.__module__ == module.__name__}


def measure_runs(
    function: Callable[..., object], bench: Bench, runs: Iterable[CheckpointSeries], epoch: Epoch
) -> pd.DataFrame:
    """The tables of all runs, one below the other, with the columns task, run and epoch before."""
    tables = []
    for series in runs:
        table = _checked(function(series.load(epoch), bench), function)
        tables.append(_named(table, {"task": bench.task, "run": series.name, "epoch": series.epoch(epoch)}))
    return pd.concat(tables, ignore_index=True)


def measure_pairs(
    function: Callable[..., object],
    bench: Bench,
    pairs: Iterable[PairSpec],
    runs: Mapping[str, CheckpointSeries],
    epoch: Epoch,
) -> pd.DataFrame:
    """The tables of all pairs, one below the other, with the columns task, pair_kind and both checkpoints before."""
    tables = []
    for pair in pairs:
        first, second = runs[pair.run_a].load(epoch), runs[pair.run_b].load(epoch)
        table = _checked(function(first, second, bench), function)
        tables.append(_named(table, {"task": RunName.parse(pair.run_a).task, **pair.columns(epoch)}))
    return pd.concat(tables, ignore_index=True)


def _checked(table: object, function: Callable[..., object]) -> pd.DataFrame:
    if not isinstance(table, pd.DataFrame):
        raise UserError(f"{function.__module__}:{function.__name__} returned {type(table).__name__}, not a DataFrame")
    return table


def _named(table: pd.DataFrame, names: Mapping[str, str | int]) -> pd.DataFrame:
    taken = [column for column in table.columns if column in names]
    return table.drop(columns=taken).assign(**names)[[*names, *table.columns.drop(taken)]]


def imported(reference: str) -> Callable[..., object]:
    """The function of a reference."""
    name, _, function = reference.partition(":")
    found: Callable[..., object] = getattr(import_module(name), function)
    return found
