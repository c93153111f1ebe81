"""Feature similarity: layer by layer (Tables 1 and 7), and every layer with every layer."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from transferscope.plots.marks import grouped_bars
from transferscope.plots.roles import kind_of_pair
from transferscope.plots.rows import choose, heading, in_order, require_columns
from transferscope.plots.style import (
    DOUBLE_WIDTH,
    LABEL_SIZE,
    PANEL_WIDTH,
    SEQUENTIAL_MAP,
    TICK_SIZE,
    TITLE_SIZE,
    add_note,
    category_ticks,
    empty_figure,
    framed,
    in_usual_order,
    label,
    legend_below,
    looks_for,
    new_figure,
    shorten,
)

COLUMNS = ("pair_kind", "layer", "cka")


def cka_bars(
    cka: pd.DataFrame,
    *,
    features: str | None = None,
    estimator: str | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Linear CKA at every layer, a bar for each kind of pair: Tables 1 and 7, one task.

    Bars are means over pairs, whiskers go from the smallest to the largest pair. A debiased CKA may be below 0. The
    intervals over examples of every pair are in the table, and in the report below the figure.

    Args:
        cka: columns pair_kind, layer, features, estimator, cka (at most 1, without unit), and checkpoint_a and
            checkpoint_b where they are known.
        features: "pooled" or "flattened"; default: pooled, else what the table has first.
        estimator: default: debiased, else minibatch, else what the table has.
    """
    rows = choose_estimator(cka, features, estimator)
    if rows.empty:
        return empty_figure("no feature similarity to show", note)
    if "checkpoint_a" in rows.columns and (rows["checkpoint_a"] == rows["checkpoint_b"]).all():
        return empty_figure("no two models with layers of one name: see the heat map", note)
    layers, kinds = in_order(rows["layer"]), in_usual_order(in_order(rows["pair_kind"]), kind_of_pair)
    figure, axes = new_figure(width=PANEL_WIDTH if len(layers) * len(kinds) <= 32 else DOUBLE_WIDTH, panel_height=2.4)
    ax = axes[0, 0]
    groups = {kind: rows[rows["pair_kind"] == kind] for kind in kinds}
    handles = grouped_bars(ax, groups, "layer", "cka", layers, looks_for(kinds, kind_of_pair))
    values = rows["cka"].to_numpy(dtype=float)
    lowest = np.nanmin(values) if np.isfinite(values).any() else 0.0
    ax.set_ylim(min(0.0, 1.1 * float(lowest)), 1.0)
    ax.axhline(0, color="black", linewidth=0.6)
    label(ax, x="layer", y=_measure(rows), title=heading(title, rows))
    category_ticks(ax, layers)
    legend_below(figure, handles, kinds)
    return add_note(figure, note)


def cka_heat_map(cka_layers: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """Linear CKA of every layer of one model with every layer of another, a panel for each kind of pair.

    Cells are means over the pairs of a kind; values below 0, which a debiased CKA may have, are drawn as 0.

    Args:
        cka_layers: columns pair_kind, layer (first model), layer_b (second), features, estimator, cka; layers in the
            order of the forward pass. label_a and label_b, where it has them, name the models.
    """
    require_columns(cka_layers, (*COLUMNS, "layer_b"), "cka_layers")
    if cka_layers.empty:
        return empty_figure("no feature similarity to show", note)
    kinds = in_usual_order(in_order(cka_layers["pair_kind"]), kind_of_pair)
    columns = min(3, len(kinds))
    rows = -(-len(kinds) // columns)
    width = PANEL_WIDTH if columns == 1 else DOUBLE_WIDTH
    figure, axes = new_figure(rows, columns, width=width)
    panels = dict(zip(kinds, axes.flat, strict=False))
    tables = {kind: _matrix(cka_layers[cka_layers["pair_kind"] == kind]) for kind in kinds}
    for kind, ax in panels.items():
        image = _layer_panel(ax, tables[kind], kind, _sides(cka_layers[cka_layers["pair_kind"] == kind]))
    # Cells are about square; turned tick labels must not make the figure higher panel by panel.
    figure.set_figheight(rows * (width / columns + 0.15) + 0.2)
    for kind, ax in panels.items():
        category_ticks(ax, list(tables[kind].index), axis="y")
    if len({(*table.index, *table.columns) for table in tables.values()}) == 1:
        _only_outer_ticks(axes, len(kinds))
    for ax in axes.flat[len(kinds) :]:
        ax.set_axis_off()
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
    bar.set_label(_measure(cka_layers), fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE, width=0.6, length=2)
    figure.suptitle(heading(title, cka_layers), fontsize=TITLE_SIZE)
    return add_note(figure, note)


def _only_outer_ticks(axes: np.ndarray, number: int) -> None:
    """Ticks at the left and at the lowest of the first `number` panels of each column."""
    columns = axes.shape[1]
    for index, ax in enumerate(axes.flat[:number]):
        if index % columns:
            ax.set_yticks([])
        if index + columns < number:
            ax.set_xticks([])


def _matrix(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean CKA, layers of the first model by layers of the second."""
    means = rows.groupby(["layer", "layer_b"])["cka"].mean().unstack()
    return means.reindex(in_order(rows["layer"]), columns=in_order(rows["layer_b"]))


def _sides(rows: pd.DataFrame) -> tuple[str, str]:
    """The labels of the two models of a kind of pair; without them their places."""
    if not {"label_a", "label_b"} <= set(rows.columns):
        return "the first model", "the second model"
    return str(rows["label_a"].iloc[0]), str(rows["label_b"].iloc[0])


def _layer_panel(ax: Axes, means: pd.DataFrame, kind: str, sides: tuple[str, str]) -> AxesImage:
    colours = matplotlib.colormaps[SEQUENTIAL_MAP].with_extremes(bad="#eeeeee")
    image = ax.imshow(means.to_numpy(), cmap=colours, vmin=0, vmax=1, origin="lower", aspect="auto")
    framed(ax)
    label(ax, x=f"layer of {shorten(sides[1], 40)}", y=f"layer of {shorten(sides[0], 40)}", title=kind)
    category_ticks(ax, list(means.columns))
    return image


def choose_estimator(cka: pd.DataFrame, features: str | None = None, estimator: str | None = None) -> pd.DataFrame:
    """The rows of one kind of features and one estimator: as named, or pooled ones by the debiased estimator."""
    require_columns(cka, COLUMNS, "cka")
    return choose(choose(cka, "features", features, ("pooled",)), "estimator", estimator, ("debiased", "minibatch"))


def _measure(rows: pd.DataFrame) -> str:
    """`linear CKA (pooled, debiased)`."""
    facts = [str(rows[column].iloc[0]) for column in ("features", "estimator") if column in rows.columns]
    return f"linear CKA ({', '.join(facts)})" if facts else "linear CKA"
