"""Packed splits: uint8 images that are decoded once and memory-mapped ever after."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview


class PackedSplitDataset(AbstractDataset):
    """Loads a `PackedSplit`; saves by running a recipe, `recipe(folder)`, that packs into the folder."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        from transferscope.images.split import PackedSplit

        return PackedSplit.open(self._folder)

    def save(self, data: Callable[[Path], object]) -> None:
        data(self._folder)

    def content_digest(self) -> str:
        """The digest of images, labels and settings; "" where no split is there."""
        from transferscope.system.stored import DamagedError, read_json

        try:
            return str(read_json(self._folder / "split.json")["digest"])
        except (OSError, DamagedError):
            return ""

    def preview(self) -> ImagePreview:
        """A contact sheet."""
        from transferscope.images.seen_images import SeenImages
        from transferscope.plots.galleries import contact_sheet

        split = self.load()
        note = "generated images" if split.generated else None
        title = f"{split.name}, {split.part}: {len(split):,} images"
        sheet = contact_sheet(SeenImages(split), split.labels, split.class_names, title=title, note=note)
        content = io.BytesIO()
        sheet.savefig(content, format="png", dpi=150, bbox_inches="tight")
        return ImagePreview(base64.b64encode(content.getvalue()).decode())

    def _exists(self) -> bool:
        """True if a split is there, as it was packed."""
        from transferscope.images.split import PackedSplit
        from transferscope.system.errors import UserError

        try:
            PackedSplit.open(self._folder).check()
        except UserError:
            return False
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}
