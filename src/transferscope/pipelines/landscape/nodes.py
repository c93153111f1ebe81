"""Nodes of landscape. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pandas as pd

from transferscope.experiment.names import CheckpointName, RunName
from transferscope.experiment.node_parameters import Pairs, PairSpec, Runs
from transferscope.experiment.options import (
    BasinOptions,
    ConnectionOptions,
    CriticalityOptions,
    LandscapeOptions,
    ModulesOptions,
    PlaneOptions,
    Precision,
)
from transferscope.experiment.run import RunSpec
from transferscope.pipelines.types import Bench, CheckpointSeries, PackedSplit, Store
from transferscope.pipelines.wiring import concatenate, make_bench, named
from transferscope.system.errors import UserError

logger = logging.getLogger(__name__)

Tables = tuple[pd.DataFrame, pd.DataFrame]
"""Points of lines, and barriers."""


def interpolate_pair(
    pair: PairSpec,
    series_a: CheckpointSeries,
    series_b: CheckpointSeries,
    train_split: PackedSplit,
    test_split: PackedSplit,
    options: LandscapeOptions,
    precision: Precision,
    compiled: bool,
    store: Store,
) -> Tables:
    """Metrics on the line between two models of one task, and beyond its ends, and the barriers (Figures 12 to 18)."""
    bench = _bench(train_split, test_split, precision, store, options, compiled)
    return _lines(bench, pair, series_a, series_b, options)


def interpolate_pairs(
    pairs: Pairs,
    train_split: PackedSplit,
    test_split: PackedSplit,
    options: LandscapeOptions,
    precision: Precision,
    compiled: bool,
    store: Store,
    **series: CheckpointSeries,
) -> Tables:
    """The tables of `interpolate_pair` of many pairs, one below the other; series by the full name of the run."""
    bench = _bench(train_split, test_split, precision, store, options, compiled)
    return _below(_lines(bench, pair, series[pair.run_a], series[pair.run_b], options) for pair in pairs.root)


def interpolate_across(
    pair: PairSpec,
    series_a: CheckpointSeries,
    series_b: CheckpointSeries,
    train_split: PackedSplit,
    test_split: PackedSplit,
    options: LandscapeOptions,
    precision: Precision,
    compiled: bool,
    store: Store,
) -> Tables:
    """Test metrics on one task along the line between models of two tasks, and the barriers (Figures 19 to 29)."""
    from transferscope.measure import line

    bench = _bench(train_split, test_split, precision, store, options, compiled)
    ends, alphas = (series_a.load("final"), series_b.load("final")), options.alphas_for(bench.task)
    points, barriers = line(
        bench, *ends, alphas, parts=["test"], until_decided=options.until_decided, name=str(pair.at("final"))
    )
    names = pair.columns("final")
    return _of_pair(points, pair, names), _of_pair(barriers, pair, names)


def _bench(
    train_split: PackedSplit,
    test_split: PackedSplit,
    precision: Precision,
    store: Store,
    options: LandscapeOptions,
    compiled: bool,
) -> Bench:
    """The bench of lines."""
    return make_bench(train_split, test_split, precision, store, options.max_examples, options.resamples, compiled)


def _lines(
    bench: Bench, pair: PairSpec, series_a: CheckpointSeries, series_b: CheckpointSeries, options: LandscapeOptions
) -> Tables:
    """The line of a pair between all epochs that are compared."""
    from transferscope.measure import line

    alphas = options.alphas_for(bench.task)
    outside = options.extrapolation.outside() if options.extrapolation else []
    lines = []
    for a, b in options.end_points():
        ends = series_a.load(a), series_b.load(b)
        tables = line(
            bench, *ends, alphas, outside=outside, until_decided=options.until_decided, name=str(pair.at(a, b))
        )
        lines.append(tuple(_of_pair(table, pair, pair.columns(a, b)) for table in tables))
    return _below(lines)


def _below(tables: Iterable[tuple[pd.DataFrame, ...]]) -> Tables:
    points, barriers = (concatenate(*parts) for parts in zip(*tables, strict=True))
    return points, barriers


def _of_pair(table: pd.DataFrame, pair: PairSpec, names: dict[str, str]) -> pd.DataFrame:
    """The table with the pair's scenario and names, task and part between them."""
    return named(table, scenario=pair.scenario or "within", task=table["task"], split=table["split"], **names)


