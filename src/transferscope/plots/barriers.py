"""Performance along the line between two models (Figures 12 to 29)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from transferscope.experiment.names import CheckpointName
from transferscope.plots.marks import banded_line
from transferscope.plots.roles import kind_of_pair
from transferscope.plots.rows import (
    heading,
    how_many,
    in_order,
    main_metric,
    require_columns,
    spread,
    task_title,
)
from transferscope.plots.style import (
    ALPHA,
    DOUBLE_WIDTH,
    GREY,
    LIGHT_GREY,
    SKY,
    Look,
    add_note,
    category_ticks,
    empty_figure,
    in_usual_order,
    label,
    legend_below,
    looks_for,
    metric_axis,
    new_figure,
    scale_for,
)

COLUMNS = ("split", "pair_kind", "checkpoint_a", "checkpoint_b", "alpha", "metric", "value")
SPLIT_DASHES = {"test": "-", "train": "--"}
ALPHA_LABEL = f"{ALPHA}   (0: first model, 1: second model)"


def barrier_panels(
    interpolation: pd.DataFrame,
    *,
    metric: str | None = None,
    splits: Sequence[str] = ("test", "train"),
    between: bool = False,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """A metric against alpha, a curve for each kind of pair: Figures 12 to 18, one task.

    Solid is test, dashed is train; lines are means over pairs, bands go from the smallest to the largest pair. Where
    the table compares several epochs (best and final, as in Figures 14 and 15), each combination has its own panel.
    Where alpha leaves [0, 1] (Figure 18), the part between the two models is shaded.

    Args:
        interpolation: rows of one task and one scenario; columns split, pair_kind, checkpoint_a, checkpoint_b, alpha,
            metric, value.
        metric: "accuracy", "loss" (nats per example) or "auc"; default: AUC where the table has it, else accuracy.
        between: Leave out what lies beyond the two models.
    """
    require_columns(interpolation, COLUMNS, "interpolation")
    metric = metric or main_metric(interpolation)
    if between:
        interpolation = interpolation[interpolation["alpha"].between(0, 1)]
    rows = interpolation[(interpolation["metric"] == metric) & interpolation["split"].isin(splits)]
    if rows.empty:
        return empty_figure(f"no interpolation in {metric} to show", note)
    ends = rows.apply(_ends, axis=1)
    combinations = in_order(ends)
    columns = min(2, len(combinations))
    figure, axes = new_figure(-(-len(combinations) // columns), columns, panel_height=2.3, sharex=True, sharey=True)
    handles: dict[str, Artist] = {}
    for ax, combination in zip(axes.flat, combinations, strict=False):
        handles |= _draw(ax, rows[ends == combination], metric, limits_of=rows)
        name = heading(title, rows) + how_many(rows)
        label(ax, x=ALPHA_LABEL, title=f"{name}, {combination}" if len(combinations) > 1 else name)
    _finish_grid(axes, len(combinations))
    _legend(figure, handles, rows)
    return add_note(figure, note)


def cross_domain_panels(
    interpolation: pd.DataFrame,
    *,
    metrics: tuple[str, str] | None = None,
    splits: Sequence[str] = ("test",),
    scenario: str | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Accuracy (left) and cross-entropy loss (right) against alpha between models of two tasks: Figures 19 to 29.

    Args:
        interpolation: rows of one scenario, columns as in `barrier_panels`.
        metrics: default: accuracy and loss; AUC instead of accuracy where there is no accuracy.
        scenario: the one of those in a column of that name that is drawn.
    """
    require_columns(interpolation, COLUMNS, "interpolation")
    if scenario is not None:
        interpolation = interpolation[interpolation["scenario"] == scenario]
    rows = interpolation[interpolation["split"].isin(splits)]
    present = set(rows["metric"])
    metrics = metrics or ("accuracy" if "accuracy" in present or "auc" not in present else "auc", "loss")
    rows = rows[rows["metric"].isin(metrics)]
    if rows.empty:
        return empty_figure("no interpolation across domains to show", note)
    figure, axes = new_figure(1, 2, panel_height=2.6)
    handles: dict[str, Artist] = {}
    for ax, metric in zip(axes[0], metrics, strict=True):
        chosen = rows[rows["metric"] == metric]
        handles |= _draw(ax, chosen, metric, limits_of=chosen)
        label(ax, x=_alpha_label(rows))
    evaluated_on = f"on {task_title(rows)}" if "task" in rows.columns else ""
    name = title if title is not None else f"{_between(rows)}, {evaluated_on}"
    figure.suptitle(name + how_many(rows), fontsize=8.5)
    _legend(figure, handles, rows)
    return add_note(figure, note)


