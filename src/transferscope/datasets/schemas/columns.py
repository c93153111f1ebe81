"""Kinds of column from which the schemas are made: texts, flags, whole and other numbers, with their units and ranges.

Each function makes a pandera `Column`. The description and the unit go into the documentation; the range and the kind
are checked. Values of which a schema says nothing else may be missing where they are numbers, because a diverged run
has no metric, and may not where they are texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import copy

import numpy as np
import pandas as pd
import pandera.pandas as pa

ROUNDING = 1e-9
"""Distance from a bound that counts as rounding, as a part of 1 or of the bound where that is larger."""


def text(name: str, meaning: str, *values: str, empty: bool = False, pattern: bool = False) -> pa.Column:
    """A column of texts, one of `values` where there are any; numbers are not texts.

    empty: the text may be missing. pattern: `name` is a regular expression, and there may be no such column.
    """
    expected = f"one of: {', '.join(values)}" if values else "a text"

    def fits(column: pd.Series) -> pd.Series:
        if values:
            return column.isin(["", *values] if empty else values)
        if isinstance(column.dtype, pd.StringDtype):
            return pd.Series(True, column.index)
        return column.map(lambda value: isinstance(value, str)).astype(bool)

    return _column(name, meaning, fits, expected, empty=empty, pattern=pattern, kind="text", range=", ".join(values))


def name_or_number(name: str, meaning: str, *, empty: bool = False) -> pa.Column:
    """A column of texts of which a file cannot tell `7` from 7."""
    return _column(
        name, meaning, lambda column: pd.Series(True, column.index), "a text", empty=empty, kind="text, number"
    )


def flag(name: str, meaning: str) -> pa.Column:
    """A column of True and False."""

    def fits(column: pd.Series) -> pd.Series:
        return column.isin([True, False]) & ~column.map(lambda value: isinstance(value, str)).astype(bool)

    return _column(name, meaning, fits, "True or False", kind="flag")


def number(
    name: str,
    meaning: str,
    unit: str = "",
    *,
    low: float = -math.inf,
    high: float = math.inf,
    always: bool = False,
    pattern: bool = False,
) -> pa.Column:
    """A column of numbers from `low` to `high`; infinite ones where the bounds are.

    always: it is never missing. pattern: as in `text`.
    """
    return _numbers(name, meaning, unit, low, high, whole=False, empty=not always, pattern=pattern)


def count(
    name: str, meaning: str, unit: str = "", *, low: float = 0, empty: bool = False, pattern: bool = False
) -> pa.Column:
    """A column of whole numbers of at least `low`, which are never missing unless `empty`."""
    return _numbers(name, meaning, unit, low, math.inf, whole=True, empty=empty, pattern=pattern)


def share(name: str, meaning: str, unit: str = "share", *, pattern: bool = False) -> pa.Column:
    """A column of numbers from 0 to 1."""
    return number(name, meaning, unit, low=0, high=1, pattern=pattern)


def ranged(column: pa.Column, *, prefix: str | None = None) -> tuple[pa.Column, pa.Column, pa.Column]:
    """The column, and its 95 % interval in two more, `<name>_low` and `<name>_high`.

    prefix: of the names of the two, where it is not the name of the column; "" for `low` and `high` alone.
    """
    return (column, *interval(column, prefix=prefix))


def interval(column: pa.Column, *, prefix: str | None = None) -> tuple[pa.Column, pa.Column]:
    """The two columns of `ranged` without the column itself."""
    before = f"{column.name}_" if prefix is None else prefix and f"{prefix}_"
    ends = []
    for end, which in (("low", "lower"), ("high", "upper")):
        made = copy(column)
        made.name = f"{before}{end}"
        made.description = f"{which} end of the 95 % interval of `{column.name}`"
        ends.append(made)
    return ends[0], ends[1]


def optional(*columns: pa.Column) -> tuple[pa.Column, ...]:
    """The columns, which a table may lack."""
    made = tuple(copy(column) for column in columns)
    for column in made:
        column.required = False
    return made


def table(
    meaning: str, *columns: pa.Column | Iterable[pa.Column], key: Iterable[str] = (), open: bool = False
) -> pa.DataFrameSchema:
    """The schema of a table.

    Args:
        meaning: The sentence about its rows.
        columns: In the order of the table, single ones and groups of them.
        key: Columns whose values together name a row.
        open: Other columns may be there, too.
    """
    named: dict[str, pa.Column] = {}
    for part in columns:
        for column in (part,) if isinstance(part, pa.Column) else part:
            assert column.name not in named, column.name
            named[str(column.name)] = column
    names = list(key)
    assert not set(names) - named.keys(), names
    checks = [pa.Check(_in_order, error=ORDER)] if _bounds(named) else []
    return pa.DataFrameSchema(
        named, checks=checks, strict=not open, unique=names or None, description=meaning, metadata={"key": names}
    )


ORDER = "a lower end of an interval lies above the upper one"


def misplaced(frame: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Rows in which a lower end lies above the upper one, bool (num_rows,), by the names of both."""
    rows = {}
    for low, high in _bounds(frame.columns):
        ends = [pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float) for name in (low, high)]
        rows[low, high] = ends[0] - _slack(ends[1]) > ends[1]
    return rows


def _bounds(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of columns that hold the ends of an interval."""
    known = set(names)
    ends = [(name, f"{name[: -len('low')]}high") for name in known if name == "low" or name.endswith("_low")]
    return sorted((low, high) for low, high in ends if high in known)


def _in_order(frame: pd.DataFrame) -> pd.Series:
    wrong = np.zeros(len(frame), dtype=bool)
    for rows in misplaced(frame).values():
        wrong |= rows
    return pd.Series(~wrong, frame.index)


def _slack(values: np.ndarray) -> np.ndarray:
    return ROUNDING * np.maximum(1, np.nan_to_num(np.abs(values), nan=0, posinf=0))


def _numbers(
    name: str, meaning: str, unit: str, low: float, high: float, *, whole: bool, empty: bool, pattern: bool
) -> pa.Column:
    kind = "whole number" if whole else "number"
    span = _span(low, high)
    slack = ROUNDING * max([1.0, *(abs(end) for end in (low, high) if math.isfinite(end))])

    def fits(column: pd.Series) -> pd.Series:
        if column.dtype.kind not in "iufb":  # one cell with a text makes texts of all
            column = pd.to_numeric(column, errors="coerce").astype(float)
        values = column.to_numpy()
        inside = (values >= low - slack) & (values <= high + slack)
        if whole and values.dtype.kind == "f":
            inside &= np.isfinite(values) & (values == np.floor(values))
        return pd.Series(inside, column.index)

    return _column(
        name, meaning, fits, f"a {kind} {span}".strip(), empty=empty, pattern=pattern, kind=kind, unit=unit, range=span
    )


def _span(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f"of at least {low:g}"
    return f"of at most {high:g}" if math.isinf(low) else f"from {low:g} to {high:g}"


def _column(  # type: ignore[no-untyped-def]
    name: str, meaning: str, fits, expected: str, *, empty: bool = False, pattern: bool = False, **metadata: str
) -> pa.Column:
    return pa.Column(
        checks=pa.Check(fits, error=f"must be {expected}"),
        nullable=empty,
        required=not pattern,
        name=name,
        regex=pattern,
        description=meaning,
        metadata={"unit": "", "range": "", **metadata},
    )
