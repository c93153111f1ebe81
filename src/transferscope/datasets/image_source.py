"""Images and labels as distributed: a folder in DomainNet's, CheXpert's or the class-per-folder layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from transferscope.experiment.study import ONLY_FOR
from transferscope.system.errors import UserError
from transferscope.system.stored import DamagedError


class ImageSourceDataset(AbstractDataset):
    """Loads an `ImageSource` (files and labels, no pixels); saves by running a drawing recipe on the folder."""

    def __init__(self, *, filepath: str, task: str, options: dict[str, Any], metadata: dict[str, Any] | None = None):
        self._root = Path(filepath)
        self._task = task
        self._options = options
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
        layout = self._options["format"]
        given = {
            key: value
            for key, value in self._options.items()
            if ONLY_FOR.get(key) == layout and key != "domain" and value is not None
        }
        if layout == "domainnet":
            from transferscope.images.domainnet import read_domainnet

            return read_domainnet(self._root, self._options["domain"] or self._task, **given)
        if layout == "chexpert":
            from transferscope.images.chexpert import read_chexpert

            return read_chexpert(self._root, **given)
        from transferscope.images.image_folder import read_image_folder

        return read_image_folder(self._root, **given)

    def save(self, data: Callable[[Path], object]) -> None:
        """Draw the images: `data(root)` writes them in the distributed layout, or finds them there."""
        data(self._root)

    def _exists(self) -> bool:
        from transferscope.generated.draw import check_generated

        try:
            check_generated(self._root)
        except (OSError, DamagedError):
            return False
        return self._root.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._root), "task": self._task, "format": self._options["format"]}