def barrier_heights(
    barriers: pd.DataFrame,
    *,
    metric: str | None = "accuracy",
    split: str = "test",
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """The barrier of every pair as a dot, a row for each scenario and task: Figures 12 to 29 as numbers.

    Args:
        barriers: columns scenario, task, split, pair_kind, metric, barrier (units of the metric, positive: worse
            than the chord between the ends); and, for a line from one to the other, barrier_low and barrier_high.
        metric: one of those in the table; None: AUC of the tasks that have it, and accuracy of the others.
    """
    require_columns(barriers, ("scenario", "task", "split", "pair_kind", "metric", "barrier"), "barriers")
    if metric is None:
        has_auc = barriers["task"].isin(barriers.loc[barriers["metric"] == "auc", "task"])
        metric = "accuracy or AUC" if has_auc.nunique() > 1 else "AUC" if has_auc.any() else "accuracy"
        judged = has_auc.map({True: "auc", False: "accuracy"})
        barriers = barriers[barriers["metric"] == judged].assign(metric=metric)
    rows = barriers[(barriers["metric"] == metric) & (barriers["split"] == split)]
    if rows.empty:
        return empty_figure(f"no barriers in {metric} to show", note)
    scenarios = rows["scenario"].astype(str).str.replace("_", " ") + ", "
    places = scenarios.mask(rows["scenario"] == "within", "") + rows["task"].astype(str)
    names, kinds = in_order(places), in_usual_order(in_order(rows["pair_kind"]), kind_of_pair)
    looks = looks_for(kinds, kind_of_pair)
    figure, axes = new_figure(width=DOUBLE_WIDTH, panel_height=0.7 + max(1.0, 0.26 * len(names)))
    ax = axes[0, 0]
    for index, kind in enumerate(kinds):
        chosen = rows["pair_kind"] == kind
        place = places[chosen].map({name: row for row, name in enumerate(names)}).to_numpy(dtype=float)
        y = place + 0.5 * ((index + 0.5) / len(kinds) - 0.5)
        if "barrier_low" in rows.columns:
            ends = rows.loc[chosen, ["barrier_low", "barrier_high"]].to_numpy(dtype=float).T
            ax.hlines(y, *ends, color=looks[kind].colour, linewidth=1.0, alpha=0.6)
        ax.plot(
            rows.loc[chosen, "barrier"],
            y,
            linestyle="",
            marker=looks[kind].marker,
            color=looks[kind].colour,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.4,
            label=kind,
        )
    ax.axvline(0, color=GREY, linewidth=0.8)
    unit = " (nats/example)" if metric == "loss" else ""
    if metric == "loss":
        scale_for(ax, rows["barrier"].to_numpy(dtype=float), axis="x", ratio=1e3)
    label(ax, x=f"barrier in {split} {metric}{unit}", title=title)
    category_ticks(ax, names, axis="y", longest=44)
    ax.set_ylim(len(names) - 0.5, -0.5)
    legend_below(figure, *ax.get_legend_handles_labels())
    return add_note(figure, note)


def _draw(ax: Axes, rows: pd.DataFrame, metric: str, limits_of: pd.DataFrame) -> dict[str, Artist]:
    """Curves of every kind of pair and split; handles by kind."""
    kinds = in_usual_order(in_order(rows["pair_kind"]), kind_of_pair)
    looks = looks_for(in_order(limits_of["pair_kind"]), kind_of_pair)
    if rows["alpha"].min() < 0 or rows["alpha"].max() > 1:
        ax.axvspan(0, 1, color=SKY, alpha=0.13, linewidth=0)
    handles: dict[str, Artist] = {}
    for kind in kinds:
        for split in in_order(rows["split"])[::-1]:
            chosen = rows[(rows["pair_kind"] == kind) & (rows["split"] == split)]
            if not chosen.empty:
                look = Look(looks[kind].colour, looks[kind].marker)
                handle = banded_line(ax, spread(chosen, "alpha", "value"), look, dash=SPLIT_DASHES.get(split, ":"))
                if kind not in handles or split == "test":
                    handles[kind] = handle
    for end in (0, 1):
        ax.axvline(end, color=LIGHT_GREY, linewidth=0.8, zorder=0.5)
    low, high = min(0.0, float(rows["alpha"].min())), max(1.0, float(rows["alpha"].max()))
    margin = 0.03 * (high - low)
    ax.set_xlim(low - margin, high + margin)
    metric_axis(ax, metric, limits_of["value"].to_numpy(dtype=float))
    return handles


def _legend(figure: Figure, handles: dict[str, Artist], rows: pd.DataFrame) -> None:
    names = in_usual_order(list(handles), kind_of_pair)
    marks, labels = [handles[name] for name in names], list(names)
    splits = set(rows["split"])
    if len(splits) > 1:
        for split in sorted(splits):
            marks.append(Line2D([], [], color=GREY, linewidth=1.2, ls=SPLIT_DASHES.get(split, ":")))
            labels.append(split)
    legend_below(figure, marks, labels)


def _finish_grid(axes: np.ndarray, used: int) -> None:
    """Hide panels without content and labels that a neighbour repeats."""
    for index, ax in enumerate(axes.flat):
        ax.set_visible(index < used)
        if index % axes.shape[1]:
            ax.set_ylabel("")
        if index + axes.shape[1] < used:
            ax.set_xlabel("")
        else:
            ax.tick_params(labelbottom=True)


def _ends(row: pd.Series) -> str:
    """`best & final`: the epochs of the two checkpoints of a row."""
    return " & ".join(str(CheckpointName.parse(row[side]).epoch) for side in ("checkpoint_a", "checkpoint_b"))


def _tasks_of(rows: pd.DataFrame, side: str) -> str:
    return "/".join(in_order(CheckpointName.parse(name).task for name in rows[side].unique()))


def _between(rows: pd.DataFrame) -> str:
    return f"{_tasks_of(rows, 'checkpoint_a')} → {_tasks_of(rows, 'checkpoint_b')}"


def _alpha_label(rows: pd.DataFrame) -> str:
    return f"{ALPHA}   (0: trained on {_tasks_of(rows, 'checkpoint_a')}, 1: on {_tasks_of(rows, 'checkpoint_b')})"
