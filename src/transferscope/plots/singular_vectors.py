"""The inputs that layers stretch most, as images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferscope.plots.rows import heading, in_order, kinds_of, require_columns
from transferscope.plots.style import (
    DIVERGING_MAP,
    SMALL_SIZE,
    TITLE_SIZE,
    add_note,
    empty_figure,
    framed,
    in_usual_order,
    label,
    new_figure,
)

COLUMNS = ("run", "module", "rank", "value", "channel", "row", "column", "amplitude", "share")
COLOURS = 3
MOST = 8
"""Vectors in a row of the figure."""


def singular_vectors(vectors: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """Right singular vectors of layers' largest values, each over its own range: a row for each layer and kind of run.

    Layers with three input channels are in colour with 0 in grey, others show the channel of the largest share, whose
    part of the squared length is given. The first run of each kind is shown.

    Args:
        vectors: columns run, module, rank, value, channel, row, column, amplitude (of a vector of length 1), share.
    """
    require_columns(vectors, COLUMNS, "singular_vectors")
    if vectors.empty:
        return empty_figure("no singular vectors to show", note)
    rows = vectors[vectors["rank"] <= MOST].assign(kind=lambda table: kinds_of(table))
    kinds = in_usual_order(in_order(rows["kind"]))
    first = {kind: rows.loc[rows["kind"] == kind, "run"].iloc[0] for kind in kinds}
    lines = [(module, kind) for module in in_order(rows["module"]) for kind in kinds]
    figure, axes = new_figure(len(lines), int(rows["rank"].max()), panel_height=1.15)
    for panels, (module, kind) in zip(axes, lines, strict=True):
        own = rows[(rows["module"] == module) & (rows["run"] == first[kind])]
        for rank, ax in enumerate(panels, 1):
            _panel(ax, own[own["rank"] == rank])
        label(panels[0], y=f"{kind}\n{module}")
    for rank, ax in enumerate(axes[-1], 1):
        label(ax, x=f"vector {rank}")
    figure.suptitle(heading(title, vectors), fontsize=TITLE_SIZE)
    return add_note(figure, note)


def _panel(ax: Axes, pixels: pd.DataFrame) -> None:
    framed(ax)
    ax.set_xticks([])
    ax.set_yticks([])
    if pixels.empty:
        ax.set_axis_off()
        return
    shape = [int(pixels[name].max()) + 1 for name in ("row", "column")]
    channels = [part["amplitude"].to_numpy().reshape(shape) for _, part in pixels.groupby("channel")]
    image = np.stack(channels, -1) / max(float(pixels["amplitude"].abs().max()), np.finfo(float).tiny)
    if len(channels) == COLOURS:
        ax.imshow((image + 1) / 2, interpolation="nearest")
    else:
        strongest = int(pixels.groupby("channel")["share"].first().to_numpy().argmax())
        ax.imshow(image[..., strongest], cmap=DIVERGING_MAP, vmin=-1, vmax=1, interpolation="nearest")
    share = "" if len(channels) == COLOURS else f", {pixels['share'].max():.0%}"
    ax.set_title(f"{pixels['value'].iloc[0]:.3g}{share}", fontsize=SMALL_SIZE, pad=2)
