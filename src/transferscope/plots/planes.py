"""Planes through three models, and the walls of a basin (Definition 3.1): beyond the paper's figures."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from transferscope.experiment.names import CheckpointName
from transferscope.plots.roles import kind_of
from transferscope.plots.rows import how_many, kind_of_run, main_metric, require_columns
from transferscope.plots.style import (
    BLUE,
    DOUBLE_WIDTH,
    GREY,
    LABEL_SIZE,
    METRIC_NAMES,
    SEQUENTIAL_MAP,
    TICK_SIZE,
    VERMILLION,
    add_note,
    empty_figure,
    framed,
    label,
    legend_below,
    new_figure,
    power_label,
    scale_for,
)

MARKERS = ("o", "s", "^")
COLUMNS = ("x", "y", "checkpoint", "metric", "value")
NUM_LEVELS = 12


def plane_contours(
    plane: pd.DataFrame,
    *,
    metrics: tuple[str, ...] | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Metrics on the plane through three models as filled contours, a panel each, the models marked.

    Both axes are l2 distances between weights, at one scale, so that a circle is a circle. Levels are evenly spaced,
    for a loss that spans more than a factor of 30 evenly in its logarithm. Cells without a finite value are grey.

    Args:
        plane: rows of one plane: columns task, split, x, y, checkpoint (empty on the grid), metric, value.
        metrics: default: AUC where the table has it, else accuracy; and the loss.
    """
    require_columns(plane, COLUMNS, "plane")
    metrics = metrics or (main_metric(plane), "loss")
    named = plane["checkpoint"].fillna("").astype(str)
    grid, marked = plane[named == ""], plane[named != ""]
    present = [metric for metric in metrics if (grid["metric"] == metric).any()]
    if not present:
        return empty_figure("no plane to show", note)
    width = DOUBLE_WIDTH if len(present) > 1 else None
    shape = min(1.0, np.ptp(grid["y"]) / np.ptp(grid["x"]))
    figure, axes = new_figure(1, len(present), width=width, panel_height=1.0 + 2.1 * shape, sharey=True)
    for ax, metric in zip(axes[0], present, strict=True):
        _contours(figure, ax, grid[grid["metric"] == metric], metric)
        label(ax, x="l2 distance")
    label(axes[0, 0], y="l2 distance")
    points = marked.drop_duplicates("checkpoint")
    for ax in axes[0]:
        handles = _mark(ax, points)
    split = f", {plane['split'].iloc[0]} set" if "split" in plane.columns else ""
    task = f"{plane['task'].iloc[0]}{split}" if "task" in plane.columns else ""
    figure.suptitle((task if title is None else title) + how_many(plane), fontsize=8.5)
    legend_below(figure, handles, [point_name(name) for name in points["checkpoint"]])
    return add_note(figure, note)


def _contours(figure: Figure, ax: Axes, rows: pd.DataFrame, metric: str) -> None:
    values = rows.pivot(index="y", columns="x", values="value")
    cells = np.ma.masked_invalid(values.to_numpy(dtype=float))
    shown = cells.compressed()
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 1.0)
    high = max(high, low + 1e-6 * max(abs(low), 1.0))
    logarithmic = metric == "loss" and low > 0 and high > 30 * low
    levels = np.geomspace(low, high, NUM_LEVELS + 1) if logarithmic else np.linspace(low, high, NUM_LEVELS + 1)
    norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
    colours = matplotlib.colormaps[SEQUENTIAL_MAP if metric != "loss" else f"{SEQUENTIAL_MAP}_r"]
    ax.set_facecolor("#bbbbbb")
    x, y = values.columns.to_numpy(dtype=float), values.index.to_numpy(dtype=float)
    filled = ax.contourf(x, y, cells, levels=levels, cmap=colours, norm=norm)
    ax.contour(x, y, cells, levels=levels, colors="white", linewidths=0.3)
    ax.set_aspect("equal")
    framed(ax)
    bar = figure.colorbar(filled, ax=ax, fraction=0.05, pad=0.03, ticks=levels[::3])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(power_label))
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=TICK_SIZE, width=0.6, length=2)
    bar.set_label(METRIC_NAMES.get(metric, metric), fontsize=LABEL_SIZE)


