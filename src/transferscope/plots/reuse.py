"""Figures of feature reuse and of source epochs (Figures 3 and 7 of the main text)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from transferscope.plots.rows import heading, require_columns
from transferscope.plots.style import (
    BLACK,
    GREY,
    METRIC_NAMES,
    TICK_SIZE,
    Look,
    add_note,
    category_ticks,
    empty_figure,
    label,
    legend_below,
    looks_for,
    metric_axis,
    new_figure,
)
from transferscope.tables.block_sizes import PAPER_DROPS, paper_drop, relative_drops, shuffled_rows

NORMAL_975 = 1.959964
COLUMNS = ("run", "label", "series", "size", "side", "final_test", "final_test_error", "optimization_speed", "metric")


def block_sizes(table: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """Final test metric, optimization speed and relative drop against the side of the shuffled blocks.

    A point for each run, with its 95 % interval over test images where one run is all there is of its kind, and a line
    through the means over replicas. `*` shuffles all values across positions and channels; dashed, each image has a
    permutation of its own. The relative drop is 100 (P-T - RI-T) / P-T of the final metric, beside the paper's numbers
    where the task is one of its own. Source: Figure 3 of the main text.

    Args:
        table: Rows of `measure.reuse.varied_runs`.
    """
    require_columns(table, COLUMNS, "feature_reuse")
    rows = [shuffled_rows(table), table[table["series"] == "each"]]
    shown = pd.concat(rows).dropna(subset=["final_test"])
    if not (shown["series"] != "whole").any():
        return empty_figure("no run on shuffled images has a final metric", note)
    side = int(shown["side"].iloc[0])
    sizes = sorted({str(size) for size in shown["size"]}, key=_rank)
    positions = {size: index for index, size in enumerate(sizes)}
    labels = list(dict.fromkeys(shown["label"]))
    looks = looks_for(labels)
    figure, axes = new_figure(1, 3, panel_height=2.5)
    metric = str(shown["metric"].iloc[0])
    for ax, column, name in (
        (axes[0, 0], "final_test", "final test"),
        (axes[0, 1], "optimization_speed", "mean train"),
    ):
        for kind in labels:
            for series, dash in (("blocks", "-"), ("each", ":")):
                of_kind = shown[(shown["label"] == kind)]
                whole = of_kind["size"].astype(str) == of_kind["side"].astype(str)
                if (of_kind["series"] == series).any():
                    chosen = of_kind[whole | (of_kind["series"] == series)]
                    _curve(ax, chosen, column, positions, looks[kind], dash)
        metric_axis(ax, metric, _with_intervals(shown, column), prefix=name)
    _drops(axes[0, 2], shown, positions, side, heading(title, table))
    for ax in axes[0]:
        category_ticks(ax, [_size_name(size, side) for size in sizes])
        label(ax, x="side of the blocks (pixels)")
    label(axes[0, 1], title=heading(title, table))
    handles = {
        kind: Line2D([], [], color=looks[kind].colour, marker=looks[kind].marker, markersize=4) for kind in labels
    }
    if (shown["series"] == "each").any():
        handles["each image by itself"] = Line2D([], [], color=GREY, linestyle=":")
    if heading(title, table) in PAPER_DROPS:
        handles["the paper, at this share of the side"] = Line2D(
            [], [], color=GREY, marker="x", linestyle="", markersize=4
        )
    legend_below(figure, list(handles.values()), list(handles))
    return add_note(figure, note)


def _with_intervals(rows: pd.DataFrame, column: str) -> np.ndarray:
    """The values of a column, of the final metric with the ends of their intervals over test images."""
    values = rows[column].to_numpy(dtype=float)
    half = NORMAL_975 * rows["final_test_error"].to_numpy(dtype=float) if column == "final_test" else 0.0
    return np.concatenate([values - half, values + half])


def _curve(ax: Axes, rows: pd.DataFrame, column: str, positions: dict[str, int], look: Look, dash: str) -> None:
    x = rows["size"].astype(str).map(positions)
    means = rows.groupby(x)[column].mean().sort_index()
    ax.plot(means.index, means.to_numpy(), dash, color=look.colour, linewidth=1.2)
    ax.plot(x, rows[column], look.marker, color=look.colour, markersize=3.6, mec="white", mew=0.4)
    if column == "final_test":
        alone = rows[x.map(x.value_counts()) == 1]
        half = NORMAL_975 * alone["final_test_error"]
        at = alone["size"].astype(str).map(positions)
        ax.errorbar(at, alone[column], yerr=half, fmt="none", ecolor=look.colour, elinewidth=0.8, capsize=1.5)


def _drops(ax: Axes, shown: pd.DataFrame, positions: dict[str, int], side: int, task: str) -> None:
    drops = relative_drops(shown)
    ax.axhline(0, color=GREY, linewidth=0.6)
    if len(drops):
        drops = drops.assign(x=drops["size"].map(positions)).sort_values("x")
        ax.plot(drops["x"], drops["drop"], "o-", color=BLACK, markersize=3.6, linewidth=1.2)
        paper = [paper_drop(task, str(size), side) for size in drops["size"]]
        ax.plot(drops["x"], paper, "x", color=GREY, markersize=4.5)
    label(ax, y="relative drop (%)")


def _rank(size: str) -> float:
    return 0.0 if size == "values" else float(size)


def _size_name(size: str, side: int) -> str:
    if size == "values":
        return "*"
    return "whole" if int(size) == side else size


def controls(table: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """Final test metric and optimization speed of what takes a part of the pre-trained model, beside all and nothing.

    A row for each kind of run, a point for each replica with its 95 % interval over test images.

    Args:
        table: Rows of `measure.reuse.varied_runs`.
    """
    require_columns(table, (*COLUMNS, "part"), "feature_reuse")
    shown = table[table["series"].isin(["whole", "control"]) & table["final_test"].notna()]
    if not (shown["series"] == "control").any():
        return empty_figure("no control has a final metric", note)
    groups = _by_what_is_taken(shown)
    looks = looks_for([taken.label for taken in groups if not taken.part])
    figure, axes = new_figure(1, 2, panel_height=1.0 + 0.26 * len(groups), sharey=True)
    metric = METRIC_NAMES.get(str(shown["metric"].iloc[0]), str(shown["metric"].iloc[0]))
    for ax, column, name in (
        (axes[0, 0], "final_test", f"final test {metric}"),
        (axes[0, 1], "optimization_speed", f"train {metric}, mean over epochs"),
    ):
        for row, (taken, rows) in enumerate(groups.items()):
            look = Look(BLACK, "o") if taken.part else looks[taken.label]
            half = NORMAL_975 * rows["final_test_error"] if column == "final_test" else None
            place = row + np.linspace(-0.12, 0.12, len(rows)) if len(rows) > 1 else np.array([float(row)])
            ax.errorbar(
                rows[column], place, xerr=half, fmt=look.marker, color=look.colour, markersize=4, elinewidth=0.8
            )
        label(ax, x=name)
    label(axes[0, 0], y="kind of run")
    axes[0, 0].set_yticks(range(len(groups)), list(map(str, groups)), fontsize=TICK_SIZE)
    axes[0, 0].set_ylim(len(groups) - 0.5, -0.5)
    figure.suptitle(f"{heading(title, table)}: which part of the pre-trained model is taken", fontsize=8)
    return add_note(figure, note)


@dataclass(frozen=True)
class Taken:
    """A kind of run, and the part of the pre-trained model that it takes; empty: all of it, or nothing."""

    label: str
    part: str

    def __str__(self) -> str:
        names = {"": self.label, "statistics": "statistics alone", "frozen": "features frozen"}
        return names.get(self.part, f"up to {self.part}")


def _by_what_is_taken(shown: pd.DataFrame) -> dict[Taken, pd.DataFrame]:
    """Rows of everything, of its parts as the study lists them, and of nothing."""
    parts = shown["part"].where(shown["series"] == "control", "")
    groups = {Taken(str(label), str(part)): rows for (label, part), rows in shown.groupby(["label", parts], sort=False)}

    def place(taken: Taken) -> int:
        return 1 if taken.part else 2 * int((groups[taken]["role"] == "from_scratch").any())

    return {taken: groups[taken] for taken in sorted(groups, key=place)}


def source_epochs(
    table: pd.DataFrame,
    gains: pd.DataFrame,
    along: pd.DataFrame | None = None,
    *,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Draw the metric of a run by the epoch of the pre-trained model that it starts from, and the change of that model.

    Above: final test metric and optimization speed; the dashed line is the mean from scratch, the dotted one the first
    epoch that gives 95 % of the gain, in the shade of its interval. Below, on the same axis, where the pre-trained
    model is a run of the study: its own test metric and CKA of its first and last layer with its end, and the means of
    stable rank and spectral norm relative to the end. Source: Figure 7 of the main text.

    Args:
        table: Rows of `measure.reuse.varied_runs`.
        gains: Rows of `measure.reuse.gains_by_source_epoch`.
        along: Rows of `measure.reuse.along_pretraining`.
    """
    require_columns(table, (*COLUMNS, "origin", "source_epoch"), "feature_reuse")
    require_columns(gains, ("first_epoch", "first_epoch_low", "first_epoch_high"), "source_epochs")
    origins = table.loc[table["series"] == "epoch", "origin"]
    starts = table[
        table["series"].isin(["whole", "epoch"]) & table["origin"].isin(origins) & table["final_test"].notna()
    ]
    if not (starts["series"] == "epoch").any():
        return empty_figure("no run from an earlier epoch has a final metric", note)
    last = _last_epoch(along, starts)
    epochs = starts["source_epoch"].map(lambda text: _epoch(text, last))
    scratch = table[(table["series"] == "whole") & (table["role"] == "from_scratch")]
    metric = str(starts["metric"].iloc[0])
    figure, axes = new_figure(1 if along is None else 2, 2, panel_height=2.2, sharex=True)
    look = looks_for(list(dict.fromkeys(starts["label"])))[str(starts["label"].iloc[0])]
    handles = {str(starts["label"].iloc[0]): Line2D([], [], color=look.colour, marker=look.marker, markersize=4)}
    for ax, column, name in (
        (axes[0, 0], "final_test", "final test"),
        (axes[0, 1], "optimization_speed", "mean train"),
    ):
        means = starts.groupby(epochs)[column].mean().sort_index()
        ax.plot(means.index, means.to_numpy(), "-", color=look.colour, linewidth=1.2)
        half = NORMAL_975 * starts["final_test_error"] if column == "final_test" else None
        ax.errorbar(epochs, starts[column], yerr=half, fmt=look.marker, color=look.colour, markersize=4, elinewidth=0.8)
        if len(scratch):
            ax.axhline(scratch[column].mean(), color=GREY, linestyle="--", linewidth=1.0)
        metric_axis(ax, metric, _with_intervals(pd.concat([starts, scratch]), column), prefix=name)
    if len(scratch):
        handles[f"{scratch['label'].iloc[0]} (mean)"] = Line2D([], [], color=GREY, linestyle="--")
    handles |= _first_epoch(axes[0, 0], gains, last)
    if along is not None:
        handles |= _along(axes[1, 0], axes[1, 1], along)
    for ax in axes[-1]:
        label(ax, x="epoch of the pre-trained model")
    label(axes[0, 0], title=heading(title, table))
    legend_below(figure, list(handles.values()), list(handles))
    return add_note(figure, note)


