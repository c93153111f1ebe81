"""Spectra of weights (Figures 31 to 33, the sum of norm ratios of appendix C)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from transferscope.plots.marks import banded_line, module_lines
from transferscope.plots.roles import kind_of
from transferscope.plots.rows import (
    heading,
    in_order,
    kinds_of,
    last_epoch_rows,
    require_columns,
    spread,
    without_gaps,
)
from transferscope.plots.style import (
    DOUBLE_WIDTH,
    GREY,
    PANEL_WIDTH,
    SMALL_SIZE,
    TICK_SIZE,
    TITLE_SIZE,
    UNTRAINED_LOOK,
    Look,
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
    set_scale,
)

COLUMNS = ("run", "module", "value", "multiplicity")
NUM_BINS = 60
LOWER_SHARE = 0.25
LAYERS_PER_PAGE = 4
BELOW, ABOVE = 2.0, 2.1
"""P-T and RI-T are drawn over other lines."""


@dataclass(frozen=True)
class Group:
    """The runs that make one line: those of a kind, trained or before their training."""

    kind: str
    trained: bool

    def __str__(self) -> str:
        return self.kind if self.trained else f"{self.kind}, untrained"

    def rows_of(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["kind"] == self.kind) & (rows["trained"] == self.trained)]

    @property
    def is_above(self) -> bool:
        return self.trained and kind_of(self.kind).is_plain("fine_tuned", "from_scratch")


def spectrum_histogram(
    singular_values: pd.DataFrame, *, epoch: object | None = None, title: str | None = None, note: str | None = None
) -> Figure:
    """Histogram of the singular values of all layers together, and its lower part: Figures 31 and 32, one task.

    Steps are means over replicas, bands go from the smallest to the largest. Every value counts as often as its
    multiplicity says. All kinds share the bins. Counts of the whole are on a log axis. The lower part ends where a
    quarter of the trained networks' positive singular values lies below, and leaves the zeros out.

    Args:
        singular_values: columns run, epoch, module, value, multiplicity.
        epoch: default: the final epoch of each run, and the untrained networks that RI-T started from.
    """
    rows = _rows(singular_values, epoch)
    if rows.empty:
        return empty_figure("no singular values to show", note)
    figure, axes = new_figure(1, 2, panel_height=2.4)
    whole, lower = axes[0]
    largest = float(rows["value"].max())
    handles = _histogram(whole, rows, largest, log_counts=True)
    trained = rows[rows["trained"] & (rows["value"] > 0)]
    _histogram(lower, rows, _quantile(trained, LOWER_SHARE) if len(trained) else largest, log_counts=False)
    label(whole, x="singular value", title=heading(title, rows))
    label(lower, x="singular value", title="lower part, without zeros")
    legend_below(figure, list(handles.values()), list(map(str, handles)))
    return add_note(figure, note)


def count_below_threshold(
    singular_values: pd.DataFrame,
    *,
    epoch: object | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Number of singular values of the whole network below a threshold, against the threshold (Figure 33).

    Both axes are logarithmic; means over replicas, bands from the smallest to the largest.

    Args: as for `spectrum_histogram`.
    """
    rows = _rows(singular_values, epoch)
    if rows.empty:
        return empty_figure("no singular values to show", note)
    figure, axes = new_figure(panel_height=2.4)
    ax = axes[0, 0]
    handles = _cumulative(ax, rows)
    label(ax, x="threshold", y="count below threshold", title=heading(title, rows))
    legend_below(figure, list(handles.values()), list(map(str, handles)))
    return add_note(figure, note)


def layer_spectra(
    singular_values: pd.DataFrame, *, epoch: object | None = None, title: str | None = None, note: str | None = None
) -> Iterator[Figure]:
    """Every layer, in the order of the table: histogram (left) and count below a threshold (right), four layers a page.

    The accompanying files `spectrum-plots-*.pdf` of the paper; save them as pages of one PDF.

    Args: as for `spectrum_histogram`.
    """
    rows = _rows(singular_values, epoch)
    layers = [(str(name), part) for name, part in rows.groupby("module", sort=False)]
    title = heading(title, rows)
    for start in range(0, len(layers), LAYERS_PER_PAGE):
        yield _page(layers[start : start + LAYERS_PER_PAGE], title, note)


