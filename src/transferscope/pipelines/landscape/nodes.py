"""Nodes of landscape. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from transferscope.experiment.options import BasinOptions, CriticalityOptions, LandscapeOptions, PlaneOptions, Precision
from transferscope.pipelines.wiring import concatenate


def interpolate_pair(
    pair: dict[str, Any],
    series_a: Any,
    series_b: Any,
    train_split: Any,
    test_split: Any,
    options: dict[str, Any],
    precision: Precision,
    store: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics on the line between two models of one task, and beyond its ends, and the barriers (Figures 12 to 18)."""
    from transferscope.measure.line import Ends, line

    chosen = LandscapeOptions.model_validate(options)
    outside = chosen.extrapolation.outside() if chosen.extrapolation else []
    splits = {"train": train_split, "test": test_split}
    found = [
        line(Ends(pair, series_a, series_b, *epochs), splits, train_split, outside, chosen, store, precision)
        for epochs in chosen.end_points()
    ]
    points, barriers = (pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True))
    return points, barriers


def interpolate_pairs(
    pairs: list[dict[str, Any]],
    train_split: Any,
    test_split: Any,
    options: dict[str, Any],
    precision: Precision,
    store: Any,
    **series: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of `interpolate_pair` of many pairs, one below the other; series by the full name of the run."""
    found = [
        interpolate_pair(
            pair, series[pair["run_a"]], series[pair["run_b"]], train_split, test_split, options, precision, store
        )
        for pair in pairs
    ]
    points, barriers = (concatenate(*tables) for tables in zip(*found, strict=True))
    return points, barriers


def interpolate_across(
    pair: dict[str, Any],
    series_a: Any,
    series_b: Any,
    train_split: Any,
    test_split: Any,
    options: dict[str, Any],
    precision: Precision,
    store: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test metrics on one task along the line between models of two tasks, and the barriers (Figures 19 to 29)."""
    from transferscope.measure.line import Ends, line

    ends = Ends(pair, series_a, series_b)
    chosen = LandscapeOptions.model_validate(options)
    return line(ends, {"test": test_split}, train_split, [], chosen, store, precision)


def summarise_barriers(**barriers: pd.DataFrame) -> pd.DataFrame:
    """The barriers of all tasks and scenarios in one table."""
    from transferscope.analysis.barriers import summarise_barriers as summarise

    return summarise(pd.concat(barriers.values(), ignore_index=True))


def measure_plane(
    options: dict[str, Any],
    series_a: Any,
    series_b: Any,
    series_c: Any,
    train_split: Any,
    test_split: Any,
    precision: Precision,
    store: Any,
) -> pd.DataFrame:
    """Metrics on the plane through three models."""
    from transferscope.measure.surfaces import plane

    series = [series_a, series_b, series_c]
    return plane(PlaneOptions.model_validate(options), series, train_split, test_split, store, precision)


def measure_basin(
    run: dict[str, Any],
    train_split: Any,
    test_split: Any,
    options: dict[str, Any],
    precision: Precision,
    store: Any,
    *series: Any,
) -> pd.DataFrame:
    """(epsilon, delta) of the convex hull of all runs of a kind (Definition 3.1); `run` is the first of them."""
    from transferscope.measure.surfaces import basin

    chosen = BasinOptions.model_validate(options)
    return basin(run["label"], list(series), train_split, test_split, chosen, store, precision)


def measure_criticality(
    run: dict[str, Any],
    series: Any,
    train_split: Any,
    test_split: Any,
    options: dict[str, Any],
    modules: dict[str, Any],
    precision: Precision,
    store: Any,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Noise and paths for every module, mu per module, and rewinding of each module (Figure 30)."""
    from transferscope.measure.criticality import measure_modules
    from transferscope.models.modules import find_modules
    from transferscope.models.parametrised import analysed_model

    splits = {"train": train_split, "test": test_split}
    found = find_modules(analysed_model(series.load("final")), **modules)
    return measure_modules(run, series, found, splits, CriticalityOptions.model_validate(options), store, precision)


def draw_barriers(interpolation: pd.DataFrame, note: str | None) -> Any:
    """Figures 12, 14, 16: the metric of the task between the ends."""
    from transferscope.plots.barriers import barrier_panels

    return barrier_panels(
        _between_ends(interpolation), metric=_main_metric(interpolation), title=_task(interpolation), note=note
    )


def draw_loss_barriers(interpolation: pd.DataFrame, note: str | None) -> Any:
    """Figures 13, 15, 17: the loss between the ends."""
    from transferscope.plots.barriers import barrier_panels

    return barrier_panels(_between_ends(interpolation), metric="loss", title=_task(interpolation), note=note)


def draw_extrapolation(interpolation: pd.DataFrame, note: str | None) -> Any:
    """Figure 18: the metric of the task beyond the ends."""
    from transferscope.plots.barriers import barrier_panels

    shown = interpolation[interpolation["split"] == "test"]
    return barrier_panels(
        shown, metric=_main_metric(interpolation), splits=("test",), title=f"{_task(interpolation)}, test", note=note
    )


def draw_cross_domain(interpolation: pd.DataFrame, scenario: dict[str, Any], note: str | None) -> Any:
    """One of the Figures 19 to 29."""
    from transferscope.plots.barriers import cross_domain_panels

    first, second = scenario["tasks"]
    title = f"on {scenario['evaluated_on']}, test: {first} to {second}"
    return cross_domain_panels(interpolation[interpolation["scenario"] == scenario["figure"]], title=title, note=note)


def draw_barrier_heights(note: str | None, **barriers: pd.DataFrame) -> Any:
    """The test barrier of every pair of every scenario, in the metric of its task."""
    from transferscope.plots.barriers import barrier_heights

    rows = [table[table["metric"] == _main_metric(table)] for table in barriers.values()]
    shown = pd.concat(rows, ignore_index=True).assign(metric="accuracy or AUC")
    return barrier_heights(shown, metric="accuracy or AUC", note=note)


def draw_plane(plane: pd.DataFrame, note: str | None) -> Any:
    """Accuracy (or AUC) and loss on the plane through three models."""
    from transferscope.plots.planes import plane_contours

    return plane_contours(plane, metrics=(_main_metric(plane), "loss"), note=note)


def draw_basin(basin: pd.DataFrame, note: str | None) -> Any:
    """What noise and steps out of the hull cost, beside what a basin asks for."""
    from transferscope.plots.planes import basin_walls

    return basin_walls(basin, title=_task(basin), note=note)


def draw_criticality_pages(criticality: pd.DataFrame, run: str, note: str | None) -> Callable[[], Iterator[Any]]:
    """Figure 30 for every module of one run, a page each, drawn when they are saved."""
    from transferscope.plots.criticality import criticality_heat_map

    label = criticality.loc[criticality["run"] == run, "label"].iloc[0]

    def pages() -> Iterator[Any]:
        for module in criticality["module"].unique():
            title = f"{_task(criticality)}, {label}, {module}"
            yield criticality_heat_map(criticality, module, run=run, title=title, note=note)

    return pages


def draw_criticality(criticality: pd.DataFrame, run: str, note: str | None) -> Any:
    """Figure 30: the first module of one run; all runs of the table share the colours."""
    from transferscope.plots.criticality import criticality_heat_map

    label = criticality.loc[criticality["run"] == run, "label"].iloc[0]
    module = criticality["module"].iloc[0]
    title = f"{_task(criticality)}, {label}, {module}"
    return criticality_heat_map(criticality, module, run=run, title=title, note=note)


def draw_module_criticality(module_criticality: pd.DataFrame, note: str | None) -> Any:
    """mu of every module."""
    from transferscope.plots.criticality import module_criticality_bars

    return module_criticality_bars(module_criticality, title=_task(module_criticality), note=note)


def draw_rewinding(rewinding: pd.DataFrame, note: str | None) -> Any:
    """The test metric with one module set back (Figure 5 of the main text)."""
    from transferscope.plots.criticality import rewinding_bars

    return rewinding_bars(rewinding, title=_task(rewinding), note=note)


def _between_ends(interpolation: pd.DataFrame) -> pd.DataFrame:
    return interpolation[interpolation["alpha"].between(0, 1)]


def _main_metric(interpolation: pd.DataFrame) -> str:
    return "auc" if (interpolation["metric"] == "auc").any() else "accuracy"


def _task(table: pd.DataFrame) -> str:
    return str(table["task"].iloc[0])
