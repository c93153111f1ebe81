"""Figure of the barrier between copies of one run against the epoch after which they go their own ways."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferscope.plots.connections import LOOKS, WAYS
from transferscope.plots.marks import banded_line
from transferscope.plots.rows import heading, how_many, in_order, main_metric, require_columns
from transferscope.plots.style import GREY, PANEL_WIDTH, add_note, empty_figure, label, legend_below, new_figure

COLUMNS = ("label", "split_epoch", "way", "split", "metric", "barrier", "barrier_low", "barrier_high")


def barrier_by_split(
    table: pd.DataFrame, *, metric: str | None = None, title: str | None = None, note: str | None = None
) -> Figure:
    """A panel per kind of run, a line per way: the mean over runs, with its interval over test images as a band.

    All pairs of a task are measured on the same images, so the interval of the mean is at most the mean of intervals,
    which is drawn.

    Args:
        table: of `analysis.connection.barriers_by_split`, of one task.
        metric: "accuracy", "auc" or "loss"; default: auc where the table has it, else accuracy.
    """
    require_columns(table, COLUMNS, "split_runs")
    metric = metric or main_metric(table)
    rows = table[(table["metric"] == metric) & (table["split"] == "test")].dropna(subset="barrier")
    if rows.empty:
        return empty_figure("no copies of a run to show: all diverged", note)
    labels = in_order(rows["label"])
    figure, axes = new_figure(1, len(labels), width=PANEL_WIDTH * min(len(labels), 2), sharey=True)
    figure.suptitle(heading(title, rows) + how_many(rows), fontsize=8.5)
    ways = [way for way in WAYS if way in set(rows["way"])]
    lines = {}
    for ax, name in zip(axes[0], labels, strict=True):
        for way in ways:
            part = rows[(rows["label"] == name) & (rows["way"] == way)]
            if len(part):
                lines[way] = _draw(ax, part, way, metric)
        ax.axhline(0, color=GREY, linewidth=0.6)
        label(ax, x="split after epoch", title=name)
        ax.set_xticks(sorted(rows["split_epoch"].unique()))
    unit = "nats/example" if metric == "loss" else "points"
    label(axes[0, 0], y=f"barrier ({unit})")
    legend_below(figure, list(lines.values()), [WAYS[way] for way in lines])
    return add_note(figure, note)


def _draw(ax: Axes, rows: pd.DataFrame, way: str, metric: str) -> object:
    scale = 1.0 if metric == "loss" else 100.0
    means = scale * rows.groupby("split_epoch")[["barrier", "barrier_low", "barrier_high"]].mean()
    curve = means.set_axis(["mean", "low", "high"], axis=1).rename_axis("x").reset_index()
    # Copies keep their channels, so the aligned line lies on the straight one as a rule.
    return banded_line(ax, curve, LOOKS[way], dash="--" if way == "aligned" else None)
