"""What all tables of the report share: tasks that have a table, means with their range, pivots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from transferscope.claims.evidence import CROSS_DOMAIN
from transferscope.claims.results import TaskResults
from transferscope.tables import formats
from transferscope.tables.grid import Grid

Results = Mapping[str, TaskResults]


def none(results: Results) -> list[Grid]:
    """No tables."""
    return []


def each(results: Results, name: str) -> list[tuple[str, pd.DataFrame]]:
    """Tasks that have a table with rows."""
    found = {task: result.tables.get(name) for task, result in results.items() if task != CROSS_DOMAIN}
    return [(task, table) for task, table in found.items() if table is not None and not table.empty]


def spread(values: pd.Series, say: Callable[[float], str]) -> str:
    """Mean, and where there are several values their range: `0.81 (0.79 to 0.83)`."""
    numbers = values.to_numpy(dtype=float)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        return formats.MISSING
    mean, low, high = (say(float(number)) for number in (numbers.mean(), numbers.min(), numbers.max()))
    return mean if len(numbers) == 1 or low == high else f"{mean} ({low} to {high})"


def pivot(
    caption: str, table: pd.DataFrame, row: str, column: str, value: str, entry: str,
    say: Callable[[float], str] | None = None,
) -> Grid:  # fmt: skip
    """Means of `value` by row and column, both in order of appearance."""
    say = say or number
    heads = list(dict.fromkeys(table[column]))
    if pd.api.types.is_numeric_dtype(table[column]):
        heads = sorted(heads)
    means = table.groupby([row, column], sort=False)[value].mean()
    rows = tuple(
        (str(name), *(say(float(means.get((name, head), float("nan")))) for head in heads))
        for name in dict.fromkeys(table[row])
    )
    columns = (
        row.replace("pair_kind", "pair"),
        *(f"{head:g}" if isinstance(head, float) else str(head) for head in heads),
    )
    return Grid(caption, columns, rows, "", entry)


def if_any(
    caption: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str, entry: str
) -> list[Grid]:
    """A grid whose first two columns are text, or none where there are no rows."""
    return [Grid(caption, columns, tuple(rows), note, entry, 2)] if rows else []


def number(value: float) -> str:
    return formats.significant(value, 4)


def score(metric: str) -> Callable[[float], str]:
    return lambda value: formats.score(value, metric)