def _last_epoch(along: pd.DataFrame | None, starts: pd.DataFrame) -> int:
    """The number of the final epoch: that of the run, or one after the last that is asked for."""
    if along is not None and len(along):
        return int(along["epoch"].max())
    return max((int(text) for text in starts["source_epoch"] if str(text).isdigit()), default=0) + 1


def _epoch(text: object, last: int) -> int:
    return int(str(text)) if str(text).isdigit() else last


def _first_epoch(ax: Axes, gains: pd.DataFrame, last: int) -> dict[str, Line2D]:
    """Mark the first epoch that gives most of the gain and its interval, where there are any; lines by name."""
    row = gains.iloc[0] if len(gains) else pd.Series({"first_epoch": None})
    if pd.isna(row["first_epoch"]):
        return {}
    first = _epoch(row["first_epoch"], last)
    ax.axvline(first, color=BLACK, linestyle=":", linewidth=1.0)
    name = f"first with 95 % of the gain: {first}"
    if not pd.isna(row["first_epoch_low"]):
        low, high = (_epoch(row[f"first_epoch_{end}"], last) for end in ("low", "high"))
        ax.axvspan(low, high, color=GREY, alpha=0.15, linewidth=0)
        name += f" [{low}, {high}]"
    return {name: Line2D([], [], color=BLACK, linestyle=":")}


