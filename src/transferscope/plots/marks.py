"""Marks that several figures share: a line with its band, bars of groups, heat map cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from transferscope.plots.rows import spread_by_name
from transferscope.plots.style import Look

FEW_POINTS = 30


def banded_line(ax: Axes, curve: pd.DataFrame, look: Look, *, dash: str | None = None) -> Artist:
    """Mean line and min-max band of a table as `rows.spread` makes it; gives the line back for the legend.

    Of few points each gets a marker.
    """
    x = curve["x"].to_numpy()
    dash = dash or look.dash
    (line,) = ax.plot(
        x,
        curve["mean"],
        linestyle=dash,
        color=look.colour,
        linewidth=1.2,
        marker=look.marker if len(curve) <= FEW_POINTS else "",
        markersize=2.8,
        markerfacecolor=look.colour if dash == "-" else "white",
        markeredgewidth=0.6,
    )
    if (curve["high"] > curve["low"]).any():
        ax.fill_between(x, curve["low"], curve["high"], color=look.colour, alpha=0.18, linewidth=0)
    return line


def grouped_bars(
    ax: Axes,
    groups: Mapping[str, pd.DataFrame],
    column: str,
    y: str,
    names: Sequence[str],
    looks: Mapping[str, Look],
) -> list[Artist]:
    """For each of `names` a bar a group: the mean over replicas, a whisker from the smallest to the largest."""
    handles: list[Artist] = []
    width = 0.8 / max(len(groups), 1)
    for index, (group, rows) in enumerate(groups.items()):
        stats = spread_by_name(rows, column, y, names)
        centre = np.arange(len(names)) - 0.4 + width * (index + 0.5)
        mean = stats["mean"].to_numpy()
        bars = ax.bar(centre, mean, width * 0.92, color=looks[group].colour, linewidth=0)
        handles.append(bars[0])
        whiskers = np.vstack([mean - stats["low"], stats["high"] - mean]).clip(min=0)
        seen = np.isfinite(mean) & (whiskers.sum(axis=0) > 0)
        if seen.any():
            ax.errorbar(
                centre[seen], mean[seen], whiskers[:, seen], fmt="none", ecolor="#222222", elinewidth=0.7, capsize=1.2
            )
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.grid(False, axis="x")
    return handles


def module_lines(
    ax: Axes,
    groups: Mapping[str, pd.DataFrame],
    column: str,
    y: str,
    names: Sequence[str],
    looks: Mapping[str, Look],
) -> list[Artist]:
    """For each group a dot at each of `names`, joined by a line, with the band from smallest to largest."""
    handles: list[Artist] = []
    for group, rows in groups.items():
        stats = spread_by_name(rows, column, y, names)
        curve = stats.assign(x=np.arange(len(names)))
        handles.append(banded_line(ax, curve, looks[group]))
        ax.lines[-1].set(marker=looks[group].marker, markersize=3.0, markerfacecolor=looks[group].colour)
    ax.set_xlim(-0.5, len(names) - 0.5)
    return handles


def cell_edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells around increasing centres (n,) -> (n + 1,): half-way between neighbours."""
    centres = np.asarray(centres, dtype=float)
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])


def write_in_cells(ax: Axes, values: np.ndarray, shades: np.ndarray, texts: np.ndarray, size: float) -> None:
    """Write `texts` (rows, columns) into cells of an image: white where `shades` is below 1/2 (dark), else black."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if shades[row, column] < 0.5 else "black"
            ax.text(column, row, str(texts[row, column]), ha="center", va="center", fontsize=size, color=colour)
