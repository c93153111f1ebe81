"""Entries that Kedro-Viz draws as one."""

from __future__ import annotations

from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from transferscope.datasets.previews import table_preview


class EntryGroupDataset(AbstractDataset):
    """The names of other entries, for the preview alone: it cannot be loaded or saved."""

    def __init__(self, *, entries: list[str], metadata: dict[str, Any] | None = None):
        self._entries = entries
        self.metadata = metadata

    def load(self) -> NoReturn:
        raise DatasetError(f"it stands for {', '.join(self._entries)}: load one of these")

    def save(self, data: object) -> NoReturn:
        raise DatasetError("it stands for other entries: save one of these")

    def preview(self) -> TablePreview:
        """A row per entry."""
        return table_preview(["entry"], [[name] for name in self._entries])

    def _describe(self) -> dict[str, Any]:
        return {"entries": len(self._entries)}