def _page(layers: list[tuple[str, pd.DataFrame]], title: str, note: str | None) -> Figure:
    margins = {"left": 0.1, "right": 0.98, "bottom": 0.1, "top": 0.94, "hspace": 0.5, "wspace": 0.25}
    figure, axes = new_figure(LAYERS_PER_PAGE, 2, panel_height=2.2, margins=margins)
    handles: dict[Group, Artist] = {}
    for (left, right), (name, rows) in zip(axes, layers, strict=False):
        handles |= _histogram(left, rows, float(rows["value"].max()), log_counts=False)
        _cumulative(right, rows)
        label(left, x="singular value", title=name)
        right.yaxis.set_minor_locator(NullLocator())
        label(right, x="threshold", y="count below threshold")
    for ax in axes[len(layers) :].flat:
        ax.set_visible(False)
    figure.suptitle(title, fontsize=TITLE_SIZE, y=0.985)
    names = list(map(str, handles))
    figure.legend(handles.values(), names, loc="lower center", ncols=len(names), fontsize=TICK_SIZE, frameon=False)
    figure.text(0.98, 0.005, note or "", ha="right", fontsize=SMALL_SIZE, fontstyle="italic", color=GREY)
    return figure


def spectrum_along_training(spectrum: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """The whole network at every saved epoch: share of small singular values, and the sum of norm ratios.

    Lines are means over replicas, bands go from the smallest to the largest. "Small" is below that threshold of the
    table at which the mean share is nearest to a tenth.

    Args:
        spectrum: columns run, epoch (number), module, num_values, count_below_<threshold>, ratio; rows "all" and "sum".
    """
    require_columns(spectrum, ("run", "epoch", "module", "num_values", "ratio"), "spectrum")
    whole = spectrum[spectrum["module"] == "all"]
    if whole.empty:
        return empty_figure("no spectra to show", note)
    shares = {name: whole[name] / whole["num_values"] for name in whole.columns if name.startswith("count_below_")}
    small = min(shares, key=lambda name: abs(float(shares[name].mean()) - 0.1))
    panels = {
        f"share below {small.removeprefix('count_below_')}": whole.assign(y=shares[small]),
        "Σ ‖W‖_F / ‖W‖_2": spectrum[spectrum["module"] == "sum"].assign(y=lambda rows: rows["ratio"]),
    }
    figure, axes = new_figure(1, 2, panel_height=2.1)
    kinds = in_usual_order(in_order(kinds_of(whole)))
    looks = looks_for(kinds)
    handles: dict[str, Artist] = {}
    for ax, (name, rows) in zip(axes[0], panels.items(), strict=True):
        for kind in kinds:
            handles[kind] = banded_line(
                ax, spread(without_gaps(rows[kinds_of(rows) == kind], "epoch"), "epoch", "y"), looks[kind]
            )
        label(ax, x="epoch", y=name)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    label(axes[0, 0], title=heading(title, spectrum))
    legend_below(figure, list(handles.values()), list(handles))
    return add_note(figure, note)


def paddings(spectrum: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """Share of the whole network's singular values below each threshold: its own padding against the circular one.

    Solid lines and bands are the network's own padding, dashed lines the circular one; means over replicas. Bands hold
    the replicas and the error bars of the counts. Does the order of P-T and RI-T survive?

    Args:
        spectrum: columns run, padding, module, num_values, count_below_<t>, low_below_<t>, high_below_<t>; rows "all".
    """
    require_columns(spectrum, ("run", "padding", "module", "num_values"), "network_spectrum")
    rows = spectrum[spectrum["module"] == "all"]
    thresholds = [name.removeprefix("count_below_") for name in rows.columns if name.startswith("count_below_")]
    if rows.empty or not thresholds:
        return empty_figure("no spectra to show", note)
    figure, axes = new_figure(panel_height=2.4)
    ax = axes[0, 0]
    kinds = in_usual_order(in_order(kinds_of(rows)))
    looks = looks_for(kinds)
    limits = [float(threshold) for threshold in thresholds]
    handles: dict[str, Artist] = {}
    for kind in kinds:
        for padding, style in (("network", "-"), ("circular", "--")):
            chosen = rows[(kinds_of(rows) == kind) & (rows["padding"] == padding)]
            count, low, high = (_shares(chosen, name, thresholds) for name in ("count", "low", "high"))
            look = looks[kind]
            (line,) = ax.plot(limits, count.mean(0), linestyle=style, marker="o", markersize=2.5, color=look.colour)
            handles[f"{kind}, {padding}"] = line
            if padding == "network":
                ax.fill_between(limits, low.min(0), high.max(0), color=look.colour, alpha=0.2, linewidth=0)
    set_scale(ax, "x", "log")
    set_scale(ax, "y", "log")
    label(ax, x="threshold", y="share below threshold", title=heading(title, rows))
    legend_below(figure, list(handles.values()), list(handles))
    return add_note(figure, note)


def _shares(rows: pd.DataFrame, name: str, thresholds: list[str]) -> np.ndarray:
    """Shares (runs, thresholds) of the counts whose columns begin with a name."""
    counts = rows[[f"{name}_below_{threshold}" for threshold in thresholds]].to_numpy(dtype=float)
    return counts / rows["num_values"].to_numpy(dtype=float)[:, None]


def norm_ratios(
    spectrum: pd.DataFrame, *, epoch: object | None = None, title: str | None = None, note: str | None = None
) -> Figure:
    """‖W‖_F / ‖W‖_2 of every module; the legend gives their sum over the network (appendix C).

    Args:
        spectrum: columns run, epoch, module, ratio (without unit, at least 1); "all" is the whole network and left out,
            "sum" holds the sum.
    """
    require_columns(spectrum, ("run", "module", "ratio"), "spectrum")
    rows = last_epoch_rows(spectrum, epoch)
    rows = rows.assign(kind=kinds_of(rows))
    modules = [name for name in in_order(rows["module"]) if name not in ("all", "sum")]
    if not modules:
        return empty_figure("no norms to show", note)
    figure, axes = new_figure(width=PANEL_WIDTH if len(modules) <= 24 else DOUBLE_WIDTH, panel_height=2.7)
    ax = axes[0, 0]
    kinds = in_usual_order(in_order(rows["kind"]))
    groups = {kind: rows[rows["kind"] == kind] for kind in kinds}
    handles = module_lines(ax, groups, "module", "ratio", modules, looks_for(kinds))
    if scale_for(ax, rows.loc[rows["module"].isin(modules), "ratio"].to_numpy(dtype=float)) == "log":
        minor_labels_if_short(ax)
    else:
        ax.set_ylim(bottom=0)
    label(ax, x="layer, input to output", y="‖W‖ Frobenius / spectral", title=heading(title, rows))
    category_ticks(ax, modules)
    legend_below(figure, handles, [f"{kind}{_sum(group)}" for kind, group in groups.items()])
    return add_note(figure, note)


def _sum(rows: pd.DataFrame) -> str:
    values = rows.loc[rows["module"] == "sum", "ratio"].dropna()
    return f"  (Σ = {values.mean():.4g})" if len(values) else ""


def _rows(singular_values: pd.DataFrame, epoch: object | None) -> pd.DataFrame:
    """Finite values at one epoch of each run, with the kind of run; where none is asked for, also of RI-T at epoch 0.

    trained: False for these last ones.
    """
    require_columns(singular_values, COLUMNS, "singular_values")
    rows = last_epoch_rows(singular_values, epoch)
    rows = rows.assign(kind=kinds_of(rows), trained=True)
    if epoch is None and "epoch" in rows.columns:
        untrained = singular_values[singular_values["epoch"].astype(str) == "0"]
        untrained = untrained.assign(kind=kinds_of(untrained), trained=False)
        chosen = [kind for kind in untrained["kind"].unique() if kind_of(kind).is_plain("from_scratch")]
        rows = pd.concat([rows, untrained[untrained["kind"].isin(chosen)]], ignore_index=True)
    return rows[np.isfinite(rows["value"])]


def _quantile(rows: pd.DataFrame, share: float) -> float:
    """The value below which `share` of all singular values lie, each counted with its multiplicity."""
    order = np.argsort(rows["value"].to_numpy(dtype=float))
    values = rows["value"].to_numpy(dtype=float)[order]
    below = np.cumsum(rows["multiplicity"].to_numpy(dtype=float)[order])
    return float(values[np.searchsorted(below, share * below[-1])])


def _groups(rows: pd.DataFrame) -> list[Group]:
    """In the usual order of kinds, untrained networks last."""
    return [
        Group(kind, trained)
        for trained in (True, False)
        for kind in in_usual_order(in_order(rows.loc[rows["trained"] == trained, "kind"]))
    ]


def _looks(rows: pd.DataFrame) -> dict[Group, Look]:
    groups = _groups(rows)
    known = looks_for([group.kind for group in groups if group.trained])
    return {group: known[group.kind] if group.trained else UNTRAINED_LOOK for group in groups}


def _per_run(rows: pd.DataFrame) -> Mapping[Group, list[tuple[np.ndarray, np.ndarray]]]:
    """For each group, for each of its runs: values (n,) and multiplicities (n,)."""
    return {
        group: [
            (run["value"].to_numpy(dtype=float), run["multiplicity"].to_numpy(dtype=float))
            for _, run in group.rows_of(rows).groupby("run", sort=False)
        ]
        for group in _groups(rows)
    }


def _histogram(ax: Axes, rows: pd.DataFrame, upper: float, log_counts: bool) -> dict[Group, Artist]:
    """Counts in bins from 0 to `upper`. On a linear axis zeros are left out: they would flatten everything else.

    Zeros are many where a stride skips inputs, and in Fixup's networks before training.
    """
    edges = np.linspace(0, upper or 1.0, NUM_BINS + 1)
    looks = _looks(rows)
    handles: dict[Group, Artist] = {}
    for group, runs in _per_run(rows if log_counts else rows[rows["value"] > 0]).items():
        counts = np.stack([np.histogram(values, bins=edges, weights=times)[0] for values, times in runs])
        handles[group] = _steps(ax, edges, counts, looks[group])
        handles[group].set_zorder(ABOVE if group.is_above else BELOW)
    if log_counts:
        set_scale(ax, "y", "log")
        ax.set_ylim(bottom=0.7)
    else:
        ax.set_ylim(bottom=0)
        ax.ticklabel_format(axis="y", style="plain")
    ax.set_xlim(0, edges[-1])
    label(ax, y="singular values per bin" if log_counts else "positive values per bin")
    return handles


def _steps(ax: Axes, edges: np.ndarray, counts: np.ndarray, look: Look) -> Artist:
    """Mean and band over replicas of counts (runs, bins) as steps over `edges` (bins + 1,)."""
    mean, low, high = counts.mean(axis=0), counts.min(axis=0), counts.max(axis=0)
    values = np.append(mean, mean[-1])
    (line,) = ax.step(edges, values, where="post", color=look.colour, linestyle=look.dash, linewidth=1.1)
    if len(counts) > 1:
        band = np.append(low, low[-1]), np.append(high, high[-1])
        ax.fill_between(edges, *band, step="post", color=look.colour, alpha=0.2, linewidth=0)
    return line


def _cumulative(ax: Axes, rows: pd.DataFrame) -> dict[Group, Artist]:
    """Counts below thresholds from the first thousandth of the spectrum to its top, on log axes."""
    top = float(rows["value"].max()) or 1.0
    bottom = max(_quantile(rows, 1e-3), 1e-4 * top)
    thresholds = np.geomspace(min(bottom, 0.5 * top), 1.05 * top, 200)
    looks = _looks(rows)
    handles: dict[Group, Artist] = {}
    smallest = float(rows["multiplicity"].sum())
    for group, runs in _per_run(rows).items():
        counts = np.stack([_count_below(values, times, thresholds) for values, times in runs])
        look = looks[group]
        mean = counts.mean(axis=0)
        shown = np.where(mean > 0, mean, np.nan)
        smallest = min(smallest, float(np.nanmin(shown)))
        dash, zorder = look.dash, ABOVE if group.is_above else BELOW
        if kind_of(group.kind).is_plain("source"):  # the curve of P-T may cover that of P
            dash, zorder = "--", ABOVE + 1
        (handles[group],) = ax.plot(thresholds, shown, color=look.colour, linewidth=1.2, linestyle=dash, zorder=zorder)
        if len(counts) > 1:
            low, high = np.maximum(counts.min(axis=0), 0.1), counts.max(axis=0)
            ax.fill_between(thresholds, low, high, color=look.colour, alpha=0.18, linewidth=0)
    set_scale(ax, "x", "log")
    set_scale(ax, "y", "log")
    ax.set_xlim(thresholds[0], thresholds[-1])
    minor_labels_if_short(ax, "x")
    ax.set_ylim(bottom=0.8 * smallest)
    minor_labels_if_short(ax, "y")
    return handles


def _count_below(values: np.ndarray, times: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    order = np.argsort(values)
    below = np.concatenate([[0.0], np.cumsum(times[order])])
    return below[np.searchsorted(values[order], thresholds, side="left")]
