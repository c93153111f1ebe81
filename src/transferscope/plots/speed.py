"""Optimization speed of one task: how well a run fits its training images, averaged over its epochs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from transferscope.plots.rates import by_kind_and_rate, looks_by_kind_and_rate
from transferscope.plots.rows import heading, require_columns
from transferscope.plots.style import (
    METRIC_NAMES,
    SMALL_SIZE,
    Look,
    add_note,
    empty_figure,
    label,
    legend_below,
    new_figure,
)

ROW_HEIGHT = 0.26
"""Inches."""
LEAST_SPAN = 0.04
"""Of the axis, so that noise does not look like an effect."""
COLUMNS = ("run", "lr", "status", "metric", "optimization_speed")


def optimization_speed(runs: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """The train metric averaged over epochs, a row for each kind of run and learning rate: one task.

    A point for each replica, a tick at their mean, a line from the smallest to the largest. A run that diverged is a
    cross, at the mean over the epochs before, or a word where there was none; it counts neither in the mean nor in the
    line. Source: the measure of
    Figure 3 of the main text, beside the curves of Figure 2.

    Args:
        runs: a row per run; columns run, lr (largest of its schedule), status, metric, optimization_speed in the unit
            of the metric (accuracy: a fraction); and label.
    """
    require_columns(runs, COLUMNS, "runs")
    finite = np.isfinite(runs["optimization_speed"].astype(float))
    if not finite.any():
        return empty_figure("no optimization speed to show", note)
    shown = runs[finite]
    groups = by_kind_and_rate(runs[finite | (runs["status"] == "diverged")])
    looks = looks_by_kind_and_rate(list(groups))
    figure, axes = new_figure(panel_height=0.75 + ROW_HEIGHT * max(2, len(groups)))
    ax = axes[0, 0]
    for row, (group, rows) in enumerate(groups.items()):
        _draw_row(ax, row, rows, looks[group])
    ax.set_yticks(range(len(groups)), list(map(str, groups)))
    ax.set_ylim(len(groups) - 0.4, -0.6)
    ax.grid(False, axis="y")
    middle = float(shown["optimization_speed"].agg(["min", "max"]).mean())
    ax.update_datalim([(middle - LEAST_SPAN / 2, 0), (middle + LEAST_SPAN / 2, 0)])
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    metric = str(shown["metric"].iloc[0])
    name = f"train {METRIC_NAMES.get(metric, metric)}, mean over measured epochs"
    label(ax, x=name, y="kind of run", title=heading(title, runs))
    _legend(figure, diverged=bool((shown["status"] == "diverged").any()))
    return add_note(figure, note)


def _draw_row(ax: Axes, row: int, rows: pd.DataFrame, look: Look) -> None:
    diverged = rows["status"] == "diverged"
    values = rows.loc[~diverged, "optimization_speed"].to_numpy(dtype=float)
    if len(values):
        ax.plot([values.min(), values.max()], [row, row], color=look.colour, linewidth=1.2)
        ax.plot(values.mean(), row, "|", color="black", markersize=10, markeredgewidth=1.4, zorder=3)
        row_of_each = np.full(len(values), row)
        ax.plot(values, row_of_each, look.marker, color=look.colour, markersize=4.5, mec="white", mew=0.4, zorder=4)
    crosses = rows.loc[diverged, "optimization_speed"].to_numpy(dtype=float)
    at_once = int(np.isnan(crosses).sum())
    if at_once:
        words = f"{at_once} diverged in the first epoch" if at_once > 1 else "diverged in the first epoch"
        side = ax.get_yaxis_transform()
        ax.text(0.02, row, words, transform=side, va="center", fontsize=SMALL_SIZE, color=look.colour)
    ax.plot(crosses, np.full(len(crosses), row), "X", color=look.colour, markersize=5.5, mec="black", mew=0.5, zorder=5)


def _legend(figure: Figure, *, diverged: bool) -> None:
    marks = {"replica": _mark("o", 4.5), "mean": _mark("|", 8.0)} | ({"diverged": _mark("X", 5.5)} if diverged else {})
    legend_below(figure, list(marks.values()), list(marks))


def _mark(marker: str, size: float) -> Line2D:
    return Line2D([], [], linestyle="", color="#444444", marker=marker, markersize=size)
