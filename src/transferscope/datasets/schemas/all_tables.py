"""The schema of a table by the name of its entry, and what a schema says in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import ModuleType

import pandas as pd
import pandera.pandas as pa

from transferscope.datasets.schemas import (
    data_prep,
    feature_reuse,
    landscape,
    merging,
    mistakes,
    own,
    report,
    similarity,
    spectrum,
    training,
)
from transferscope.system.errors import UserError

FILES: tuple[ModuleType, ...] = (
    data_prep, training, mistakes, similarity, landscape, spectrum, feature_reuse, merging, own, report,
)  # fmt: skip
"""Schemas, a file per pipeline."""

OF_A_TASK = ".table"
"""End of the names of tables of a whole task; they have the schema of those of runs and pairs, or one of their own."""

SCHEMAS: Mapping[str, pa.DataFrameSchema] = {name: schema for file in FILES for name, schema in file.TABLES.items()}


def schema_of(table: str) -> pa.DataFrameSchema:
    """The schema of `barriers`, a table of a pair, or of `barriers.table`, that of the task.

    Raises UserError for a table that has none.
    """
    short = table.removesuffix(OF_A_TASK)
    if short.startswith(own.PREFIX):
        return SCHEMAS[f"{own.PREFIX}<name>"]
    schema = SCHEMAS.get(table) or SCHEMAS.get(short)
    if schema is None:
        near = get_close_matches(short, SCHEMAS, 1)
        hint = f"did you mean {near[0]}?" if near else "describe it in src/transferscope/datasets/schemas"
        raise UserError(f"there is no schema of a table '{short}': {hint} (docs/extending.md, A table)")
    return schema


def file_of(table: str) -> str:
    """The file in which a table's schema stands, from the project's folder."""
    schema = schema_of(table)
    name = next(file.__name__ for file in FILES if any(schema is one for one in file.TABLES.values()))
    return f"src/{name.replace('.', '/')}.py"


def describe(table: str) -> pd.DataFrame:
    """A row per column of a table: column, kind, unit, range, meaning; `(optional)` where a table may lack it."""
    rows = [
        {
            "column": _shown(str(name)) if column.regex else name,
            "kind": column.metadata["kind"],
            "unit": column.metadata["unit"],
            "range": column.metadata["range"],
            "meaning": f"{column.description}{'' if column.required or column.regex else ' (optional)'}",
        }
        for name, column in schema_of(table).columns.items()
    ]
    return pd.DataFrame(rows)


def _shown(pattern: str) -> str:
    """A regular expression as readers of tables write it, `count_below_*`."""
    plain = pattern.strip("^$").replace(r"[\d.e+-]+", "*").replace("(/.+)?", "[/*]")
    return plain


def named_schemas() -> Iterator[tuple[str, str, pa.DataFrameSchema]]:
    """Pipeline, name and schema of every table, in the order of the files."""
    for file in FILES:
        for name, schema in file.TABLES.items():
            yield file.__name__.removeprefix(f"{__package__}."), name, schema
