"""Nodes of similarity. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

import pandas as pd

from transferscope.experiment.names import RunName
from transferscope.experiment.node_parameters import Pairs, PairSpec, PartSpec, Runs
from transferscope.experiment.options import ModulesOptions, Precision, SimilarityOptions
from transferscope.experiment.pairs import start_kind
from transferscope.experiment.run import RunSpec
from transferscope.pipelines.types import CheckpointSeries, PackedSplit
from transferscope.pipelines.wiring import concatenate, make_bench, named


def measure_cka(
    pairs: Pairs,
    runs: Runs,
    options: SimilarityOptions,
    precision: Precision,
    compiled: bool,
    test_split: PackedSplit,
    **series: CheckpointSeries,
) -> dict[str, pd.DataFrame]:
    """CKA at every layer for every pair of a task, as `SimilarityOptions.feature_tables`; images are seen once."""
    from transferscope.measure.similarity import cka, controls
    from transferscope.models.series import Checkpoints

    names = [(pair, pair.at(options.epoch)) for pair in pairs.root]
    kinds = {(str(name.first), str(name.second)): pair.kind for pair, name in names}
    labels = {pair.kind: (pair.label_a, pair.label_b) for pair in pairs.root}
    bench = make_bench(test_split=test_split, precision=precision, compiled=compiled)
    kinds |= controls(kinds, runs.root)
    return cka(bench, Checkpoints(series.values()), kinds, options, labels=labels)


def measure_distance(
    pair: PairSpec,
    series_a: CheckpointSeries,
    series_b: CheckpointSeries,
    options: SimilarityOptions,
    modules: ModulesOptions,
) -> pd.DataFrame:
    """Distance between two trained models: global, per module, and summed over modules (Table 2, Figure 10).

    l2_before: that of their initial weights, where both have them.
    """
    from transferscope.measure import distance

    table = distance(series_a.load(options.epoch), series_b.load(options.epoch), modules)
    if all(0 in series.epochs for series in (series_a, series_b)):
        before = distance(series_a.load(0), series_b.load(0), modules).set_index("module")["l2"]
        table = table.assign(l2_before=table["module"].map(before))
    return named(table, task=RunName.parse(pair.run_a).task, **pair.columns(options.epoch))


def measure_distances(
    pairs: Pairs, options: SimilarityOptions, modules: ModulesOptions, **series: CheckpointSeries
) -> pd.DataFrame:
    """The tables of `measure_distance` of many pairs, one below the other; series by the full name of the run."""
    return concatenate(
        *(measure_distance(pair, series[pair.run_a], series[pair.run_b], options, modules) for pair in pairs.root)
    )


def identify_pair(
    pair: PairSpec,
    series_a: CheckpointSeries,
    series_b: CheckpointSeries,
    part: PartSpec,
    options: SimilarityOptions,
    modules: ModulesOptions,
    test_split: PackedSplit | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find out whether two checkpoints are one function, and measure their distance once channels are matched.

    Without test images outputs are compared on noise of the size that `part` says.
    """
    from transferscope.measure import identity

    bench = None if test_split is None else make_bench(test_split=test_split)
    ends = series_a.load(options.epoch), series_b.load(options.epoch)
    identified = identity(*ends, modules, bench=bench, side=part.pictures.seen_size)
    names = {"task": RunName.parse(pair.run_a).task, **pair.columns(options.epoch)}
    return named(identified.summary, **names), named(identified.matched, **names)


def identify_pairs(
    pairs: Pairs,
    part: PartSpec,
    options: SimilarityOptions,
    modules: ModulesOptions,
    test_split: PackedSplit | None = None,
    **series: CheckpointSeries,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of `identify_pair` of many pairs, one below the other; series by the full name of the run."""
    identities = [
        identify_pair(pair, series[pair.run_a], series[pair.run_b], part, options, modules, test_split)
        for pair in pairs.root
    ]
    summaries, matched = zip(*identities, strict=True)
    return concatenate(*summaries), concatenate(*matched)


def measure_distance_travelled(
    series: CheckpointSeries, run: RunSpec, options: SimilarityOptions, modules: ModulesOptions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Distance from the initial weights at the end (Table 8, Figure 11) and at every saved epoch; P-T starts at P."""
    from transferscope.measure import distance_travelled

    travelled = distance_travelled(series, modules)
    own = RunName(run.task, run.name)
    final = named(
        travelled[travelled["epoch"] == series.epoch(options.epoch)].drop(columns="epoch"),
        task=run.task,
        pair_kind=start_kind(run.label),
        checkpoint_a=str(own.at(options.epoch)),
        checkpoint_b=str(own.at(0)),
    )
    return final, named(travelled, task=run.task, run=str(own), label=run.label)
