"""Barriers between copies of a run, by the epoch of the split."""

from __future__ import annotations

import pandas as pd

from transferscope.analysis.connection import SplitPair, barriers_by_split
from transferscope.analysis.connection.split_runs import COLUMNS

NAMES = ["t.rit_1@final", "t.rit_split_e2_1@final", "t.rit_split_e0_1@final", "t.rit_2@final"]
PAIRS = [SplitPair(NAMES[0], NAMES[1], "RI-T", 2, 4), SplitPair(NAMES[0], NAMES[2], "RI-T", 0, 4)]


def barriers() -> pd.DataFrame:
    """Two ways between the run and each copy, one turned round, and between the run and another one."""
    ends = [(NAMES[0], NAMES[1]), (NAMES[2], NAMES[0]), (NAMES[0], NAMES[3])]
    rows = [(a, b, way, 0.1 * place) for place, (a, b) in enumerate(ends) for way in ("straight", "aligned")]
    return pd.DataFrame(rows, columns=["checkpoint_a", "checkpoint_b", "way", "barrier"]).assign(task="t")


def test_rows_of_copies_by_epoch() -> None:
    """Rows of a run with its copies, whichever end they are, in the order of splits; other pairs are left out."""
    table = barriers_by_split(barriers(), PAIRS)
    assert tuple(table.columns) == COLUMNS
    assert table["split_epoch"].tolist() == [0, 0, 2, 2]
    assert table["barrier"].tolist() == [0.1, 0.1, 0.0, 0.0]
    assert table["copy"].tolist() == [NAMES[2]] * 2 + [NAMES[1]] * 2
    assert set(table["epochs"]) == {4}


def test_without_measured_pairs_there_are_no_rows() -> None:
    """Copies whose pair diverged give no rows, and neither do studies without copies."""
    assert barriers_by_split(barriers().iloc[:0], PAIRS).empty
    assert tuple(barriers_by_split(barriers(), []).columns) == COLUMNS
