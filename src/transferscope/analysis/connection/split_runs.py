"""Barriers between a run and its copies, by the epoch after which they go their own ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

COLUMNS = (
    "task", "label", "run", "copy", "split_epoch", "epochs", "way", "split", "metric", "barrier", "barrier_low",
    "barrier_high", "left", "left_low", "left_high", "moved", "num_examples",
)  # fmt: skip


@dataclass(frozen=True)
class SplitPair:
    """A run and a copy of it that takes the examples in another order after `epoch` of its `epochs`."""

    run: str
    """Checkpoint, `clipart.rit_1@final`."""
    copy: str
    label: str
    epoch: int
    epochs: int


def barriers_by_split(barriers: pd.DataFrame, pairs: Iterable[SplitPair]) -> pd.DataFrame:
    """The rows of those pairs in a table of ways, with the epoch of the split: `COLUMNS`, in the order of epochs.

    barriers: of `measure.connection.Connection`, with the columns checkpoint_a and checkpoint_b.

    Source: Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis (arXiv 1912.05671), whose
    instability at step k is the barrier in error between two such copies.
    """
    ends = list(zip(barriers["checkpoint_a"], barriers["checkpoint_b"], strict=True))
    parts = []
    for pair in sorted(pairs, key=lambda one: (one.label, one.epoch)):
        rows = barriers[[{pair.run, pair.copy} == set(both) for both in ends]]
        facts = {"label": pair.label, "run": pair.run, "copy": pair.copy}
        parts.append(rows.assign(**facts, split_epoch=pair.epoch, epochs=pair.epochs))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return table.reindex(columns=list(COLUMNS))
