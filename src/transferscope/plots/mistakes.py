"""Common and uncommon mistakes and class sizes as figures (Tables 3 to 6, Figure 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from transferscope.plots.roles import kind_of_pair
from transferscope.plots.rows import heading, in_order, kinds_of, require_columns, with_named_pairs
from transferscope.plots.style import (
    DOUBLE_WIDTH,
    LIGHT_GREY,
    MINUS,
    PANEL_WIDTH,
    SMALL_SIZE,
    TICK_SIZE,
    add_note,
    empty_figure,
    in_usual_order,
    label,
    legend_below,
    looks_for,
    new_figure,
    scale_for,
    shorten,
)

LETTER = 0.06
"""Inches that a letter of a tick takes."""
MOST_BARS = 40
"""Bars of pairs of files of a series, in all classes together; of more pairs the first ones are shown."""


def accuracy_by_class_size(
    class_accuracy: pd.DataFrame,
    correlation: pd.DataFrame | None = None,
    *,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Test accuracy of every class against its number of training examples: Figure 8, one task.

    A dot a class (mean over replicas) and a least-squares line a kind of run; the legend gives Pearson's r.

    Args:
        class_accuracy: columns run, class_name, class_size, accuracy.
        correlation: columns run, pearson_r, p_value; default: r is computed here from what is drawn.
    """
    require_columns(class_accuracy, ("run", "class_name", "class_size", "accuracy"), "class_accuracy")
    rows = class_accuracy.assign(kind=kinds_of(class_accuracy)).dropna(subset=["accuracy", "class_size"])
    if rows.empty:
        return empty_figure("no accuracy per class to show", note)
    figure, axes = new_figure(panel_height=2.7)
    ax = axes[0, 0]
    kinds = in_usual_order(in_order(rows["kind"]))
    looks = looks_for(kinds)
    log = scale_for(ax, rows["class_size"].to_numpy(dtype=float), axis="x") == "log"
    handles, labels = [], []
    for kind in kinds:
        points = rows[rows["kind"] == kind].groupby("class_name", sort=False)[["class_size", "accuracy"]].mean()
        look, many = looks[kind], len(points) > 60
        (dots,) = ax.plot(
            points["class_size"],
            points["accuracy"],
            linestyle="",
            marker=look.marker,
            color=look.colour,
            markersize=2.2 if many else 3.5,
            alpha=0.6 if many else 0.9,
            markeredgewidth=0,
        )
        _trend(ax, points, look.colour, log)
        handles.append(dots)
        labels.append(f"{kind}{_pearson(kind, points, correlation)}")
    ax.set_ylim(-0.03, 1.04)
    if not log:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    label(ax, x="training examples of the class", y="test accuracy of the class")
    label(ax, title=heading(title, rows))
    legend_below(figure, handles, labels, columns=1)
    return add_note(figure, note)


def _trend(ax: Axes, points: pd.DataFrame, colour: str, log: bool) -> None:
    """The least-squares line of accuracy over class size (plain size, also on a log axis), within what is drawn."""
    sizes, accuracy = points["class_size"].to_numpy(dtype=float), points["accuracy"].to_numpy(dtype=float)
    if len(np.unique(sizes)) < 2:
        return
    slope, offset = np.polyfit(sizes, accuracy, 1)
    low, high = sizes.min(), sizes.max()
    x = np.geomspace(low, high, 100) if log else np.array([low, high])
    ax.plot(x, slope * x + offset, color=colour, linewidth=1.0)


def _pearson(kind: str, points: pd.DataFrame, correlation: pd.DataFrame | None) -> str:
    """`: r = 0.37 (mean of 2 runs, p ≤ 1.3e-12)`: the mean r over replicas and their largest p, where it is known."""
    if correlation is not None and not correlation.empty:
        require_columns(correlation, ("run", "pearson_r", "p_value"), "class_size_correlation")
        rows = correlation[(kinds_of(correlation) == kind) & (correlation["run"] != "mean")]
        r, p = rows["pearson_r"].mean(), rows["p_value"].max()
        if np.isfinite(r):
            num_runs = rows["pearson_r"].count()
            of = [f"mean of {num_runs} runs"] if num_runs > 1 else []
            of += [f"p ≤ {_rounded_up(p)}"] if np.isfinite(p) else []
            return f":  Pearson r = {r:.2f}".replace("-", MINUS) + (f"  ({', '.join(of)})" if of else "")
    if len(points) < 3 or points.std().min() == 0:
        return ""
    r = float(np.corrcoef(points["class_size"], points["accuracy"])[0, 1])
    return f":  Pearson r = {r:.2f}".replace("-", MINUS)


