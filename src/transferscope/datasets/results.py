"""The results of one task: its tables, and where its figures lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from transferscope.claims.evidence import TaskResults
from transferscope.datasets.previews import table_preview
from transferscope.datasets.table import read_table, write_table
from transferscope.plots.rendered import SavedFigure
from transferscope.system.atomic import atomic_folder
from transferscope.system.stored import DamagedError, check, noted_digest, path_in_data, read_json, write_json


class ResultsDataset(AbstractDataset[TaskResults, TaskResults]):
    """A folder with `results.json` and a CSV per table; figures are referred to, not copied."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> TaskResults:
        index = read_json(self._folder / "results.json")
        tables = {name: read_table(path) for name, path in self._tables(index)}
        figures = {name: SavedFigure(self._folder / path) for name, path in index["figures"].items()}
        for figure in figures.values():
            if figure.png.is_file():
                check(figure.png)
        return TaskResults(index["task"], index["facts"], tables, figures)

    def save(self, data: TaskResults) -> None:
        with atomic_folder(self._folder) as folder:
            for name, table in data.tables.items():
                write_table(table, folder / f"{name}.csv", path_in_data(self._folder / f"{name}.csv"))
            figures = {name: os.path.relpath(figure.png, self._folder) for name, figure in data.figures.items()}
            digests = {name: noted_digest(folder / f"{name}.csv") for name in data.tables}
            index = {"task": data.task, "facts": data.facts, "tables": digests, "figures": figures}
            write_json(folder / "results.json", index, path_in_data(self._folder / "results.json"))

    def preview(self) -> TablePreview:
        """A row per table and figure."""
        results = self.load()
        rows: list[list[Any]] = [[name, "table", len(table)] for name, table in results.tables.items()]
        rows += [[name, "figure", None] for name in results.figures]
        return table_preview(["name", "kind", "rows"], rows)

    def content_digest(self) -> str:
        """The digest that the index bears, which holds those of the tables; "" where it is not there."""
        return noted_digest(self._folder / "results.json")

    def _exists(self) -> bool:
        """All files whole; a figure that is not is drawn by another node."""
        try:
            for _, path in self._tables(read_json(self._folder / "results.json")):
                check(path)
        except (OSError, DamagedError):
            return False
        return True

    def _tables(self, index: dict[str, Any]) -> Iterator[tuple[str, Path]]:
        """Names and files of the tables; DamagedError for one that is not of this index, as an older version of it."""
        for name in index["tables"]:
            path = self._folder / f"{name}.csv"
            if isinstance(index["tables"], dict) and noted_digest(path) not in ("", index["tables"][name]):
                raise DamagedError(path, "it is another version than results.json was written with")
            yield name, path

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}
