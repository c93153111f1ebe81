"""Nodes of similarity. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

from typing import Any

import pandas as pd

from transferscope.options import SimilarityOptions


def measure_cka(
    pairs: dict[str, Any], runs: dict[str, Any], options: dict[str, Any], test_split: Any, **series: Any
) -> pd.DataFrame:
    """CKA at every layer for every pair of a task; each model sees the images once."""
    from transferscope.pipelines.similarity import measure

    by_name = {run.name: run for run in series.values()}
    return measure.cka(pairs, runs, by_name, test_split, SimilarityOptions.model_validate(options))


def measure_distance(pair: dict[str, Any], series_a: Any, series_b: Any, options: dict[str, Any]) -> pd.DataFrame:
    """Distance between two trained models: global, per module, and summed over modules (Table 2, Figure 10)."""
    from transferscope.analysis.distance import module_distances
    from transferscope.models.modules import find_modules

    epoch = SimilarityOptions.model_validate(options).epoch
    a, b = series_a.load(epoch), series_b.load(epoch)
    table = module_distances(a.state_dict, b.state_dict, find_modules(a.build()))
    names = {
        "pair_kind": pair["kind"],
        "checkpoint_a": f"{pair['run_a']}@{epoch}",
        "checkpoint_b": f"{pair['run_b']}@{epoch}",
    }
    return _named(table, series_a, names)


def measure_distance_travelled(series: Any, run: dict[str, Any], options: dict[str, Any]) -> pd.DataFrame:
    """Distance of every saved epoch from the initial weights (Table 8, Figure 11); P-T starts at P."""
    from transferscope.analysis.distance import module_distances
    from transferscope.models.modules import find_modules

    start = series.load(0)
    modules = find_modules(start.build())
    end = SimilarityOptions.model_validate(options).epoch
    epochs = {epoch: str(epoch) for epoch in series.epochs if epoch > 0} | {series.epoch(end): end}
    tables = []
    for epoch, name in epochs.items():
        table = module_distances(start.state_dict, series.load(epoch).state_dict, modules)
        kind = f"{run['label']} & init" if name == end else f"{run['label']} & init, on the way"
        names = {"pair_kind": kind, "checkpoint_a": f"{series.name}@{name}", "checkpoint_b": f"{series.name}@0"}
        tables.append(_named(table, series, names))
    return pd.concat(tables, ignore_index=True)


def _named(table: pd.DataFrame, series: Any, names: dict[str, str]) -> pd.DataFrame:
    names = {"task": series.name.split(".")[0], **names}
    return table.assign(**names)[[*names, *table.columns]]


def draw_cka(cka: pd.DataFrame, note: str | None) -> Any:
    """Table 7 as bars."""
    from transferscope.plots.cka import cka_bars

    return cka_bars(cka, title=str(cka["task"].iloc[0]), note=note)


def draw_distance_per_module(distances: pd.DataFrame, note: str | None) -> Any:
    """Figure 10."""
    from transferscope.plots.distances import distance_per_module

    return distance_per_module(distances, title=str(distances["task"].iloc[0]), note=note)


def draw_distance_to_initialisation(distances: pd.DataFrame, note: str | None) -> Any:
    """Figure 11."""
    from transferscope.plots.distances import distance_to_initialisation

    shown = distances[~distances["pair_kind"].str.endswith("on the way")]
    return distance_to_initialisation(shown, title=str(distances["task"].iloc[0]), note=note)