def connect_pair(
    pair: PairSpec,
    series_a: CheckpointSeries,
    series_b: CheckpointSeries,
    train_split: PackedSplit,
    test_split: PackedSplit,
    options: LandscapeOptions,
    modules: ModulesOptions,
    precision: Precision,
    store: Store,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Barriers of the ways between two models, their points, and profiles of modules; no rows where a run diverged."""
    from transferscope.measure.connection import Connection, connect
    from transferscope.measure.criticalities import modules_of

    bench = make_bench(train_split, test_split, precision, store, resamples=options.resamples)
    chosen, name = options.connection or ConnectionOptions(), str(pair.at("final"))
    diverged = ", ".join(one.name for one in (series_a, series_b) if one.status == "diverged")
    if diverged:
        logger.warning("%s: no ways between these two, for %s diverged", name, diverged)
        connection = Connection.empty()
    else:
        ends = series_a.load("final"), series_b.load("final")
        connection = connect(bench, *ends, options=chosen, modules=modules_of(ends[0], modules), name=name)
    tables = (connection.barriers, connection.points, connection.modules)
    barriers, points, profiles = (named(table, task=bench.task, **pair.columns("final")) for table in tables)
    return barriers, points, profiles


def gather_split_runs(runs: Runs, barriers: pd.DataFrame) -> pd.DataFrame:
    """Barriers between runs and their copies by the epoch of the split, from the table of all ways of a task."""
    from transferscope.analysis.connection import SplitPair, barriers_by_split

    by_name = {run.full_name: run for run in runs.root}
    pairs = [
        SplitPair(
            run=str(RunName.parse(copy.split_from).at("final")),
            copy=str(RunName.parse(copy.full_name).at("final")),
            label=by_name[copy.split_from].label,
            epoch=copy.split_epoch,
            epochs=copy.training.epochs,
        )
        for copy in runs.root
        if copy.split_from is not None
    ]
    return barriers_by_split(barriers, pairs)


def summarise_barriers(**barriers: pd.DataFrame) -> pd.DataFrame:
    """The barriers of all tasks and scenarios in one table."""
    from transferscope.analysis.barriers import summarise_barriers as summarise

    table = pd.concat(barriers.values(), ignore_index=True)
    a, b = (table[side].map(lambda name: CheckpointName.parse(name).epoch) for side in ("checkpoint_a", "checkpoint_b"))
    return summarise(table.assign(epochs=a + " & " + b))


def measure_plane(
    options: PlaneOptions,
    series_a: CheckpointSeries,
    series_b: CheckpointSeries,
    series_c: CheckpointSeries,
    train_split: PackedSplit,
    test_split: PackedSplit,
    precision: Precision,
    compiled: bool,
    store: Store,
) -> pd.DataFrame:
    """Metrics on the plane through three models; no rows where a run diverged so early that no plane is left."""
    from transferscope.measure.planes import COLUMNS, plane

    series = (series_a, series_b, series_c)
    bench = make_bench(train_split, test_split, precision, store, options.max_examples, compiled=compiled)
    try:
        corners = {str(at): one.load(at.epoch) for at, one in zip(options.names, series, strict=True)}
        table = plane(bench, corners, points=options.points, margin=options.margin, name=f"plane {options.name}")
    except UserError as error:
        diverged = ", ".join(one.name for one in series if one.status == "diverged")
        if not diverged:
            raise
        logger.warning("%s: no plane %s, for %s diverged: %s", options.task, options.name, diverged, error)
        table = pd.DataFrame(columns=COLUMNS)
    return named(table, task=table["task"], plane=options.name)


def measure_basin(
    run: RunSpec,
    train_split: PackedSplit,
    test_split: PackedSplit,
    options: BasinOptions,
    precision: Precision,
    compiled: bool,
    store: Store,
    *series: CheckpointSeries,
) -> pd.DataFrame:
    """(epsilon, delta) of the convex hull of all runs of a kind (Definition 3.1); `run` is the first of them."""
    from transferscope.measure import basin

    bench = make_bench(train_split, test_split, precision, store, options.max_examples, options.resamples, compiled)
    table = basin(bench, [one.load(options.epoch) for one in series], options, name=run.kind)
    checkpoints = ", ".join(str(RunName.parse(one.name).at(options.epoch)) for one in series)
    return named(table, task=bench.task, hull=run.label, checkpoints=checkpoints)


def measure_criticality(
    run: RunSpec,
    series: CheckpointSeries,
    train_split: PackedSplit,
    test_split: PackedSplit,
    options: CriticalityOptions,
    modules: ModulesOptions,
    precision: Precision,
    compiled: bool,
    store: Store,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Noise and paths for every module, mu per module, and rewinding of each module (Figure 30)."""
    from transferscope.measure.criticalities import criticality, modules_of, rewinding

    bench = make_bench(train_split, test_split, precision, store, compiled=compiled)
    units = modules_of(series.load("final"), modules)
    noise, mu = criticality(bench.limited(options.max_examples), series, units, options)
    back = rewinding(bench, series, units, options.rewind_epochs)
    return named(noise, **run.columns), named(mu, **run.columns), named(back, **run.columns)
