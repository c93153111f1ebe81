"""Module criticality: heat maps, its measure mu, and rewinding (Figure 30; Figure 5 of the main text)."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from transferscope.plots.marks import cell_edges, grouped_bars
from transferscope.plots.rows import choose, heading, how_many, in_order, kinds_of, require_columns
from transferscope.plots.style import (
    DIVERGING_MAP,
    DOUBLE_WIDTH,
    GREY,
    LABEL_SIZE,
    LONGEST_NAME,
    METRIC_NAMES,
    MINUS,
    PANEL_WIDTH,
    SEQUENTIAL_MAP,
    SIGMA,
    TICK_SIZE,
    TITLE_SIZE,
    add_note,
    category_ticks,
    empty_figure,
    framed,
    in_usual_order,
    label,
    legend_below,
    looks_for,
    metric_axis,
    new_figure,
    power_label,
    set_scale,
    shorten,
)

MEASURES = {"error": f"error (1 {MINUS} accuracy)", "loss": "loss (nats/example)"}
ROWS = ("train", "test", f"test {MINUS} train")
UNTOUCHED = "none"
"""Module of the rewinding table's rows in which nothing was set back."""

LEAST_RANGE = 0.05
"""Of a colour scale: a single example more or less must not look like a cliff."""


def criticality_heat_map(
    criticality: pd.DataFrame,
    module: str,
    *,
    run: str | None = None,
    measure: str = "error",
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Error with one module moved towards its initial value and disturbed: Figure 30, one task, one run, one module.

    Rows: train, test, generalisation gap; columns: the paths (direct or along the optimisation, to the best or the
    final weights). x is the distance of the module from its initial value, y the standard deviation of the Gaussian
    noise that is added to it (the paper's y axis is labelled variance). Cells are means over draws; grey cells hold
    no finite value. Train and test share one colour scale, over all runs in the table, so that the maps of P-T and
    RI-T can be compared; so do the gaps, symmetric about 0.

    Args:
        criticality: columns run, module, path, end, split, position, distance, sigma, <measure>.
        run: default: the first run in the table.
        measure: "error" (fraction) or "loss" (nats per example).
    """
    keys = ("run", "module", "path", "end", "split", "position", "distance", "sigma", measure)
    require_columns(criticality, keys, "criticality")
    of_module = choose(criticality, "module", module)
    rows = choose(of_module, "run", run)
    if rows.empty:
        return empty_figure("no criticality to show", note)
    paths = list(rows[["path", "end"]].drop_duplicates().itertuples(index=False, name=None))
    maps = [_maps(rows[(rows["path"] == path) & (rows["end"] == end)], measure) for path, end in paths]
    limits = _limits(of_module, measure)
    widest = max(LEAST_RANGE, _widest_gap(of_module, measure))
    width = min(DOUBLE_WIDTH, 1.3 + 1.75 * len(paths)) if len(paths) > 1 else PANEL_WIDTH
    figure, axes = new_figure(3, len(paths), width=width, panel_height=1.35, sharex="col", sharey=True)
    meshes = []
    for column, (distances, sigmas, cells) in enumerate(maps):
        for row in range(3):
            gap = row == 2
            colours, low, high = (DIVERGING_MAP, -widest, widest) if gap else (SEQUENTIAL_MAP, *limits)
            meshes.append(_mesh(axes[row, column], distances, sigmas, cells[row], _cmap(colours), low, high))
        label(axes[0, column], title=_path_name(*paths[column]))
        label(axes[2, column], x="distance from initial")
    for row, name in enumerate(ROWS):
        label(axes[row, 0], y=f"{name}\n{SIGMA} of noise")
    _colour_bar(figure, meshes[0], axes[:2], MEASURES.get(measure, measure))
    _colour_bar(figure, meshes[2], axes[2:], "gap")
    name = title if title is not None else f"{rows['run'].iloc[0]}, {module}"
    figure.suptitle(shorten(name, 2 * LONGEST_NAME) + how_many(rows), fontsize=TITLE_SIZE)
    return add_note(figure, note)


def criticality_pages(
    criticality: pd.DataFrame, *, run: str, title: str | None = None, note: str | None = None
) -> Iterator[Figure]:
    """`criticality_heat_map` of every module of one run, drawn when it is asked for."""
    of_run = criticality[criticality["run"] == run]
    names = [part for part in (title, of_run["label"].iloc[0]) if part is not None]
    for module in criticality["module"].unique():
        yield criticality_heat_map(criticality, module, run=run, title=", ".join([*names, module]), note=note)


def first_criticality_page(
    criticality: pd.DataFrame, *, run: str, title: str | None = None, note: str | None = None
) -> Figure:
    """`criticality_heat_map` of the first module of one run."""
    return next(criticality_pages(criticality, run=run, title=title, note=note))


def _maps(rows: pd.DataFrame, measure: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances (p,) ascending, sigmas (s,) ascending, and values (3, s, p): train, test, test minus train."""
    rows = rows.assign(value=pd.to_numeric(rows[measure], errors="coerce").replace([np.inf, -np.inf], np.nan))
    distance = rows.groupby("position")["distance"].mean().sort_values(kind="stable")
    sigmas = np.sort(rows["sigma"].unique())
    cells = np.full((3, len(sigmas), len(distance)), np.nan)
    for index, split in enumerate(ROWS[:2]):
        grid = rows[rows["split"] == split].groupby(["sigma", "position"])["value"].mean().unstack()
        cells[index] = grid.reindex(index=sigmas, columns=distance.index).to_numpy()
    cells[2] = cells[1] - cells[0]
    return distance.to_numpy(), sigmas, cells


def _limits(rows: pd.DataFrame, measure: str) -> tuple[float, float]:
    values = pd.to_numeric(rows[measure], errors="coerce").replace([np.inf, -np.inf], np.nan).dropna()
    if values.empty:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return low, max(high, low + LEAST_RANGE)


def _widest_gap(rows: pd.DataFrame, measure: str) -> float:
    """The largest difference of test and train over all runs and paths."""
    places = rows.groupby(["run", "path", "end"], sort=False)
    gaps = (_maps(part, measure)[2][2] for _, part in places)
    return max(float(np.nanmax(np.abs(cells), initial=0.0)) for cells in gaps)


def _mesh(
    ax: Axes, distances: np.ndarray, sigmas: np.ndarray, cells: np.ndarray, colours: Colormap, low: float, high: float
) -> Artist:
    """Cells of the true width in distance (equal widths where positions coincide), one row a sigma."""
    apart = len(distances) == 1 or np.diff(distances).min() > 1e-3 * max(np.ptp(distances), 1e-12)
    x = cell_edges(distances if apart else np.arange(len(distances)))
    y = np.arange(len(sigmas) + 1) - 0.5
    mesh = ax.pcolormesh(
        x, y, np.ma.masked_invalid(cells), cmap=colours, vmin=low, vmax=high, linewidth=0, rasterized=True
    )
    framed(ax)
    step = -(-len(sigmas) // 6)
    ticks = range(0, len(sigmas), step)
    ax.set_yticks(list(ticks), [power_label(sigmas[index]) for index in ticks], fontsize=TICK_SIZE)
    if apart:
        ax.xaxis.set_major_locator(MaxNLocator(4))
    else:
        shown = range(0, len(distances), max(1, len(distances) // 3))
        ax.set_xticks(list(shown), [f"{distances[index]:.2g}" for index in shown], fontsize=TICK_SIZE)
    return mesh


def _cmap(name: str) -> Colormap:
    return matplotlib.colormaps[name].with_extremes(bad="#bbbbbb")


def _path_name(path: str, end: str) -> str:
    return f"{path} path\nto {end}"


def _colour_bar(figure: Figure, mesh: Artist, axes: np.ndarray, name: str) -> None:
    bar = figure.colorbar(mesh, ax=list(axes.flat), fraction=0.06, pad=0.02, aspect=12 * len(axes))  # type: ignore[arg-type]
    bar.set_label(name, fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE, width=0.6, length=2)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()


def module_criticality_bars(
    module_criticality: pd.DataFrame,
    *,
    path: str | None = None,
    end: str | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Criticality mu of every module, P-T beside RI-T, on a log axis: Chatterji et al. 2020, one task.

    A dot for each kind of run (mean over replicas, band from the smallest to the largest). mu = 0 (the module may go
    back to its initial value) is a hollow triangle at the bottom, mu = infinity (no point of the grid stays within
    epsilon) one at the top.

    Args:
        module_criticality: columns run, module, path, end, epsilon, mu (without unit).
        path, end: default: the direct path to the final weights, else what the table has first.
    """
    require_columns(module_criticality, ("run", "module", "mu"), "module_criticality")
    rows = choose(choose(module_criticality, "path", path, ("direct",)), "end", end, ("final",))
    if "epsilon" in rows.columns and not rows.empty:
        rows = rows[rows["epsilon"] == rows["epsilon"].min()]
    modules = in_order(rows["module"])
    if not modules:
        return empty_figure("no module criticality to show", note)
    rows = rows.assign(kind=kinds_of(rows), mu=rows["mu"].astype(float))
    figure, axes = new_figure(width=PANEL_WIDTH if len(modules) <= 24 else DOUBLE_WIDTH, panel_height=2.6)
    ax = axes[0, 0]
    seen = rows["mu"][np.isfinite(rows["mu"]) & (rows["mu"] > 0)]
    floor, ceiling = (float(seen.min()) / 2, float(seen.max()) * 2) if len(seen) else (0.1, 10.0)
    set_scale(ax, "y", "log")
    handles = _mu_columns(ax, rows, modules, floor, ceiling)
    ax.set_ylim(floor / 1.6, ceiling * 1.6)
    epsilon = f" (ε = {rows['epsilon'].iloc[0]:g})" if "epsilon" in rows.columns else ""
    label(ax, x="module, input to output", y=f"criticality μ{epsilon}", title=heading(title, rows))
    category_ticks(ax, modules)
    for beyond, marker, name in ((rows["mu"] == 0, "v", "μ = 0"), (np.isposinf(rows["mu"]), "^", "μ = ∞")):
        if beyond.any():
            handles[name] = Line2D(
                [], [], linestyle="", marker=marker, color=GREY, markerfacecolor="white", markersize=4
            )
    legend_below(figure, list(handles.values()), list(handles))
    return add_note(figure, note)


def _mu_columns(ax: Axes, rows: pd.DataFrame, modules: list[str], floor: float, ceiling: float) -> dict[str, Artist]:
    """A stem from the floor and a dot for each module and kind; triangles for 0 and infinity."""
    kinds = in_usual_order(in_order(rows["kind"]))
    looks = looks_for(kinds)
    handles: dict[str, Artist] = {}
    for index, kind in enumerate(kinds):
        look = looks[kind]
        values = rows[rows["kind"] == kind].groupby("module")["mu"]
        mean, low, high = (values.agg(how).reindex(modules).to_numpy(dtype=float) for how in ("mean", "min", "max"))
        x = np.arange(len(modules)) + 0.5 * ((index + 0.5) / len(kinds) - 0.5)
        shown = np.isfinite(mean) & (mean > 0)
        ax.vlines(x[shown], floor / 10, mean[shown], color=look.colour, linewidth=1.0, alpha=0.35)
        ax.vlines(x[shown], np.maximum(low[shown], floor), high[shown], color=look.colour, linewidth=2.2, alpha=0.5)
        ax.plot(x[shown], mean[shown], look.marker, color=look.colour, markersize=4, mec="white", mew=0.4)
        handles[kind] = Line2D([], [], linestyle="", marker=look.marker, color=look.colour, markersize=4)
        for beyond, marker, place in ((mean == 0, "v", floor / 1.25), (np.isposinf(mean), "^", ceiling * 1.25)):
            ax.plot(x[beyond], np.full(beyond.sum(), place), marker, color=look.colour, mfc="white", markersize=4)
    ax.set_xlim(-0.6, len(modules) - 0.4)
    ax.grid(False, axis="x")
    return handles


def rewinding_bars(
    rewinding: pd.DataFrame,
    *,
    metric: str | None = None,
    split: str = "test",
    epoch: object | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """A metric after one module is set back to an early epoch, P-T beside RI-T: Figure 5 of the main text, one task.

    Bars are means over replicas, whiskers go from the smallest to the largest. A dashed line is the model with
    nothing set back, where the table has it (module "none").

    Args:
        rewinding: columns run, module, epoch, split, metric, value.
        metric: default: AUC, else accuracy, else what the table has first.
        epoch: to which the module is set back; default: the earliest in the table (0, the initial value).
    """
    require_columns(rewinding, ("run", "module", "epoch", "split", "metric", "value"), "rewinding")
    rows = choose(rewinding[rewinding["split"] == split], "metric", metric, ("auc", "accuracy"))
    rows = rows.assign(kind=kinds_of(rows))
    untouched = rows["module"] == UNTOUCHED
    moved, whole = rows[~untouched], rows[untouched]
    if moved.empty:
        return empty_figure("no rewinding to show", note)
    moved = choose(moved, "epoch", epoch, sorted(moved["epoch"].unique(), key=_epoch_rank)[:1])
    modules, kinds = in_order(moved["module"]), in_usual_order(in_order(moved["kind"]))
    looks = looks_for(kinds)
    figure, axes = new_figure(width=PANEL_WIDTH if len(modules) <= 12 else DOUBLE_WIDTH, panel_height=2.5)
    ax = axes[0, 0]
    groups = {kind: moved[moved["kind"] == kind] for kind in kinds}
    handles = grouped_bars(ax, groups, "module", "value", modules, looks)
    for kind in kinds:
        level = whole.loc[whole["kind"] == kind, "value"].mean()
        if np.isfinite(level):
            ax.axhline(level, color=looks[kind].colour, linestyle="--", linewidth=1.0)
    name = str(moved["metric"].iloc[0])
    _bar_axis(ax, name, pd.concat([moved["value"], whole["value"]]).to_numpy(dtype=float))
    ax.set_ylabel(f"{split} {METRIC_NAMES.get(name, name)}", fontsize=LABEL_SIZE)
    label(ax, x=f"module set back to epoch {moved['epoch'].iloc[0]}", title=heading(title, moved))
    category_ticks(ax, modules)
    if not whole.empty:
        handles.append(Line2D([], [], color="#444444", linestyle="--", linewidth=1.0))
        kinds = [*kinds, "nothing set back"]
    legend_below(figure, handles, kinds)
    return add_note(figure, note)


def _epoch_rank(epoch: object) -> float:
    """Numbers in their order, names such as `best` after them."""
    try:
        return float(str(epoch))
    except ValueError:
        return np.inf


def _bar_axis(ax: Axes, metric: str, values: np.ndarray) -> None:
    """Bars start at 0; an AUC starts at chance, 1/2, where no value lies below."""
    metric_axis(ax, metric, values)
    if ax.get_yscale() != "linear":
        return
    finite = values[np.isfinite(values)]
    bottom = 0.5 if metric == "auc" and finite.size and finite.min() >= 0.5 else 0.0
    ax.set_ylim(bottom, ax.get_ylim()[1])
