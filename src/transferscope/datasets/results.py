"""The results of one task: its tables, and where its figures lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from transferscope.claims.evidence import TaskResults
from transferscope.datasets.table import read_table, write_table
from transferscope.plots.rendered import SavedFigure
from transferscope.system.atomic import atomic_folder


class ResultsDataset(AbstractDataset[TaskResults, TaskResults]):
    """A folder with `results.json` and a CSV per table; figures are referred to, not copied."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> TaskResults:
        index = json.loads((self._folder / "results.json").read_text())
        tables = {name: read_table(self._folder / f"{name}.csv") for name in index["tables"]}
        figures = {name: SavedFigure(self._folder / path) for name, path in index["figures"].items()}
        return TaskResults(index["task"], index["facts"], tables, figures)

    def save(self, data: TaskResults) -> None:
        with atomic_folder(self._folder) as folder:
            for name, table in data.tables.items():
                write_table(table, folder / f"{name}.csv")
            figures = {name: os.path.relpath(figure.png, self._folder) for name, figure in data.figures.items()}
            index = {"task": data.task, "facts": data.facts, "tables": list(data.tables), "figures": figures}
            (folder / "results.json").write_text(json.dumps(index, indent=1))

    def _exists(self) -> bool:
        return (self._folder / "results.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}
