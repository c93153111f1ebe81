"""A run's checkpoints by epoch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from transferscope.datasets.previews import table_preview
from transferscope.system.atomic import atomic_folder, replace_folder


class CheckpointSeriesDataset(AbstractDataset):
    """Loads a `CheckpointSeries`; saves by moving the folder in which the run was trained to its place."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        from transferscope.models.series import CheckpointSeries

        return CheckpointSeries.open(self._folder)

    def save(self, data: Any) -> None:
        source = Path(data.folder)
        if source.resolve() == self._folder.resolve():
            return
        if source.parent.resolve() == self._folder.parent.resolve():
            replace_folder(source, self._folder)
            return
        with atomic_folder(self._folder) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)

    def preview(self) -> TablePreview:
        """A row per saved epoch."""
        series = self.load()
        rows = [[epoch, _names(series, epoch), series.path(epoch).stat().st_size] for epoch in series.epochs]
        return table_preview(["epoch", "name", "bytes"], rows)

    def _exists(self) -> bool:
        """True if the index is there, and every checkpoint that it lists is whole."""
        from transferscope.models.series import CheckpointSeries
        from transferscope.system.errors import UserError

        try:
            CheckpointSeries.open(self._folder).check()
        except UserError:
            return False
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}


def _names(series: Any, epoch: int) -> str:
    return ", ".join(name for name in ("best", "final") if getattr(series, name) == epoch)
