"""Nodes of similarity. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

from typing import Any

import pandas as pd

from transferscope.experiment.options import Precision, SimilarityOptions
from transferscope.pipelines.wiring import concatenate


def measure_cka(
    pairs: list[dict[str, Any]],
    runs: dict[str, Any],
    options: dict[str, Any],
    precision: Precision,
    test_split: Any,
    **series: Any,
) -> dict[str, pd.DataFrame]:
    """CKA at every layer for every pair of a task, as `SimilarityOptions.feature_tables`; images are seen once."""
    from transferscope.measure import similarity as measure

    by_name = {run.name: run for run in series.values()}
    return measure.cka(pairs, runs, by_name, test_split, SimilarityOptions.model_validate(options), precision)


def measure_distance(
    pair: dict[str, Any], series_a: Any, series_b: Any, options: dict[str, Any], modules: dict[str, Any]
) -> pd.DataFrame:
    """Distance between two trained models: global, per module, and summed over modules (Table 2, Figure 10)."""
    from transferscope.analysis.distance import module_distances
    from transferscope.analysis.states import TensorKinds
    from transferscope.models.modules import find_modules
    from transferscope.models.parametrised import analysed_model, analysed_state

    epoch = SimilarityOptions.model_validate(options).epoch
    a, b = series_a.load(epoch), series_b.load(epoch)
    model = analysed_model(a)
    table = module_distances(
        analysed_state(a), analysed_state(b), find_modules(model, **modules), kinds=TensorKinds.of_model(model)
    )
    names = {
        "pair_kind": pair["kind"],
        "checkpoint_a": f"{pair['run_a']}@{epoch}",
        "checkpoint_b": f"{pair['run_b']}@{epoch}",
    }
    return _named(table, series_a, names)


def measure_distances(
    pairs: list[dict[str, Any]], options: dict[str, Any], modules: dict[str, Any], **series: Any
) -> pd.DataFrame:
    """The tables of `measure_distance` of many pairs, one below the other; series by the full name of the run."""
    return concatenate(
        *(measure_distance(pair, series[pair["run_a"]], series[pair["run_b"]], options, modules) for pair in pairs)
    )


def measure_distance_travelled(
    series: Any, run: dict[str, Any], options: dict[str, Any], modules: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Distance from the initial weights at the end (Table 8, Figure 11) and at every saved epoch; P-T starts at P."""
    from transferscope.analysis.distance import distances_from
    from transferscope.analysis.states import TensorKinds
    from transferscope.models.modules import find_modules
    from transferscope.models.parametrised import analysed_model, analysed_state

    start = series.load(0)
    model = analysed_model(start)
    states = ((epoch, analysed_state(series.load(epoch))) for epoch in series.epochs)
    travelled = distances_from(
        analysed_state(start), states, find_modules(model, **modules), kinds=TensorKinds.of_model(model)
    )
    end = SimilarityOptions.model_validate(options).epoch
    names = {
        "pair_kind": f"{run['label']} & init",
        "checkpoint_a": f"{series.name}@{end}",
        "checkpoint_b": f"{series.name}@0",
    }
    final = travelled[travelled["epoch"] == series.epoch(end)].drop(columns="epoch")
    return _named(final, series, names), _named(travelled, series, {"run": series.name, "label": run["label"]})


def _named(table: pd.DataFrame, series: Any, names: dict[str, str]) -> pd.DataFrame:
    names = {"task": series.name.split(".")[0], **names}
    return table.assign(**names)[[*names, *table.columns]]


def draw_cka(cka: pd.DataFrame, note: str | None) -> Any:
    """Table 7 as bars."""
    from transferscope.plots.cka import cka_bars

    return cka_bars(cka, title=str(cka["task"].iloc[0]), note=note)


def draw_cka_heat_map(cka_layers: pd.DataFrame, note: str | None) -> Any:
    """Every block of one model against every block of the other."""
    from transferscope.plots.cka import cka_heat_map

    return cka_heat_map(cka_layers, title=str(cka_layers["task"].iloc[0]), note=note)


def draw_distance_per_module(distances: pd.DataFrame, note: str | None) -> Any:
    """Figure 10."""
    from transferscope.plots.distances import distance_per_module

    return distance_per_module(distances, title=str(distances["task"].iloc[0]), note=note)


def draw_distance_to_initialisation(distances: pd.DataFrame, note: str | None) -> Any:
    """Figure 11."""
    from transferscope.plots.distances import distance_to_initialisation

    return distance_to_initialisation(distances, title=str(distances["task"].iloc[0]), note=note)


def draw_distance_travelled(travelled: pd.DataFrame, note: str | None) -> Any:
    """The way to Figure 11: distance from the initial weights at every saved epoch."""
    from transferscope.plots.distances import distance_travelled

    return distance_travelled(travelled, title=str(travelled["task"].iloc[0]), note=note)
