"""Tables as CSV or Parquet, saved atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from transferscope.system.stored import DamagedError, check, is_whole, noted_digest, stored_file


class TableDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """A data frame without its index; the suffix, `.csv` or `.parquet`, names the format.

    table: name of its schema (`datasets.schemas`), by which the damage of a file is described.
    """

    def __init__(self, *, filepath: str, table: str | None = None, metadata: dict[str, Any] | None = None):
        self._path, self._table = Path(filepath), table
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        try:
            return read_table(self._path)
        except DamagedError as error:
            fault = self._fault()
            raise DamagedError(error.path, f"{error.reason}: {fault}" if fault else error.reason) from None

    def _fault(self) -> str:
        """The first value of a damaged file that does not fit its schema; empty where all do, or it is no table."""
        if self._table is None:
            return ""
        from transferscope.datasets.schemas import TableValidator

        try:
            return TableValidator(self._table, str(self._path)).fault(_parsed(self._path))
        except (OSError, ValueError):
            return ""

    def save(self, data: pd.DataFrame) -> None:
        write_table(data, self._path)

    def preview(self, rows: int = 40) -> TablePreview:
        """The first rows."""
        return TablePreview(
            self.load().head(rows).astype(object).where(lambda part: part.notna(), None).to_dict("split")
        )

    def content_digest(self) -> str:
        """The digest that the file bears; "" where it is not there."""
        return noted_digest(self._path)

    def _exists(self) -> bool:
        return is_whole(self._path)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}


TEXT = (
    "task", "label", "label_a", "label_b", "pair_kind", "kind", "hull", "class_name", "class_a", "class_b", "run",
    "checkpoint_a", "checkpoint_b", "module", "layer", "layer_b", "part", "split", "path", "example_id", "reason",
    "source_epoch", "first_epoch", "first_epoch_low", "first_epoch_high",
)  # fmt: skip
"""Columns that hold names: a class that is called 007, inf or NA keeps its name."""


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV or Parquet file; floats come back bit for bit, and names as they were.

    DamagedError where the file is not as it was written.
    """
    check(path)
    return _parsed(path)


def _parsed(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    names = dict.fromkeys(TEXT, "str")
    return pd.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""], dtype=names)


def write_table(table: pd.DataFrame, path: Path, place: str | None = None) -> None:
    """Write a CSV or Parquet file atomically, with its digest beside it; `place` as for `stored_file`."""
    with stored_file(path, place) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, lineterminator="\n")
