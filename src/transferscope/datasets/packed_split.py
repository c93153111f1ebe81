"""Packed splits: uint8 images that are decoded once and memory-mapped ever after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset


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

    def _exists(self) -> bool:
        return (self._folder / "split.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}
