"""A table ready to be shown: text in rows and columns, for the page, the terminal and Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from transferscope.tables.columns import column
from transferscope.tables.formats import Format, cell


@dataclass(frozen=True)
class Grid:
    """Text in rows and columns; `entry` names the catalog entry with all of it, `text_columns` are set left."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    entry: str = ""
    text_columns: int = 1
    marks: Mapping[int, str] = field(default_factory=dict)
    """Row number -> a class that sets the row apart."""


def from_table(
    caption: str,
    table: pd.DataFrame,
    columns: Sequence[str],
    *,
    entry: str = "",
    note: str = "",
    most: int = 400,
    show: Mapping[str, Format] | None = None,
) -> Grid:
    """The columns of a table that are there, at most `most` rows, with a word on the rest.

    show: formats of columns that depend on the table, such as those of its metric; else `tables.columns` has them.
    """
    chosen = [name for name in columns if name in table.columns]
    formats = {name: column(name).show for name in chosen} | dict(show or {})
    shown = table[chosen].head(most)
    rows = tuple(
        tuple(cell(value, formats[name]) for name, value in zip(chosen, row, strict=True))
        for row in shown.itertuples(index=False, name=None)
    )
    if len(table) > most:
        note = f"{note} The first {most} of {len(table):,} rows.".strip()
    texts = 0
    while texts < len(chosen) and not pd.api.types.is_numeric_dtype(table[chosen[texts]]):
        texts += 1
    heads = tuple(column(name).heading for name in chosen)
    return Grid(caption, heads, rows, note=note, entry=entry, text_columns=max(texts, 1))
