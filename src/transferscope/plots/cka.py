"""Feature similarity by layer (Tables 1 and 7 as figures)."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from transferscope.plots.lines import grouped_bars, write_in_cells
from transferscope.plots.series import choose, heading, in_order, require_columns, spread_by_name
from transferscope.plots.style import (
    DOUBLE_WIDTH,
    LABEL_SIZE,
    MINUS,
    PANEL_WIDTH,
    SEQUENTIAL_MAP,
    TICK_SIZE,
    add_note,
    category_ticks,
    empty_figure,
    framed,
    in_usual_order,
    label,
    legend_below,
    looks_for,
    new_figure,
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

    Bars are means over pairs, whiskers go from the smallest to the largest pair. A debiased CKA may be below 0.

    Args:
        cka: columns pair_kind, layer, features, estimator, cka (at most 1, without unit).
        features: "pooled" or "flattened"; default: pooled, else what the table has first.
        estimator: default: debiased, else what the table has first.
    """
    rows = _choose(cka, features, estimator)
    if rows.empty:
        return empty_figure("no feature similarity to show", note)
    layers, kinds = in_order(rows["layer"]), in_usual_order(in_order(rows["pair_kind"]))
    figure, axes = new_figure(width=PANEL_WIDTH if len(layers) * len(kinds) <= 32 else DOUBLE_WIDTH, panel_height=2.4)
    ax = axes[0, 0]
    groups = {kind: rows[rows["pair_kind"] == kind] for kind in kinds}
    handles = grouped_bars(ax, groups, "layer", "cka", layers, looks_for(kinds))
    values = rows["cka"].to_numpy(dtype=float)
    lowest = np.nanmin(values) if np.isfinite(values).any() else 0.0
    ax.set_ylim(min(0.0, 1.1 * float(lowest)), 1.0)
    ax.axhline(0, color="black", linewidth=0.6)
    label(ax, x="layer", y=_measure(rows), title=heading(title, rows))
    category_ticks(ax, layers)
    legend_below(figure, handles, kinds)
    return add_note(figure, note)


def cka_heat_map(
    cka: pd.DataFrame,
    *,
    features: str | None = None,
    estimator: str | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Table 7 as a heat map: a row for each kind of pair, a column for each layer, the mean over pairs in the cell.

    Args: as for `cka_bars`.
    """
    rows = _choose(cka, features, estimator)
    if rows.empty:
        return empty_figure("no feature similarity to show", note)
    layers, kinds = in_order(rows["layer"]), in_usual_order(in_order(rows["pair_kind"]))
    means = np.stack(
        [spread_by_name(rows[rows["pair_kind"] == kind], "layer", "cka", layers)["mean"].to_numpy() for kind in kinds]
    )
    wide = len(layers) > 6
    figure, axes = new_figure(width=DOUBLE_WIDTH if wide else PANEL_WIDTH, panel_height=0.95 + 0.28 * len(kinds))
    ax = axes[0, 0]
    colours = matplotlib.colormaps[SEQUENTIAL_MAP].with_extremes(bad="#eeeeee")
    image = ax.imshow(means, cmap=colours, vmin=0, vmax=1, aspect="auto")
    size = min(TICK_SIZE, 72 * 0.7 * (figure.get_figwidth() - 1.6) / len(layers) / 2.6)
    texts = np.array([[f"{value:.2f}".replace("-", MINUS) for value in row] for row in means], dtype=object)
    write_in_cells(ax, means, np.clip(means, 0, 1) / 1.3, texts, size)
    framed(ax)
    label(ax, x="layer", title=heading(title, rows))
    category_ticks(ax, layers)
    ax.set_yticks(range(len(kinds)), kinds, fontsize=TICK_SIZE)
    bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02)
    bar.set_label(_measure(rows), fontsize=LABEL_SIZE if len(kinds) > 4 else TICK_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE, width=0.6, length=2)
    return add_note(figure, note)


def _choose(cka: pd.DataFrame, features: str | None, estimator: str | None) -> pd.DataFrame:
    require_columns(cka, COLUMNS, "cka")
    return choose(choose(cka, "features", features, ("pooled",)), "estimator", estimator, ("debiased",))


def _measure(rows: pd.DataFrame) -> str:
    """`linear CKA (pooled, debiased)`."""
    facts = [str(rows[column].iloc[0]) for column in ("features", "estimator") if column in rows.columns]
    return f"linear CKA ({', '.join(facts)})" if facts else "linear CKA"
