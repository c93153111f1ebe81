"""Kedro's validator of tables, which refuses one by a line with its file, row, column and value."""

from __future__ import annotations

import re
from difflib import get_close_matches

import pandas as pd
import pandera.pandas as pa
from kedro.validation.exceptions import DataValidationError
from pandera.errors import SchemaErrors

from transferscope.datasets.schemas.all_tables import file_of, schema_of
from transferscope.datasets.schemas.column_kinds import ORDER, misplaced
from transferscope.system.errors import UserError, one_line

MISSING, REPEATED = "not_nullable", "multiple_fields_uniqueness"
"""Names of pandera's own checks."""


class TableError(DataValidationError, UserError):
    """A table that is not as its schema says; one line."""

    def __str__(self) -> str:
        return self.message


class TableValidator:
    """Check a table against its schema.

    Args:
        table: Name of the table, as `all_tables.schema_of` takes it.
        file: Where the catalog stores it, for messages.
    """

    def __init__(self, table: str, file: str) -> None:
        self.table, self.file = table, file

    def validate(self, data: pd.DataFrame) -> pd.DataFrame:
        """The same table; TableError where a column is missing or unknown, a value does not fit, or a key repeats."""
        fault = self.fault(data)
        if fault:
            raise TableError(one_line(f"{self.file}: {fault}"))
        return data

    def fault(self, data: pd.DataFrame) -> str:
        """The first fault of a table in words; empty where it has none."""
        try:
            schema = schema_of(self.table)
        except UserError as error:
            return str(error)
        rows = data.reset_index(drop=True)
        if rows.empty:
            return self._columns(schema, rows)
        try:
            schema.validate(rows, lazy=True, inplace=True)
        except SchemaErrors as error:
            return self._columns(schema, rows) or self._values(rows, error.failure_cases) or self._keys(schema, rows)
        return ""

    def _columns(self, schema: pa.DataFrameSchema, data: pd.DataFrame) -> str:
        """A column too many, or too few; a table without rows, of which nothing was measured, may lack any."""
        needed = [name for name, column in schema.columns.items() if column.required] if len(data) else []
        missing = [name for name in needed if name not in data]
        unknown = [name for name in map(str, data.columns) if schema.strict and not _is_described(name, schema)]
        if unknown:
            near = get_close_matches(unknown[0], missing, 1)
            hint = f"rename it to '{near[0]}', or describe" if near else "describe"
            place = f"{hint} a new column in {file_of(self.table)} (docs/extending.md, A table)"
            return f"unknown column '{unknown[0]}': {place}"
        return f"column '{missing[0]}' is missing: {schema.columns[missing[0]].description}" if missing else ""

    def _values(self, data: pd.DataFrame, cases: pd.DataFrame) -> str:
        """The first value that does not fit, and in how many rows there are others."""
        faults = cases[cases["index"].notna() & (cases["check"] != REPEATED)].sort_values("index", kind="stable")
        if faults.empty:
            return ""
        first = faults.iloc[0]
        row = int(first["index"])
        column, reason, value = str(first["column"]), str(first["check"]), first["failure_case"]
        if reason == ORDER:
            column, high = next(names for names, rows in misplaced(data).items() if rows[row])
            reason, value = f"must not lie above {high}, {data[high].iloc[row]}", data[column].iloc[row]
        missing = reason == MISSING
        fault = "must not be empty" if missing else f"{reason} (got {repr(value) if isinstance(value, str) else value})"
        others = faults["index"].nunique() - 1
        more = f", and {others} more row{'s' if others > 1 else ''}" if others else ""
        return f"{self._row(row)}, column '{column}': {fault}{more}"

    def _keys(self, schema: pa.DataFrameSchema, data: pd.DataFrame) -> str:
        """The first row that repeats another one's key."""
        keys = list(schema.unique or ())
        row = int(data.duplicated(keys).to_numpy().argmax())
        same = data[keys].apply(lambda column: (column == column[row]) | (column.isna() & pd.isna(column[row])))
        first = int(same.all(axis=1).to_numpy().argmax())
        return f"{self._row(row)} repeats {self._row(first)}: {', '.join(keys)} must name one row"

    def _row(self, row: int) -> str:
        """The row, from 1, and the line that an editor shows of a CSV."""
        return f"row {row + 1} (line {row + 2})" if self.file.endswith(".csv") else f"row {row + 1}"


def _is_described(name: str, schema: pa.DataFrameSchema) -> bool:
    patterns = [str(pattern) for pattern, column in schema.columns.items() if column.regex]
    return name in schema.columns or any(re.match(pattern, name) for pattern in patterns)
