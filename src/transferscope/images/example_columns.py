"""Columns of an example list beside paths and labels, such as sex or view: by them examples are grouped.

They are a table of texts with a row per example, stored with the packed split as `columns.parquet`. A data set without
such columns has a table without columns, and no file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transferscope.system.errors import UserError

COLUMNS = "columns.parquet"
MAX_GROUPS = 50
"""Values of a column by which examples are grouped."""
BLANK = "(blank)"


def no_columns(num_examples: int) -> pd.DataFrame:
    """The table of a list that has paths and labels alone."""
    return pd.DataFrame(index=pd.RangeIndex(num_examples))


def column_name(heading: str) -> str:
    """The name of a column in the parameters: lower-case letters and digits, underscores for the rest."""
    return re.sub(r"[^a-z0-9]+", "_", heading.strip().lower()).strip("_")


def write_columns(folder: Path, columns: pd.DataFrame) -> None:
    """Write a table that has columns."""
    columns.reset_index(drop=True).to_parquet(folder / COLUMNS)


def read_columns(folder: Path, num_examples: int) -> pd.DataFrame:
    """The table of a packed split."""
    path = folder / COLUMNS
    return pd.read_parquet(path) if path.exists() else no_columns(num_examples)


def join_columns(parts: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """The tables of a union's parts, by their names, one after the other: the columns that all have, and `domain`.

    domain is the name of the part that an example is from.
    """
    names = [name for name in parts[0][1] if all(name in table for _, table in parts)]
    tables = [table[names].astype(str).assign(domain=part) for part, table in parts]
    return pd.concat(tables, ignore_index=True).astype("category")


def columns_digest(columns: pd.DataFrame) -> str:
    """sha256 of names and values; "" where there is no column."""
    if not len(columns.columns):
        return ""
    digest = hashlib.sha256()
    for name in columns:
        column = columns[name].astype("category").cat
        digest.update(f"{name}\0{list(column.categories)}\0".encode())
        digest.update(column.codes.to_numpy(dtype="<i4").tobytes())
    return digest.hexdigest()


def columns_faults(columns: pd.DataFrame, asked: Iterable[str], task: str) -> Iterable[str]:
    """A line for each column asked for that the examples of a task lack, or that has too many values."""
    for name in asked:
        if name not in columns:
            there = ", ".join(map(str, columns)) or "none"
            yield f"{task}: its example list has no column {name!r}; columns that examples can be grouped by: {there}"
        elif (number := columns[name].nunique()) > MAX_GROUPS:
            yield f"{task}: column {name!r} has {number} values: give one of at most {MAX_GROUPS}"


def grouping_column(columns: pd.DataFrame, name: str, task: str) -> tuple[list[str], NDArray[np.int64]]:
    """The values of a column in alphabetical order, and the number of each example's value.

    Raises:
        UserError: there is no such column, or it has more than 50 values.
    """
    for fault in columns_faults(columns, [name], task):
        raise UserError(fault)
    texts = columns[name].astype(str).str.strip().replace("", BLANK)
    codes, values = pd.factorize(texts, sort=True)
    return [str(value) for value in values], codes.astype(np.int64)
