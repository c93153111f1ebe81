"""Spectra of weights (Figures 31 to 33, the sum of norm ratios of appendix C)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferscope.plots.lines import module_lines
from transferscope.plots.series import heading, in_order, kinds_of, last_epoch_rows, require_columns, task_title
from transferscope.plots.style import (
    DOUBLE_WIDTH,
    PANEL_WIDTH,
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


def spectrum_histogram(
    singular_values: pd.DataFrame,
    *,
    epoch: object | None = None,
    upper: float | None = None,
    log_counts: bool = True,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Histogram of the singular values of all layers together: Figures 31a and 32, one task.

    Steps are means over replicas, bands go from the smallest to the largest. Every value counts as often as its
    multiplicity says. All kinds share the bins.

    Args:
        singular_values: columns run, epoch, module, value, multiplicity.
        epoch: default: the final epoch of each run.
        upper: right end of the x axis; default: the largest value.
        log_counts: y on a log axis.
    """
    rows = _rows(singular_values, epoch)
    if rows.empty:
        return empty_figure("no singular values to show", note)
    figure, axes = new_figure(panel_height=2.4)
    ax = axes[0, 0]
    handles = _histogram(ax, rows, upper or float(rows["value"].max()), log_counts)
    label(ax, x="singular value", title=heading(title, rows))
    legend_below(figure, list(handles.values()), list(handles))
    return add_note(figure, note)


def lower_spectrum_histogram(
    singular_values: pd.DataFrame,
    *,
    epoch: object | None = None,
    share: float = 0.25,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """The lower part of `spectrum_histogram` on linear axes: Figure 31b.

    Args:
        share: the axis ends where this share of all singular values lies below it.
    """
    rows = _rows(singular_values, epoch)
    if rows.empty:
        return empty_figure("no singular values to show", note)
    upper = _quantile(rows, share) or float(rows["value"].max())
    return spectrum_histogram(singular_values, epoch=epoch, upper=upper, log_counts=False, title=title, note=note)


def count_below_threshold(
    singular_values: pd.DataFrame,
    *,
    epoch: object | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """How many singular values of the whole network lie below a threshold, against the threshold: Figure 33.

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
    legend_below(figure, list(handles.values()), list(handles))
    return add_note(figure, note)


def module_spectra(
    singular_values: pd.DataFrame, *, epoch: object | None = None, note: str | None = None
) -> list[Figure]:
    """One figure a module, in the order of the table: histogram (left) and count below a threshold (right).

    The accompanying files `spectrum-plots-*.pdf` of the paper; save the list as pages of one PDF.

    Args: as for `spectrum_histogram`.
    """
    rows = _rows(singular_values, epoch)
    figures = []
    for module in in_order(rows["module"]):
        figure, axes = new_figure(1, 2, panel_height=2.4)
        of_module = rows[rows["module"] == module]
        handles = _histogram(axes[0, 0], of_module, float(of_module["value"].max()), log_counts=False)
        _cumulative(axes[0, 1], of_module)
        label(axes[0, 0], x="singular value")
        label(axes[0, 1], x="threshold", y="count below threshold")
        figure.suptitle(f"{task_title(rows)}  {module}".strip(), fontsize=8.5)
        legend_below(figure, list(handles.values()), list(handles))
        figures.append(add_note(figure, note))
    return figures


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
    """Finite values of single modules at one epoch of each run, with the kind of run."""
    require_columns(singular_values, COLUMNS, "singular_values")
    rows = last_epoch_rows(singular_values, epoch)
    rows = rows[(rows["module"] != "all") & np.isfinite(rows["value"].astype(float))]
    return rows.assign(kind=kinds_of(rows))


def _quantile(rows: pd.DataFrame, share: float) -> float:
    """The value below which `share` of all singular values lie, each counted with its multiplicity."""
    order = np.argsort(rows["value"].to_numpy(dtype=float))
    values = rows["value"].to_numpy(dtype=float)[order]
    below = np.cumsum(rows["multiplicity"].to_numpy(dtype=float)[order])
    return float(values[np.searchsorted(below, share * below[-1])])


def _per_run(rows: pd.DataFrame) -> Mapping[str, list[tuple[np.ndarray, np.ndarray]]]:
    """For each kind, for each of its runs: values (n,) and multiplicities (n,)."""
    kinds = in_usual_order(in_order(rows["kind"]))
    return {
        kind: [
            (run["value"].to_numpy(dtype=float), run["multiplicity"].to_numpy(dtype=float))
            for _, run in rows[rows["kind"] == kind].groupby("run", sort=False)
        ]
        for kind in kinds
    }


def _histogram(ax: Axes, rows: pd.DataFrame, upper: float, log_counts: bool) -> dict[str, Artist]:
    edges = np.linspace(0, upper or 1.0, NUM_BINS + 1)
    looks = looks_for(in_order(rows["kind"]))
    handles: dict[str, Artist] = {}
    for kind, runs in _per_run(rows).items():
        counts = np.stack([np.histogram(values, bins=edges, weights=times)[0] for values, times in runs])
        handles[kind] = _steps(ax, edges, counts, looks[kind])
    if log_counts:
        set_scale(ax, "y", "log")
        ax.set_ylim(bottom=0.7)
    else:
        ax.set_ylim(bottom=0)
        ax.ticklabel_format(axis="y", style="plain")
    ax.set_xlim(0, edges[-1])
    label(ax, y="singular values per bin")
    return handles


def _steps(ax: Axes, edges: np.ndarray, counts: np.ndarray, look: Look) -> Artist:
    """Mean and band over replicas of counts (runs, bins) as steps over `edges` (bins + 1,)."""
    mean, low, high = counts.mean(axis=0), counts.min(axis=0), counts.max(axis=0)
    (line,) = ax.step(edges, np.append(mean, mean[-1]), where="post", color=look.colour, linewidth=1.1)
    ax.fill_between(
        edges,
        np.append(low, low[-1]),
        np.append(high, high[-1]),
        step="post",
        color=look.colour,
        alpha=0.2,
        linewidth=0,
    )
    return line


def _cumulative(ax: Axes, rows: pd.DataFrame) -> dict[str, Artist]:
    """Counts below thresholds from the first thousandth of the spectrum to its top, on log axes."""
    top = float(rows["value"].max()) or 1.0
    bottom = max(_quantile(rows, 1e-3), 1e-4 * top)
    thresholds = np.geomspace(min(bottom, 0.5 * top), 1.05 * top, 200)
    looks = looks_for(in_order(rows["kind"]))
    handles: dict[str, Artist] = {}
    for kind, runs in _per_run(rows).items():
        counts = np.stack([_count_below(values, times, thresholds) for values, times in runs])
        look = looks[kind]
        mean = counts.mean(axis=0)
        shown = np.where(mean > 0, mean, np.nan)
        (handles[kind],) = ax.plot(thresholds, shown, color=look.colour, linewidth=1.2)
        ax.fill_between(
            thresholds,
            np.maximum(counts.min(axis=0), 0.1),
            counts.max(axis=0),
            color=look.colour,
            alpha=0.18,
            linewidth=0,
        )
    set_scale(ax, "x", "log")
    set_scale(ax, "y", "log")
    ax.set_xlim(thresholds[0], thresholds[-1])
    ax.set_ylim(bottom=0.8)
    return handles


def _count_below(values: np.ndarray, times: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    order = np.argsort(values)
    below = np.concatenate([[0.0], np.cumsum(times[order])])
    return below[np.searchsorted(values[order], thresholds, side="left")]
