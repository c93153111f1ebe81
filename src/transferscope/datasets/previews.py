"""Previews for Kedro-Viz."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kedro_datasets._typing import TablePreview


def table_preview(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> TablePreview:
    """A table of a few rows, as Kedro-Viz takes it."""
    data = [list(row) for row in rows]
    return TablePreview({"index": list(range(len(data))), "columns": list(columns), "data": data})
