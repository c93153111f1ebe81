"""The table of feature reuse by the side of the shuffled blocks, and the paper's numbers beside it (Figure 3)."""

from __future__ import annotations

import numpy as np
import pandas as pd

PAPER_DROPS = {
    "quickdraw": (91, 69, 30, 23, 20, 23, 24, 20, 25, 18, 26, 24, 22),
    "clipart": (33, 22, 23, 22, 29, 33, 38, 41, 46, 45, 49, 43, 40),
    "real": (16, 9, 3, 12, 31, 34, 45, 45, 52, 45, 52, 45, 42),
}
"""Relative drop in percent by task: all values shuffled, then by the sides of `PAPER_SIZES` (main text, Figure 3)."""
PAPER_SIZES = (1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 112, 224)
PAPER_SIDE = 224


def shuffled_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of block sizes with one permutation for all images, whole images among them.

    Where whole images were trained again without augmentation, as the shuffled ones are, these rows count, else those
    of the task's own runs.
    """
    blocks = table["series"] == "blocks"
    again = (table.loc[blocks, "size"].astype(str) == table.loc[blocks, "side"].astype(str)).any()
    return table[blocks if again else blocks | (table["series"] == "whole")]


def relative_drops(table: pd.DataFrame) -> pd.DataFrame:
    """100 (P-T - RI-T) / P-T of the mean final test metric, in percent: columns size, drop.

    Rows of one permutation for all images, and of whole images; sizes that both kinds have.
    """
    rows = shuffled_rows(table)
    means = rows.groupby(["role", rows["size"].astype(str)])["final_test"].mean()
    drops = []
    for size in dict.fromkeys(rows["size"].astype(str)):
        tuned, scratch = (means.get((role, size), np.nan) for role in ("fine_tuned", "from_scratch"))
        if np.isfinite(tuned) and np.isfinite(scratch) and tuned > 0:
            drops.append({"size": size, "drop": 100 * (tuned - scratch) / tuned})
    return pd.DataFrame(drops, columns=["size", "drop"])


def paper_drop(task: str, size: str, side: int) -> float:
    """The paper's relative drop, in percent, at the share of the side that is nearest (both sides as logarithms).

    nan for other tasks.
    """
    if task not in PAPER_DROPS:
        return np.nan
    values, whole, pixel = PAPER_DROPS[task][0], PAPER_DROPS[task][1:], np.array(PAPER_SIZES) / PAPER_SIDE
    if size == "values":
        return float(values)
    return (
        float(whole[int(np.abs(np.log(pixel) - np.log(int(size) / side)).argmin())])
        if int(size) > 1
        else float(whole[0])
    )
