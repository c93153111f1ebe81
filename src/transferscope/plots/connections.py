"""The card of a pair: ways between two models, what each leaves of their barrier, and the modules where it arises."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from transferscope.plots.marks import banded_line
from transferscope.plots.rows import heading, how_many, in_order, require_columns, spread
from transferscope.plots.style import (
    ALPHA,
    BLACK,
    BLUE,
    DOUBLE_WIDTH,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Look,
    add_note,
    category_ticks,
    empty_figure,
    label,
    legend_below,
    metric_axis,
    new_figure,
)

WAYS = {
    "straight": "straight",
    "tempered": "tempered",
    "rescaled": "rescaled",
    "aligned": "aligned",
    "aligned_rescaled": "aligned, rescaled",
    "aligned_repaired": "aligned, repaired",
    "curve": "curve",
    "aligned_curve": "aligned, curve",
    "modules": "modules",
    "aligned_modules": "aligned, modules",
}
"""Ways as figures and tables name them, in their order."""

LOOKS = {
    "straight": Look(VERMILLION, "s"),
    "tempered": Look(VERMILLION, "s", ":"),
    "rescaled": Look(ORANGE, "v"),
    "aligned": Look(SKY, "D"),
    "aligned_rescaled": Look(BLUE, "o"),
    "aligned_repaired": Look(PURPLE, "^"),
    "curve": Look(GREEN, "P"),
    "aligned_curve": Look(BLACK, "X"),
}

POINTS = ("way", "split", "alpha", "metric", "value")
BARRIERS = ("way", "split", "metric", "barrier", "barrier_low", "barrier_high")


def connection_card(
    points: pd.DataFrame,
    barriers: pd.DataFrame,
    modules: pd.DataFrame,
    *,
    metric: str | None = None,
    split: str = "test",
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """The ways of one pair as curves, the barrier on each as a bar with its interval, and the profile of modules.

    Args:
        points, barriers, modules: Tables of `measure.connection.Connection`, of one pair; modules may have no rows.
        metric: "accuracy", "auc" or "loss"; default: auc where the table has it, else accuracy.
    """
    for table, columns, name in ((points, POINTS, "points"), (barriers, BARRIERS, "barriers")):
        require_columns(table, columns, name)
    if points.empty:
        return empty_figure("no ways to show: a model diverged", note)
    metric = metric or ("auc" if (points["metric"] == "auc").any() else "accuracy")
    curves, heights = (_chosen(table, metric, split) for table in (points, barriers))
    if curves.empty:
        return empty_figure(f"no ways in {metric} to show", note)
    profile = _chosen(modules, metric, split) if len(modules) else modules
    figure, axes = new_figure(1, 3 if len(profile) else 2, width=DOUBLE_WIDTH, panel_height=2.3)
    figure.suptitle(heading(title, points) + how_many(curves), fontsize=8.5)
    _draw_ways(axes[0, 0], curves, metric)
    _draw_heights(axes[0, 1], heights, metric)
    if len(profile):
        _draw_profile(axes[0, 2], profile, metric)
    ways = [way for way in WAYS if way in set(curves["way"])]
    marks = [
        Line2D([], [], color=LOOKS[way].colour, ls=LOOKS[way].dash, marker=LOOKS[way].marker, markersize=3)
        for way in ways
    ]
    legend_below(figure, marks, [WAYS[way] for way in ways])
    return add_note(figure, note)


def _chosen(table: pd.DataFrame, metric: str, split: str) -> pd.DataFrame:
    return table[(table["metric"] == metric) & (table["split"] == split)]


def _draw_ways(ax: Axes, rows: pd.DataFrame, metric: str) -> None:
    for way in WAYS:
        curve = rows[rows["way"] == way]
        if len(curve):
            banded_line(ax, spread(curve, "alpha", "value"), LOOKS[way])
    metric_axis(ax, metric, rows["value"].to_numpy(dtype=float), prefix="test")
    label(ax, x=ALPHA, title="ways")


def _draw_heights(ax: Axes, rows: pd.DataFrame, metric: str) -> None:
    """Horizontal bars, the first way on top."""
    scale, unit = (1.0, "nats/example") if metric == "loss" else (100.0, "points")
    ways = [way for way in WAYS if way in set(rows["way"])]
    table = rows.drop_duplicates("way").set_index("way").reindex(ways)
    places = np.arange(len(ways))
    values = scale * table["barrier"].to_numpy(dtype=float)
    ax.barh(places, np.nan_to_num(values), 0.7, color=[LOOKS[way].colour for way in ways], linewidth=0)
    ends = scale * table[["barrier_low", "barrier_high"]].to_numpy(dtype=float)
    seen = np.isfinite(ends).all(axis=1)
    ax.hlines(places[seen], ends[seen, 0], ends[seen, 1], color="#222222", linewidth=0.8)
    ax.set_ylim(len(ways) - 0.5, -0.5)
    if not (np.append(ends, values) < 0).any():
        ax.set_xlim(left=0)
    ax.axvline(0, color=GREY, linewidth=0.6)
    ax.grid(False, axis="y")
    category_ticks(ax, [WAYS[way] for way in ways], axis="y")
    label(ax, x=f"barrier ({unit})", title="what they leave")


def _draw_profile(ax: Axes, rows: pd.DataFrame, metric: str) -> None:
    """Bars of modules alone, and a line of all modules as far as each; of aligned networks in blue and dashed."""
    scale, unit = (1.0, "nats/example") if metric == "loss" else (100.0, "points")
    names, ways = in_order(rows["module"]), in_order(rows["way"])
    places, width = np.arange(len(names)), 0.8 / len(ways)
    for index, way in enumerate(ways):
        aligned = way.startswith("aligned")
        falls = rows[rows["way"] == way].pivot_table(index="module", columns="profile", values="drop", sort=False)
        falls = scale * falls.reindex(index=names, columns=["alone", "cumulative"])
        bars = places - 0.4 + width * (index + 0.5)
        ax.bar(bars, falls["alone"].fillna(0), width * 0.9, color=SKY if aligned else GREY, linewidth=0)
        dash, colour = ("--", BLUE) if aligned else ("-", BLACK)
        ax.plot(places, falls["cumulative"], color=colour, linestyle=dash, linewidth=1, marker=".", markersize=3)
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.grid(False, axis="x")
    category_ticks(ax, names)
    label(ax, y=f"fall half-way ({unit})", title="one module, all up to it")
