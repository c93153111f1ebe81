"""Nodes of landscape. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

from typing import Any

import pandas as pd

from transferscope.options import CriticalityOptions, LandscapeOptions


def interpolate_pair(
    pair: dict[str, Any], series_a: Any, series_b: Any, train_split: Any, test_split: Any, options: dict[str, Any]
) -> pd.DataFrame:
    """Metrics on the line between two models of one task, and beyond its ends (Figures 12 to 18)."""
    from transferscope.pipelines.landscape import measure

    chosen = LandscapeOptions.model_validate(options)
    tables = []
    for end in chosen.ends:
        ends = measure.Ends(pair, series_a, series_b, end)
        tables.append(measure.line(ends, {"train": train_split, "test": test_split}, chosen.alphas.values(), chosen))
        outside = chosen.extrapolation.outside() if chosen.extrapolation else []
        if outside:
            tables.append(measure.line(ends, {"test": test_split}, outside, chosen))
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "scenario", "within")
    return table


def interpolate_across(
    pair: dict[str, Any], series_a: Any, series_b: Any, test_split: Any, options: dict[str, Any]
) -> pd.DataFrame:
    """Metrics on one task along the line between models of two tasks (Figures 19 to 29)."""
    from transferscope.pipelines.landscape import measure

    chosen = LandscapeOptions.model_validate(options)
    ends = measure.Ends(pair, series_a, series_b, "final")
    table = measure.line(ends, {"test": test_split}, chosen.alphas.values(), chosen)
    table.insert(0, "scenario", pair["scenario"])
    return table


def measure_barriers(interpolation: pd.DataFrame) -> pd.DataFrame:
    """The largest gap to the chord, where it is, and the gain in the middle, for every line."""
    from transferscope.analysis.barriers import barrier_table

    return barrier_table(interpolation)


def measure_criticality(
    run: dict[str, Any], series: Any, train_split: Any, test_split: Any, options: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Noise and paths for every module, mu per module, and rewinding of each module (Figure 30)."""
    from transferscope.pipelines.landscape import measure

    splits = {"train": train_split, "test": test_split}
    return measure.modules(run, series, splits, CriticalityOptions.model_validate(options))


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
        shown, metric=_main_metric(interpolation), splits=("test",), title=_task(interpolation), note=note
    )


def draw_cross_domain(interpolation: pd.DataFrame, scenario: dict[str, Any], note: str | None) -> Any:
    """One of the Figures 19 to 29."""
    from transferscope.plots.barriers import cross_domain_panels

    first, second = scenario["tasks"]
    title = f"on {scenario['evaluated_on']}: {first} to {second}"
    return cross_domain_panels(interpolation[interpolation["scenario"] == scenario["figure"]], title=title, note=note)


def draw_criticality(criticality: pd.DataFrame, run: str, note: str | None) -> Any:
    """Figure 30: the first module of one run; all runs of the table share the colours."""
    from transferscope.plots.criticality import criticality_heat_map

    label = criticality.loc[criticality["run"] == run, "label"].iloc[0]
    title = f"{_task(criticality)}, {label}"
    return criticality_heat_map(criticality, criticality["module"].iloc[0], run=run, title=title, note=note)


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
