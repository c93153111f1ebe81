"""A merged model and its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import JSONPreview


class MergedModelDataset(AbstractDataset):
    """A `MergedModel`: a folder with `merged.safetensors` and `card.json`, each with a digest of its content."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        from transferscope.models.merged import MergedModel

        return MergedModel.open(self._folder)

    def save(self, data: Any) -> None:
        data.save(self._folder)

    def preview(self) -> JSONPreview:
        """The card."""
        return JSONPreview(json.dumps(dict(self.load().card)))

    def content_digest(self) -> str:
        """The digests that the card, and weights where there are any, bear; "" where none is there."""
        from transferscope.models.merged import CARD, WEIGHTS
        from transferscope.system.stored import noted_digest

        return noted_digest(*filter(Path.exists, (self._folder / WEIGHTS, self._folder / CARD)))

    def _exists(self) -> bool:
        from transferscope.models.merged import MergedModel

        return MergedModel.is_whole(self._folder)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}
