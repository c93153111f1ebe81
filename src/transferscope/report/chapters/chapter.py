"""Chapters and sections of the page, and the kinds of table that several of them show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.experiment.plan import Plan
from transferscope.tables import formats
from transferscope.tables.columns import column
from transferscope.tables.formats import Format
from transferscope.tables.grid import Grid, from_table

Tables = Callable[[Evidence], list[Grid]]


def no_tables(evidence: Evidence) -> list[Grid]:
    """No tables."""
    return []


@dataclass(frozen=True, kw_only=True)
class Section:
    """One entry of the page.

    numbers: as in the paper. see: what to look for. analysis, option: what must be planned for it,
    `analyses.<analysis>.<option>`. figures: names of figures of each task, or a function of the plan that gives those
    of the scenarios across tasks. paper: the paper's tables. tables: ours of all tasks, open; `folded` ones are closed.
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


def overview(
    caption: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]], note: str, entry: str
) -> list[Grid]:
    """A grid of all tasks whose first two columns are text, or none where there are no rows."""
    return [Grid(caption, tuple(columns), tuple(rows), note=note, entry=entry, text_columns=2)] if rows else []


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
