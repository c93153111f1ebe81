"""Many figures as the pages of one PDF."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from transferscope.datasets.previews import table_preview
from transferscope.plots.rendered import one_at_a_time
from transferscope.system.stored import check, is_whole, noted_digest, stored_file


class PagesDataset(AbstractDataset):
    """Saves figures as the pages of one PDF, with the same bytes each time; loads its path.

    It saves a function that gives the figures one after the other, so that one is in memory.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None):
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        check(self._path)
        return self._path

    def save(self, data: Callable[[], Iterable[Any]]) -> None:
        from matplotlib.backends.backend_pdf import PdfPages

        with (
            one_at_a_time,
            stored_file(self._path) as temporary,
            PdfPages(temporary, metadata={"CreationDate": None}) as pages,
        ):
            for figure in data():
                pages.savefig(figure)

    def preview(self) -> TablePreview:
        """The file, which Kedro-Viz cannot show."""
        return table_preview(["file", "bytes"], [[str(self._path), self.load().stat().st_size]])

    def content_digest(self) -> str:
        """The digest that the file bears; "" where it is not there."""
        return noted_digest(self._path)

    def _exists(self) -> bool:
        return is_whole(self._path)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