def _along(own: Axes, spectra: Axes, along: pd.DataFrame) -> dict[str, Line2D]:
    """Lines by name: on `own` the metric, and CKA of the first and last layer with the end; on the other spectra."""
    epochs = along.drop_duplicates("epoch").set_index("epoch").sort_index()
    layers = list(dict.fromkeys(along["layer"]))
    lines: dict[str, tuple[Axes, pd.Series, str, str]] = {}
    metric = METRIC_NAMES.get(str(epochs["metric"].iloc[0]), "")
    lines[f"its own test {metric}"] = (own, epochs["score"].dropna(), BLACK, "o-")
    for layer, colour, dash in zip(_ends(layers), ("#E69F00", "#CC79A7"), ("s-", "D-"), strict=False):
        of_layer = along[along["layer"] == layer].set_index("epoch")["cka_to_final"].sort_index()
        lines[f"CKA of {layer} with its end"] = (own, of_layer, colour, dash)
    for name, colour, dash in (("stable_rank", "#009E73", "^-"), ("spectral_norm", "#56B4E9", "v-")):
        lines[f"{name.replace('_', ' ')} / that at the end"] = (
            spectra, epochs[name] / epochs[name].iloc[-1], colour, dash,
        )  # fmt: skip
    made = {}
    for name, (ax, values, colour, dash) in lines.items():
        (made[name],) = ax.plot(values.index, values.to_numpy(), dash, color=colour, markersize=3.2, linewidth=1.0)
    label(own, y="the pre-trained model")
    label(spectra, y="its spectra, relative to the end")
    spectra.set_ylim(bottom=0)
    return made


def _ends(layers: Iterable[str]) -> list[str]:
    names = list(layers)
    return [names[0], names[-1]] if len(names) > 1 else names