def _mark(ax: Axes, points: pd.DataFrame) -> list[Artist]:
    handles: list[Artist] = []
    for marker, (x, y) in zip(MARKERS, points[["x", "y"]].to_numpy(dtype=float), strict=False):
        style: dict[str, Any] = {
            "marker": marker,
            "color": VERMILLION,
            "markersize": 6,
            "mec": "white",
            "mew": 0.8,
            "linestyle": "",
        }
        ax.plot([x], [y], zorder=5, **style)
        handles.append(Line2D([], [], **style))
    return handles


def point_name(checkpoint: str) -> str:
    """`clipart.pt_1@final` is `P-T 1`; at epoch 0 the pre-trained model with a new classifier, or an untrained one."""
    parsed = CheckpointName.parse(checkpoint)
    kind, epoch = kind_of_run(checkpoint), parsed.epoch
    name = f"{kind} {parsed.run_name.replica or parsed.run}"
    if epoch == 0:
        if kind_of(kind).roles == ("fine_tuned",):
            return f"pre-trained, with the new classifier of {name}"
        return f"initial weights of {name}"
    return name if epoch == "final" else f"{name}, {epoch if epoch == 'best' else f'epoch {epoch}'}"


def basin_walls(basin: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """The cost of leaving the hull: mean loss above that of the hull, by length, for noise and for ways outward.

    A panel a hull. The dashed line is 2 epsilon, which both must reach for a length to be the delta of a basin. Length
    0 is the rim of the hull itself. Whiskers are bootstrap intervals over the draws and the examples.

    Args:
        basin: columns hull, checkpoints (of the models that span it), quantity, length, value, low, high, threshold;
            quantities noise, ray, epsilon, delta.
    """
    require_columns(basin, ("hull", "checkpoints", "quantity", "length", "value", "low", "high", "threshold"), "basin")
    if not basin["quantity"].isin(("noise", "ray")).any():
        return empty_figure("no walls of a basin to show", note)
    hulls = list(basin.groupby("checkpoints", sort=False))
    figure, axes = new_figure(1, len(hulls), panel_height=2.3)
    looks = {"noise": ("random noise", BLUE, "o"), "ray": ("outward along the ray", VERMILLION, "s")}
    handles: dict[str, Artist] = {}
    for ax, (_, hull) in zip(axes[0], hulls, strict=True):
        outside = hull[hull["quantity"].isin(list(looks))]
        for quantity, (name, colour, marker) in looks.items():
            rows = outside[outside["quantity"] == quantity].sort_values("length")
            whiskers = np.abs(rows[["low", "high"]].to_numpy(dtype=float).T - rows["value"].to_numpy(dtype=float))
            handles[name] = ax.errorbar(
                rows["length"], rows["value"], whiskers, color=colour, marker=marker, markersize=3.5, linewidth=1.1
            )
        threshold = float(outside["threshold"].iloc[0])
        ax.axhline(threshold, color=GREY, linestyle="--", linewidth=1.0)
        label(ax, x="length (l2)", title=f"hull of {hull['hull'].iloc[0]}: {_numbers(hull)}")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        scale_for(ax, np.append(outside["value"].to_numpy(dtype=float), threshold))
    label(axes[0, 0], y="loss above the hull's mean\n(nats/example)")
    figure.suptitle(title or "", fontsize=8.5)
    line = Line2D([], [], color=GREY, linestyle="--", linewidth=1.0)
    legend_below(figure, [*handles.values(), line], [*handles, "2ε"])
    return add_note(figure, note)


def _numbers(rows: pd.DataFrame) -> str:
    """`(ε, δ) = (0.0038, 49.1)`."""
    values = rows.set_index("quantity")["value"].astype(float)
    delta = f"δ = {values['delta']:.3g}" if np.isfinite(values["delta"]) else "δ beyond what was tried"
    return f"ε = {values['epsilon']:.2g}, {delta}"
