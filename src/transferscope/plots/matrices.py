"""Matrices of pairs: what one number says of every two of up to 20 models."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from transferscope.experiment.names import CheckpointName
from transferscope.plots.cka import choose_estimator
from transferscope.plots.rows import heading, in_order, main_metric, require_columns
from transferscope.plots.style import (
    DOUBLE_WIDTH,
    LABEL_SIZE,
    PANEL_WIDTH,
    SEQUENTIAL_MAP,
    SMALL_SIZE,
    TICK_SIZE,
    add_note,
    category_ticks,
    empty_figure,
    framed,
    label,
    new_figure,
    shorten,
)

MOST = 20
"""Models in a matrix; of more the first ones."""
WRITTEN = 12
"""Models up to which numbers stand in the cells."""
PAIR = ("checkpoint_a", "checkpoint_b")
Names = Mapping[str, str]
"""Full names of runs, in the order of the matrix, and the names that are shown."""


def disagreement_matrix(
    mistakes: pd.DataFrame, names: Names, *, title: str | None = None, note: str | None = None
) -> Figure:
    """Share of images that exactly one of two models classifies right; of findings the share of all of these.

    mistakes: columns checkpoint_a, checkpoint_b, class_name, num_examples, only_a_correct, only_b_correct.
    """
    counts = ("num_examples", "only_a_correct", "only_b_correct")
    require_columns(mistakes, (*PAIR, "class_name", *counts), "mistakes")
    whole = mistakes[mistakes["class_name"] == "all"]
    rows = whole if len(whole) else mistakes
    sums = rows.groupby(list(PAIR), sort=False)[list(counts)].sum().reset_index()
    sums["value"] = (sums["only_a_correct"] + sums["only_b_correct"]) / sums["num_examples"]
    return _matrix(sums, names, "share of images that one alone has right", heading(title, mistakes), note)


def distance_matrix(
    distances: pd.DataFrame, names: Names, *, title: str | None = None, note: str | None = None
) -> Figure:
    """l2 distance between all weights of two models.

    distances: columns checkpoint_a, checkpoint_b, module (used: "all"), l2.
    """
    require_columns(distances, (*PAIR, "module", "l2"), "distances")
    rows = distances[distances["module"] == "all"].rename(columns={"l2": "value"})
    return _matrix(rows, names, "ℓ₂ distance of weights", heading(title, distances), note)


def barrier_matrix(
    barriers: pd.DataFrame, names: Names, *, title: str | None = None, note: str | None = None
) -> Figure:
    """Height of the barrier between two models on test images, in accuracy (AUC where images have several labels).

    barriers: columns split, metric, checkpoint_a, checkpoint_b, barrier.
    """
    require_columns(barriers, (*PAIR, "split", "metric", "barrier"), "barriers")
    metric = main_metric(barriers)
    rows = barriers[(barriers["split"] == "test") & (barriers["metric"] == metric)].rename(columns={"barrier": "value"})
    return _matrix(rows, names, f"barrier, test {'AUC' if metric == 'auc' else metric}", heading(title, barriers), note)


def cka_matrix(cka: pd.DataFrame, names: Names, *, title: str | None = None, note: str | None = None) -> Figure:
    """Linear CKA of two models at the last of the compared layers.

    cka: columns layer (in the order of the forward pass), checkpoint_a, checkpoint_b, features, estimator, cka.
    """
    require_columns(cka, (*PAIR, "layer", "cka"), "cka")
    chosen = choose_estimator(cka)
    last = in_order(chosen["layer"])[-1:]
    rows = chosen[chosen["layer"].isin(last)].rename(columns={"cka": "value"})
    where = f" at module {last[0]}" if last else ""
    return _matrix(rows, names, f"linear CKA{where}", heading(title, cka), note)


def _matrix(rows: pd.DataFrame, names: Names, measure: str, title: str | None, note: str | None) -> Figure:
    """A cell for every pair that was measured, in both directions; the others stay grey."""
    shown = list(names)[:MOST]
    place = {name: index for index, name in enumerate(shown)}
    values = np.full((len(shown), len(shown)), np.nan)
    for first, second, value in rows[[*PAIR, "value"]].itertuples(index=False, name=None):
        a, b = (place.get(str(CheckpointName.parse(str(name)).run_name)) for name in (first, second))
        if a is not None and b is not None and a != b:
            values[a, b] = values[b, a] = value
    if not np.isfinite(values).any():
        return empty_figure(f"no {measure} to show", note)
    width = PANEL_WIDTH if len(shown) <= WRITTEN // 2 else DOUBLE_WIDTH
    figure, axes = new_figure(width=width, panel_height=width * 0.9)
    ax = axes.flat[0]
    colours = matplotlib.colormaps[SEQUENTIAL_MAP].with_extremes(bad="#eeeeee")
    image = ax.imshow(values, cmap=colours, aspect="equal")
    framed(ax)
    of_all = f"model (the first {MOST} of {len(names)})" if len(names) > MOST else "model"
    label(ax, x=of_all, y="model", title=title)
    ticks = [shorten(names[name], 24) for name in shown]
    category_ticks(ax, ticks)
    category_ticks(ax, ticks, axis="y")
    if len(shown) <= WRITTEN:
        _write(ax, image, values)
    bar = figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)
    bar.set_label(measure, fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE, width=0.6, length=2)
    return add_note(figure, note)


def _write(ax: matplotlib.axes.Axes, image: matplotlib.image.AxesImage, values: np.ndarray) -> None:
    """The number in each cell, in black or white by the brightness below it."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            colour = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
            ax.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=SMALL_SIZE, color=colour)