def _rounded_up(p: float) -> str:
    """To two digits, so that "at most" is true."""
    if p <= 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(p)) - 1)
    return f"{math.ceil(p / unit - 1e-9) * unit:.2g}"


PARTS = {
    "first only": "only_b_correct",
    "both": "common_mistakes",
    "second only": "only_a_correct",
}


def mistake_bars(
    mistakes: pd.DataFrame,
    *,
    names: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Mistakes of the first model only, of both, of the second only, as shares of examples: Tables 3 to 6, one task.

    A bar for each kind of pair (and each class of a multi-label task), the mean over pairs; the numbers in it are
    percent of the examples.

    Args:
        mistakes: columns pair_kind, class_name, num_examples, only_a_correct, only_b_correct, common_mistakes.
        names: Shown names of files that have one label together, by the full name of the run: each pair of these has a
            bar of its own, or in a multi-label task one for each class (40 bars at most, or one pair).
    """
    require_columns(mistakes, ("pair_kind", "class_name", "num_examples", *PARTS.values()), "mistakes")
    rows, of_all = mistakes[mistakes["num_examples"] > 0], 0
    if names and len(rows):
        most = max(1, MOST_BARS // rows["class_name"].nunique())
        rows, of_all = with_named_pairs(rows, names, most)
    if rows.empty:
        return empty_figure("no mistakes to show", note)
    kinds, classes = in_usual_order(in_order(rows["pair_kind"]), kind_of_pair), in_order(rows["class_name"])
    bars = [(name, kind) for name in classes for kind in kinds]
    several = len(classes) > 1
    ticks = [f"{shorten(name)}   {kind}" if several and kind == kinds[0] else kind for name, kind in bars]
    beside = max(1.6, 0.6 + LETTER * max(map(len, ticks)) if names else 0)
    width = max(DOUBLE_WIDTH, beside + PANEL_WIDTH / 2) if several or names else PANEL_WIDTH
    height = 0.85 + 0.2 * len(bars) + 0.08 * len(classes)
    figure, axes = new_figure(width=width, panel_height=height)
    ax = axes[0, 0]
    y = np.array([index + 0.5 * (index // len(kinds)) for index in range(len(bars))])
    shares = np.array([_shares(rows, name, kind) for name, kind in bars])
    _stack(ax, y, shares, width - beside)
    ax.set_yticks(y, ticks, fontsize=TICK_SIZE)
    ax.set_ylim(y[-1] + 0.6, -0.6)
    ax.grid(False, axis="y")
    which = f"pair (the first {most if most > 1 else 'one'} of {of_all})" if of_all else None
    label(ax, x="mistakes (% of test examples)", y=which, title=heading(title, rows))
    legend_below(figure, ax.containers, list(PARTS))
    return add_note(figure, note)


def _shares(rows: pd.DataFrame, name: str, kind: str) -> list[float]:
    chosen = rows[(rows["class_name"] == name) & (rows["pair_kind"] == kind)]
    return [float((chosen[column] / chosen["num_examples"]).mean()) for column in PARTS.values()]


def _stack(ax: Axes, y: np.ndarray, shares: np.ndarray, width: float) -> None:
    """Stacked horizontal bars in percent, a number in each part that has the room for it."""
    left = np.zeros(len(y))
    total = 100 * float(np.nansum(shares, axis=1).max() or 1)
    for values, colour, ink in zip(100 * shares.T, ("#88ccee", "#666666", "#ddcc77"), ("k", "w", "k"), strict=True):
        values = np.nan_to_num(values)
        ax.barh(y, values, 0.8, left=left, color=colour, linewidth=0.4, edgecolor="white")
        for row, value in enumerate(values):
            if value / total * width > 0.24:
                at = (left[row] + value / 2, y[row])
                ax.text(*at, f"{value:.1f}", ha="center", va="center", fontsize=SMALL_SIZE, color=ink)
        left += values
    ax.set_xlim(0, left.max() * 1.02 or 1)
    ax.axvline(0, color=LIGHT_GREY, linewidth=0.5)
