"""A text file, saved atomically."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from transferscope.datasets.previews import table_preview
from transferscope.system.stored import check, is_whole, noted_digest, stored_file


class TextDataset(AbstractDataset[str, str]):
    """UTF-8 text such as the report."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> str:
        check(self._path)
        return self._path.read_text(encoding="utf-8")

    def save(self, data: str) -> None:
        with stored_file(self._path) as temporary:
            temporary.write_text(data, encoding="utf-8")

    def preview(self) -> TablePreview:
        """The headings."""
        headings = re.findall(r"^#+ (.+)$|<h[1-3][^>]*>(.+?)</h", self.load(), re.MULTILINE | re.DOTALL)
        rows = [[" ".join(re.sub("<[^>]+>", " ", markdown or page).split())] for markdown, page in headings]
        return table_preview([self._path.name], rows)

    def content_digest(self) -> str:
        """The digest that the file bears; "" where it is not there."""
        return noted_digest(self._path)

    def _exists(self) -> bool:
        return is_whole(self._path)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
