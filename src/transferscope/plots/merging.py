"""Scores of merged models beside what one could use instead of them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from transferscope.plots.rows import heading, in_order, main_metric, require_columns
from transferscope.plots.style import (
    BLACK,
    BLUE,
    DOUBLE_WIDTH,
    GREEN,
    GREY,
    METRIC_NAMES,
    ORANGE,
    PANEL_WIDTH,
    TITLE_SIZE,
    Look,
    add_note,
    category_ticks,
    empty_figure,
    label,
    legend_below,
    new_figure,
)

METHODS = {
    "uniform": "uniform soup",
    "greedy": "greedy soup",
    "wise_ft": "WiSE-FT",
    "task_arithmetic": "task arithmetic",
    "ties": "TIES",
    "fisher": "Fisher",
    "regmean": "RegMean",
    "aligned": "aligned",
    "aligned_rescaled": "aligned, rescaled",
}
"""Methods as figures and tables name them, in their order."""

KINDS = {
    "candidate": Look(GREY, "s"),
    "ensemble": Look(ORANGE, "^"),
    "union": Look(GREEN, "D"),
    "merge": Look(BLUE, "o"),
}
"""Colour-blind safe, and told apart by their markers as well."""
NAMES = {"candidate": "candidates", "ensemble": "ensemble of logits", "union": "trained on all", "merge": "merges"}
BEST, OTHERS = "chosen candidate", "other candidates"
COLUMNS = (
    "merge", "label", "task", "model", "kind", "metric", "value", "value_low", "value_high", "refitted", "chosen",
)  # fmt: skip
ORDER = (BEST, OTHERS, "ensemble", "trained on all", *METHODS.values())
MOST_PANELS = 6


def row_names(table: pd.DataFrame) -> pd.Series:
    """The printed name of every row's model."""
    best = table["chosen"].astype(bool)
    own = table["model"].map(lambda name: METHODS.get(str(name), str(name)))
    own = own.where(table["kind"] != "ensemble", "ensemble").where(table["kind"] != "union", "trained on all")
    return own.where(table["kind"] != "candidate", best.map({True: BEST, False: OTHERS}))


def group_of(merge: str) -> str:
    """The name of a merge without the number of its replica."""
    return re.sub(r"_\d+$", "", merge)


def merge_scores(merging: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """Scores of every merge on the judging images with 95 % intervals, and with a refitted classifier (crosses).

    A panel for each kind of merge (at most 6), a row for each model, a marker for each replica; filled is the merge
    that was chosen on other images, and the line is the candidate that those images chose. Where a merge is judged on
    several tasks, the mean over them is shown.

    Args:
        merging: Table of `measure.merging.merge` behind columns merge and label.
    """
    require_columns(merging, COLUMNS, "merging")
    rows = merging[merging["metric"] == main_metric(merging)] if len(merging) else merging
    if rows.empty:
        return empty_figure("no merges to show: a run diverged", note)
    several = set(rows.loc[rows["task"] == "all", "merge"])
    rows = rows[(rows["task"] == "all") | ~rows["merge"].isin(several)]
    rows = rows.assign(group=rows["merge"].map(group_of), row=row_names(rows))
    names = [name for name in ORDER if (rows["row"] == name).any()]
    groups = in_order(rows["group"])[:MOST_PANELS]
    columns = min(2, len(groups))
    height = 0.7 + 0.2 * len(names)
    width = PANEL_WIDTH if columns == 1 else DOUBLE_WIDTH
    figure, axes = new_figure(-(-len(groups) // columns), columns, width=width, panel_height=height, sharey=True)
    for ax in axes.flat[len(groups) :]:
        ax.set_axis_off()
    for ax, group in zip(axes.flat, groups, strict=False):
        own = rows[rows["group"] == group]
        _points(ax, own, names)
        label(ax, x=f"test {METRIC_NAMES.get(str(own['metric'].iloc[0]))}", title=f"{own['label'].iloc[0]}: {group}")
    for ax in axes[:, 0]:
        category_ticks(ax, names, axis="y")
        label(ax, y="model")
    kinds = [kind for kind in KINDS if (rows["kind"] == kind).any()]
    marks = [Line2D([], [], color=KINDS[kind].colour, marker=KINDS[kind].marker, ls="", markersize=4) for kind in kinds]
    refitted = Line2D([], [], color=BLACK, marker="x", ls="", markersize=4)
    legend_below(figure, [*marks, refitted], [*(NAMES[kind] for kind in kinds), "classifier refitted"])
    figure.suptitle(heading(title, rows), fontsize=TITLE_SIZE)
    return add_note(figure, note)


def _points(ax: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    """Replicas of a row side by side, and candidates that are not the best one as well."""
    for place, name in enumerate(names):
        own = rows[rows["row"] == name]
        offsets = np.linspace(-0.25, 0.25, len(own)) if len(own) > 1 else np.zeros(len(own))
        for offset, row in zip(offsets, own.to_dict("records"), strict=True):
            look, y = KINDS[str(row["kind"])], place + float(offset)
            ax.hlines(y, row["value_low"], row["value_high"], color=look.colour, linewidth=0.9)
            filled = look.colour if row["chosen"] or row["kind"] in ("ensemble", "union") else "white"
            ax.plot(
                row["value"], y, look.marker, color=look.colour, markerfacecolor=filled, markersize=3.5, linestyle=""
            )
            ax.plot(row["refitted"], y, "x", color=BLACK, markersize=3, linestyle="")
    best = rows.loc[rows["row"] == BEST, "value"].mean()
    if np.isfinite(best):
        ax.axvline(best, color=GREY, linewidth=0.6)
    ax.grid(False, axis="y")
    ax.set_ylim(len(names) - 0.4, -0.6)
