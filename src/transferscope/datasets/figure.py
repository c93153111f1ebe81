"""Figures as PNG for the screen and PDF for print, and many of them as the pages of one PDF."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview

from transferscope.plots.rendered import SavedFigure
from transferscope.system.stored import check, is_whole, noted_digest, stored_file


class FigureDataset(AbstractDataset):
    """Saves a matplotlib `Figure`, or what `render` made of it, as PNG and PDF; loads a `SavedFigure`."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> SavedFigure:
        for path in (self._path, self._path.with_suffix(".pdf")):
            check(path)
        return SavedFigure(self._path)

    def save(self, data: Any) -> None:
        from transferscope.plots.rendered import RenderedFigure, render

        rendered = data if isinstance(data, RenderedFigure) else render(data)
        for suffix, content in ((".pdf", rendered.pdf), (".png", rendered.png)):
            with stored_file(self._path.with_suffix(suffix)) as temporary:
                temporary.write_bytes(content)

    def preview(self) -> ImagePreview:
        """The PNG."""
        check(self._path)
        return ImagePreview(base64.b64encode(self._path.read_bytes()).decode())

    def content_digest(self) -> str:
        """The digests that both files bear; "" where one is not there."""
        return noted_digest(self._path, self._path.with_suffix(".pdf"))

    def _exists(self) -> bool:
        return is_whole(self._path) and is_whole(self._path.with_suffix(".pdf"))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
