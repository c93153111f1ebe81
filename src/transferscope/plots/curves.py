"""Learning curves of one task (Figure 2)."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from transferscope.plots.lines import banded_line
from transferscope.plots.series import heading, in_order, kinds_of, require_columns, spread
from transferscope.plots.style import (
    DASHES,
    Look,
    add_note,
    empty_figure,
    in_usual_order,
    label,
    legend_below,
    looks_for,
    metric_axis,
    new_figure,
)

RATE_WORDS = re.compile(r"( \w+)? lr\b.*")
"""What a kind's name says of the learning rate; the legend gives the number instead."""


def learning_curves(
    history: pd.DataFrame, *, metric: str | None = None, title: str | None = None, note: str | None = None
) -> Figure:
    """Test metric (top) and train metric (bottom) against the epoch: Figure 2, one task.

    One colour a kind of run, one dash a learning rate (the largest of a run's schedule; the smallest rate is solid).
    Lines are means over replicas, bands go from the smallest to the largest replica. A star is the best epoch of
    a replica, on the validation part where the history has it, else on test; a cross is the last value of a run that
    diverged.

    Args:
        history: columns task, run, epoch, lr, test_<metric>, train_<metric> (train_loss_eval for the loss).
        metric: "accuracy", "auc" or "loss"; default: AUC where the table has values of it, else accuracy.
    """
    metric = metric or default_metric(history)
    columns = {"test": f"test_{metric}", "train": "train_loss_eval" if metric == "loss" else f"train_{metric}"}
    require_columns(history, ("run", "epoch", "lr", *columns.values()), "history")
    if history.empty:
        return empty_figure("no history to show", note)
    figure, axes = new_figure(2, 1, panel_height=1.75, sharex=True)
    groups = _groups(history)
    looks = _looks(groups)
    part = "validation" if f"validation_{metric}" in history.columns else "test"
    handles: dict[str, Artist] = {}
    for ax, (split, column) in zip(axes[:, 0], columns.items(), strict=True):
        for name, rows in groups.items():
            handles[name] = banded_line(ax, spread(rows, "epoch", column), looks[name], few=1)
            best = f"{part}_{metric}" if split == "test" else None
            _mark_ends(ax, rows, column, looks[name], best=best, metric=metric)
        metric_axis(ax, metric, history[column].to_numpy(dtype=float), prefix=split)
        ax.margins(x=0.03)
    label(axes[0, 0], title=heading(title, history))
    label(axes[1, 0], x="epoch")
    axes[1, 0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    star = Line2D([], [], linestyle="", marker="*", markersize=6, color="#444444", markeredgewidth=0)
    legend_below(figure, [*handles.values(), star], [*handles, f"best epoch ({part})"], columns=2)
    return add_note(figure, note)


def default_metric(history: pd.DataFrame) -> str:
    """AUC where the history holds a finite one (multi-label tasks), else accuracy."""
    if "test_auc" in history.columns and np.isfinite(pd.to_numeric(history["test_auc"], errors="coerce")).any():
        return "auc"
    return "accuracy"


def _groups(history: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by kind of run and base learning rate, named for the legend; smallest rate first within a kind."""
    rates = history.groupby("run")["lr"].max().map(lambda rate: float(f"{rate:.3g}"))
    kinds = kinds_of(history).map(lambda kind: RATE_WORDS.sub("", kind))
    rate = history["run"].map(rates)
    groups = {}
    for kind in in_usual_order(in_order(kinds)):
        for value in sorted(rate[kinds == kind].unique()):
            groups[f"{kind}, lr {value:g}"] = history[(kinds == kind) & (rate == value)]
    return groups


def _looks(groups: dict[str, pd.DataFrame]) -> dict[str, Look]:
    """The colour of the kind of run; a dash for each learning rate of it."""
    kinds = [name.rsplit(", lr ", 1)[0] for name in groups]
    plain = looks_for(kinds)
    ranks = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return {
        name: Look(plain[kind].colour, plain[kind].marker, DASHES[rank % len(DASHES)])
        for name, kind, rank in zip(groups, kinds, ranks, strict=True)
    }


def _mark_ends(ax: Axes, rows: pd.DataFrame, column: str, look: Look, *, best: str | None, metric: str) -> None:
    """A star at the best epoch of every replica, a cross where a run stopped because it diverged."""
    for _, run in rows.groupby("run", sort=False):
        run = run.sort_values("epoch")
        shown = run[np.isfinite(pd.to_numeric(run[column], errors="coerce"))]
        if shown.empty:
            continue
        if best is not None:
            values = shown.loc[(shown["epoch"] > 0) | (len(shown) == 1), best].astype(float)
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
