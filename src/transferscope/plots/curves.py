"""Learning curves of one task (Figure 2)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from transferscope.plots.marks import banded_line
from transferscope.plots.rates import KindAtRate, by_kind_and_rate, looks_by_kind_and_rate
from transferscope.plots.rows import heading, require_columns, spread
from transferscope.plots.style import (
    Look,
    add_note,
    empty_figure,
    label,
    legend_below,
    metric_axis,
    new_figure,
)


def learning_curves(
    history: pd.DataFrame,
    runs: pd.DataFrame | None = None,
    *,
    metric: str | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Test metric (top) and train metric (bottom) against the epoch: Figure 2, one task.

    One colour a kind of run, one dash a learning rate (the largest of a run's schedule; the smallest rate is solid).
    Lines are means over replicas, bands go from the smallest to the largest replica. A star is the best epoch of
    a replica, on the validation part where the history has it, else on test; a cross is the last value of a run that
    diverged.

    Args:
        history: columns task, run, epoch, lr, test_<metric>, train_<metric> (train_loss_eval for the loss).
        runs: columns run and lr, the learning rate of the plan, which counts also where a run diverged before it saw
            all of it; default: the largest in the history.
        metric: "accuracy", "auc" or "loss"; default: AUC where the table has values of it, else accuracy.
    """
    metric = metric or default_metric(history)
    if runs is not None:
        history = history.assign(lr=history["run"].map(runs.set_index("run")["lr"]))
    columns = {"test": f"test_{metric}", "train": "train_loss_eval" if metric == "loss" else f"train_{metric}"}
    require_columns(history, ("run", "epoch", "lr", *columns.values()), "history")
    if history.empty:
        return empty_figure("no history to show", note)
    figure, axes = new_figure(2, 1, panel_height=1.75, sharex=True)
    groups = by_kind_and_rate(history)
    looks = looks_by_kind_and_rate(list(groups))
    part = "validation" if f"validation_{metric}" in history.columns else "test"
    handles: dict[KindAtRate, Artist] = {}
    for ax, (split, column) in zip(axes[:, 0], columns.items(), strict=True):
        for group, rows in groups.items():
            handles[group] = banded_line(ax, spread(rows, "epoch", column), looks[group])
            best = f"{part}_{metric}" if split == "test" else None
            _mark_ends(ax, rows, column, looks[group], best=best, metric=metric)
        metric_axis(ax, metric, history[column].to_numpy(dtype=float), prefix=split)
        ax.margins(x=0.03)
    label(axes[0, 0], title=heading(title, history))
    label(axes[1, 0], x="epoch")
    axes[1, 0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    star = Line2D([], [], linestyle="", marker="*", markersize=6, color="#444444", markeredgewidth=0)
    legend_below(figure, [*handles.values(), star], [*map(str, handles), f"best epoch ({part})"], columns=2)
    return add_note(figure, note)


def default_metric(history: pd.DataFrame) -> str:
    """AUC where the history holds a finite one (multi-label tasks), else accuracy."""
    if "test_auc" in history.columns and np.isfinite(pd.to_numeric(history["test_auc"], errors="coerce")).any():
        return "auc"
    return "accuracy"


def _mark_ends(ax: Axes, rows: pd.DataFrame, column: str, look: Look, *, best: str | None, metric: str) -> None:
    """A star at the best epoch of every replica, a cross where a run stopped because it diverged."""
    for _, run in rows.groupby("run", sort=False):
        run = run.sort_values("epoch")
        shown = run[np.isfinite(pd.to_numeric(run[column], errors="coerce"))]
        if shown.empty:
            continue
        candidates = shown if len(shown) == 1 else shown[shown["epoch"] > 0]
        values = candidates[best].astype(float) if best is not None else pd.Series(dtype=float)
        if values.notna().any():
            row = shown.loc[values.idxmin() if metric == "loss" else values.idxmax()]
            ax.plot(row["epoch"], row[column], "*", color=look.colour, markersize=6.5, mec="white", mew=0.4, zorder=5)
        if _diverged(run):
            last = shown.iloc[-1]
            ax.plot(last["epoch"], last[column], "X", color=look.colour, markersize=5.5, mec="black", mew=0.5, zorder=6)


def _diverged(run: pd.DataFrame) -> bool:
    """A running train loss that is not finite after the first epoch has begun."""
    if "train_loss" not in run.columns:
        return False
    trained = pd.to_numeric(run.loc[run["epoch"] > run["epoch"].min(), "train_loss"], errors="coerce")
    return bool((~np.isfinite(trained)).any())
