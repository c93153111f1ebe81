"""Chapters and sections of the page, and the kinds of table that several of them show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.experiment.plan import Plan
from transferscope.tables import formats
from transferscope.tables.columns import column
from transferscope.tables.formats import Format, cell
from transferscope.tables.grid import Grid, from_table

Tables = Callable[[Evidence], list[Grid]]


def no_tables(evidence: Evidence) -> list[Grid]:
    """No tables."""
    return []


@dataclass(frozen=True)
class Words:
    """Texts of a section in the report of a study that compares checkpoint files: how to read it, and a note."""

    see: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One entry of the page.

    numbers: as in the paper. see: what to look for. analysis, option: what must be planned for it,
    `analyses.<analysis>.<option>`. figures: names of figures of each task, or a function of the plan that gives those
    of the scenarios across tasks. paper: the paper's tables. tables: ours of all tasks, open; `folded` ones are closed.
    of_files: its texts in the report of a study that compares checkpoint files, which has neither the paper's tables
    nor its numbers; None: it does not stand there.
    """

    id: str
    numbers: str
    title: str
    see: str
    analysis: str
    option: str = ""
    figures: tuple[str, ...] | Callable[[Plan], list[str]] = ()
    paper: tuple[Grid, ...] = ()
    tables: Tables = no_tables
    folded: Tables = no_tables
    note: str = ""
    of_files: Words | None = None


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Sections under one heading, with the appendix's own section."""

    title: str
    appendix: str
    sections: tuple[Section, ...]


def number(value: float) -> str:
    """Four significant digits."""
    return formats.significant(value, 4)


def spread(values: pd.Series, show: Format) -> str:
    """Mean, and where there are several values their range: `0.81 (0.79 to 0.83)`."""
    numbers = values.to_numpy(dtype=float)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        return formats.MISSING
    mean, low, high = (show(float(value)) for value in (numbers.mean(), numbers.min(), numbers.max()))
    return mean if len(numbers) == 1 or low == high else f"{mean} ({low} to {high})"


def interval(low: float, high: float, show: Format) -> str:
    """` [0.79, 0.83]`, empty where an end is not known: what follows a number in its cell."""
    return "" if math.isnan(low) or math.isnan(high) else f" [{cell(low, show)}, {cell(high, show)}]"


def with_intervals(table: pd.DataFrame, names: Iterable[str]) -> dict[str, list[str]]:
    """Those of the columns that have `<name>_low` and `<name>_high`, as texts with their intervals."""
    ranged = [name for name in names if f"{name}_low" in table]
    return {
        name: [
            cell(value, column(name).show) + interval(low, high, column(name).show)
            for value, low, high in table[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False, name=None)
        ]
        for name in ranged
    }


def without_task(names: pd.Series, task: str) -> pd.Series:
    """Names of runs or checkpoints in a table of their task: `pt_1@final`."""
    return names.astype(str).str.removeprefix(f"{task}.")


def overview(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    note: str,
    entry: str,
    *,
    text_columns: int = 2,
) -> list[Grid]:
    """A grid of all tasks whose first columns are text, or none where there are no rows."""
    grid = Grid(caption, tuple(columns), tuple(rows), note=note, entry=entry, text_columns=text_columns)
    return [grid] if rows else []


def means(parts: Iterable[tuple[str, str, pd.DataFrame]], names: Iterable[str]) -> list[tuple[str, ...]]:
    """A row per task and kind: of each column the mean and the range over its rows."""
    return [(task, kind, *(spread(part[name], number) for name in names)) for task, kind, part in parts]


def per_task(evidence: Evidence, name: str, caption: str, columns: Sequence[str], note: str = "") -> list[Grid]:
    """A table of every task that has it, under `<task>caption`."""
    return [
        from_table(f"{task}{caption}", table, columns, entry=f"{task}.{name}.table", note=note)
        for task, table in evidence.each(name)
    ]


def joined(evidence: Evidence, name: str, caption: str, columns: Sequence[str], note: str = "") -> list[Grid]:
    """The tables of all tasks as one, or none where no task has it."""
    tables = [table.assign(task=task) for task, table in evidence.each(name)]
    entry = f"<task>.{name}.table"
    return [from_table(caption, pd.concat(tables), columns, entry=entry, note=note)] if tables else []


def pivot(
    caption: str, table: pd.DataFrame, row: str, head: str, value: str, entry: str, show: Format = number
) -> Grid:
    """Means of `value` by row and column, both in order of appearance."""
    heads = list(dict.fromkeys(table[head]))
    if pd.api.types.is_numeric_dtype(table[head]):
        heads = sorted(heads)
    means = table.groupby([row, head], sort=False)[value].mean()
    rows = tuple(
        (str(name), *(show(float(means.get((name, one), float("nan")))) for one in heads))
        for name in dict.fromkeys(table[row])
    )
    columns = (column(row).heading, *(f"{one:g}" if isinstance(one, float) else str(one) for one in heads))
    return Grid(caption, columns, rows, entry=entry)
