"""A table ready to be shown: text in rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from transferscope.tables import formats

HEADINGS = {
    "pair_kind": "pair",
    "checkpoint_a": "first",
    "checkpoint_b": "second",
    "class_name": "class",
    "accuracy_a": "accuracy, first",
    "accuracy_b": "accuracy, second",
    "num_examples": "examples",
    "num_test": "test examples",
    "class_size": "train examples",
    "only_a_correct": "only first right",
    "only_b_correct": "only second right",
    "common_mistakes": "common mistakes",
    "uncommon_ratio_a": "uncommon, first",
    "uncommon_ratio_b": "uncommon, second",
    "uncommon_ratio_difference": "uncommon, second - first",
    "mcnemar_p": "McNemar p",
    "pearson_r": "Pearson r",
    "p_value": "p",
    "barrier_alpha": "at alpha",
    "best_epoch": "best epoch",
    "num_classes": "classes",
    "source_width_median": "source width",
    "source_height_median": "source height",
    "num_dropped": "dropped",
    "optimization_speed": "optimization speed",
    "cka": "CKA",
    "mu": "criticality μ",
    "epsilon": "ε",
}


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
    caption: str, table: pd.DataFrame, columns: Sequence[str], *, entry: str = "", note: str = "", most: int = 400
) -> Grid:
    """The columns of a table that are there, formatted by their names; at most `most` rows, with a word on the rest."""
    chosen = [column for column in columns if column in table.columns]
    shown = table[chosen].head(most)
    rows = tuple(
        tuple(formats.cell(column, value) for column, value in zip(chosen, row, strict=True))
        for row in shown.itertuples(index=False, name=None)
    )
    if len(table) > most:
        note = f"{note} The first {most} of {len(table):,} rows.".strip()
    texts = 0
    while texts < len(chosen) and not pd.api.types.is_numeric_dtype(table[chosen[texts]]):
        texts += 1
    heads = tuple(HEADINGS.get(column, column.replace("_", " ")) for column in chosen)
    return Grid(caption, heads, rows, note, entry, max(texts, 1))
