"""Rows of the history: what is measured after each epoch."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

Row = dict[str, Any]

LEADING = ("task", "run", "epoch", "lr", "train_loss")
"""First columns; `train_loss` is the mean over the epoch's own batches, while the weights were changing."""

PARTS = ("train", "test", "validation")


def metric_columns(part: str, metrics: dict[str, float]) -> Row:
    """Columns of one part: `test_accuracy`, `test_loss`, `test_auc`, `test_auc/<class>`, ...

    The loss of an evaluation of the training split is `train_loss_eval`, since `train_loss` is the running one.
    """
    rename = {"loss": "loss_eval"} if part == "train" else {}
    return {f"{part}_{rename.get(name, name)}": value for name, value in metrics.items()}


def history_table(rows: list[Row]) -> pd.DataFrame:
    """One row per epoch, 0 (the untrained model) included; what was not measured is nan."""
    table = pd.DataFrame(rows)
    rest = [column for column in table.columns if column not in LEADING]
    order = {part: index for index, part in enumerate(PARTS)}
    rest.sort(key=lambda column: order[column.partition("_")[0]])
    return table[[*LEADING, *rest]]


def score(row: Row, part: str, *, multi_label: bool) -> float:
    """What `best` is chosen by: mean AUC of a multi-label task, accuracy of another; nan if not measured."""
    return float(row.get(f"{part}_{'auc' if multi_label else 'accuracy'}", math.nan))
