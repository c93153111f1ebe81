"""Distances between weights, module by module (Figures 10 and 11) and over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from transferscope.experiment.names import CheckpointName
from transferscope.plots.marks import banded_line, module_lines
from transferscope.plots.roles import Kind, kind_of, kind_of_pair
from transferscope.plots.rows import heading, in_order, kind_of_run, kinds_of, require_columns, spread, without_gaps
from transferscope.plots.style import (
    DOUBLE_WIDTH,
    PANEL_WIDTH,
    add_note,
    category_ticks,
    empty_figure,
    in_usual_order,
    label,
    legend_below,
    looks_for,
    minor_labels_if_short,
    new_figure,
    scale_for,
)

WHOLE = ("all", "sum")
MEASURES = {"l2": "ℓ₂ distance", "squared": "squared ℓ₂ distance", "relative": "relative ℓ₂ distance"}
BOTH = ("l2", "relative")


def distance_per_module(
    distances: pd.DataFrame, *, measures: Sequence[str] = BOTH, title: str | None = None, note: str | None = None
) -> Figure:
    """Distance between two trained models in every module, by kind of pair: Figure 10, one task.

    A panel each for the l2 distance and for the relative one, which says which module changed most. Dots are means over
    pairs, bands go from the smallest to the largest pair; the legend gives the overall value of the first panel. Rows
    that measure a distance to initial weights are left to `distance_to_initialisation`.

    Args:
        distances: columns pair_kind, checkpoint_a, checkpoint_b, module, l2, squared, relative; modules in the order
            of the forward pass, "all" for the whole network.
        measures: "l2", "squared" or "relative" (all without unit), a panel each.
    """
    require_columns(distances, ("pair_kind", "checkpoint_a", "checkpoint_b", "module", *measures), "distances")
    labels = {measure: f"{MEASURES[measure]} of a pair" for measure in measures}
    return _figure(distances[~to_initialisation(distances)], labels, title, note)


def distance_to_initialisation(
    distances: pd.DataFrame, *, measures: Sequence[str] = BOTH, title: str | None = None, note: str | None = None
) -> Figure:
    """Distance of a trained model to what it started from, in every module: Figure 11 (Table 8 overall), one task.

    Args:
        distances: as for `distance_per_module`; used are the rows that `to_initialisation` picks.
    """
    require_columns(distances, ("pair_kind", "checkpoint_a", "checkpoint_b", "module", *measures), "distances")
    labels = {measure: f"{MEASURES[measure]} to initial" for measure in measures}
    return _figure(distances[to_initialisation(distances)], labels, title, note)


def distance_travelled(travelled: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """l2 distance of all weights from the initial ones at every saved epoch, by kind of run: the way to Figure 11.

    Lines are means over runs of a kind, bands go from the smallest to the largest.

    Args:
        travelled: columns run (or label), epoch, module (used: "all"), l2.
    """
    require_columns(travelled, ("run", "epoch", "module", "l2"), "distance_travelled")
    rows = travelled[travelled["module"] == "all"]
    rows = rows.assign(kind=kinds_of(rows))
    if rows.empty:
        return empty_figure("no distances to show", note)
    kinds = in_usual_order(in_order(rows["kind"]))
    looks = looks_for(kinds)
    figure, axes = new_figure(panel_height=2.5)
    ax = axes[0, 0]
    handles = [
        banded_line(ax, spread(without_gaps(rows[rows["kind"] == kind], "epoch"), "epoch", "l2"), looks[kind])
        for kind in kinds
    ]
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    label(ax, x="epoch", y=f"{MEASURES['l2']} from initial", title=heading(title, rows))
    legend_below(figure, handles, kinds)
    return add_note(figure, note)


def to_initialisation(distances: pd.DataFrame) -> pd.Series:
    """Rows that compare a model with P or with a checkpoint at epoch 0 (bool, one a row)."""
    kinds = distances["pair_kind"].map(lambda kind: "source" in kind_of_pair(str(kind)).roles)
    epoch_a, epoch_b = (
        distances[side].map(lambda name: CheckpointName.parse(str(name)).epoch == 0)
        for side in ("checkpoint_a", "checkpoint_b")
    )
    return kinds.astype(bool) | epoch_a.astype(bool) | epoch_b.astype(bool)


def _figure(rows: pd.DataFrame, labels: Mapping[str, str], title: str | None, note: str | None) -> Figure:
    modules = [name for name in in_order(rows["module"]) if name not in WHOLE]
    if not modules:
        return empty_figure("no distances to show", note)
    parts = {kind: rows[rows["pair_kind"] == kind] for kind in in_order(rows["pair_kind"])}
    known = {kind: _kind(kind, part) for kind, part in parts.items()}
    groups = {kind: parts[kind] for kind in in_usual_order(list(parts), known.__getitem__)}
    looks = looks_for(list(groups), known.__getitem__)
    width = PANEL_WIDTH if len(modules) <= 24 else DOUBLE_WIDTH
    figure, axes = new_figure(len(labels), width=width, panel_height=2.7)
    for ax, (measure, y_label) in zip(axes[:, 0], labels.items(), strict=True):
        handles = module_lines(ax, groups, "module", measure, modules, looks)
        values = rows.loc[rows["module"].isin(modules), measure].to_numpy(dtype=float)
        if scale_for(ax, values, ratio=10) == "log":
            minor_labels_if_short(ax)
        else:
            ax.set_ylim(bottom=min(0.0, float(np.nanmin(values))) if np.isfinite(values).any() else None)
        label(ax, y=y_label, title=heading(title, rows) if ax is axes[0, 0] else None)
        category_ticks(ax, modules)
    label(ax, x="module, input to output")
    first = next(iter(labels))
    legend_below(figure, handles, [f"{kind}{_overall(group, first)}" for kind, group in groups.items()])
    return add_note(figure, note)


def _kind(pair_kind: str, rows: pd.DataFrame) -> Kind:
    """The kind of the run where it is compared with its own start, else the kind of the pair."""
    a, b = (CheckpointName.parse(str(rows[side].iloc[0])) for side in ("checkpoint_a", "checkpoint_b"))
    return kind_of(kind_of_run(str(a))) if a.run_name == b.run_name else kind_of_pair(pair_kind)


def _overall(rows: pd.DataFrame, measure: str) -> str:
    """`  (overall 0.91)`: the mean over pairs of the whole network's distance, where the table has it."""
    values = rows.loc[rows["module"] == "all", measure].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    return f"  (overall {values.mean():.3g})" if values.size else ""
