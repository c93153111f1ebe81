"""Images and labels as distributed: a folder in a format that its task names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from transferscope.datasets.previews import table_preview
from transferscope.experiment.data_formats import format_class
from transferscope.system.errors import UserError
from transferscope.system.stored import DamagedError


class ImageSourceDataset(AbstractDataset):
    """Loads an `ImageSource` (files and labels, no pixels); saves by running a drawing recipe on the folder."""

    def __init__(self, *, filepath: str, task: str, options: dict[str, Any], metadata: dict[str, Any] | None = None):
        self._root = Path(filepath)
        self._task = task
        self._format_name: str = options["format"]
        self._format = format_class(options["format"]).model_validate(
            {key: value for key, value in options.items() if key != "format"}
        )
        self.metadata = metadata

    def load(self) -> Any:
        return replace(self._read(), name=self._task)

    def _read(self) -> Any:
        if not self._exists():
            raise UserError(
                f"tasks.{self._task}.root: the folder {self._root} does not exist; put the images there or name another"
            )
        from transferscope.generated.draw import check_generated

        check_generated(self._root)
        from transferscope.images.source import ImageFormat

        assert isinstance(self._format, ImageFormat)
        return self._format.read(self._root, self._task)

    def save(self, data: Callable[[Path], object]) -> None:
        """Draw the images: `data(root)` writes them in the distributed layout, or finds them there."""
        data(self._root)

    def preview(self) -> TablePreview:
        """A row per part and class, with the number of images that have it."""
        source = self.load()
        rows: list[list[object]] = []
        for part in ("train", "validation", "test"):
            examples = getattr(source, part)
            if examples is not None:
                labels = examples.labels
                for index, name in enumerate(source.class_names):
                    has = labels[:, index] == 1 if source.multi_label else labels == index
                    rows.append([part, name, int(has.sum())])
        return table_preview(["part", "class", "images"], rows)

    def _exists(self) -> bool:
        from transferscope.generated.draw import check_generated

        try:
            check_generated(self._root)
        except (OSError, DamagedError):
            return False
        return self._root.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._root), "task": self._task, "format": self._format_name}
