"""Nodes of feature reuse. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

import pandas as pd

from transferscope.experiment.names import RunName
from transferscope.experiment.node_parameters import VariedRuns
from transferscope.experiment.options import Precision
from transferscope.pipelines.types import CheckpointSeries, PackedSplit
from transferscope.pipelines.wiring import make_bench


def gather_varied_runs(runs: VariedRuns, class_sizes: pd.DataFrame, **histories: pd.DataFrame) -> pd.DataFrame:
    """A row for each run: what it varies, its final and best metrics, its optimization speed."""
    from transferscope.measure.reuse import varied_runs

    return varied_runs(RunName.parse(runs.root[0].run).task, runs.root, histories, class_sizes)


def compare_source_epochs(varied: pd.DataFrame) -> pd.DataFrame:
    """Gain over runs from scratch by source epoch, and the first epoch that gives most of it."""
    from transferscope.measure.reuse import gains_by_source_epoch

    return gains_by_source_epoch(varied)


def measure_along_pretraining(series: CheckpointSeries, test_split: PackedSplit, precision: Precision) -> pd.DataFrame:
    """The pre-trained model at its kept epochs: its own metric, CKA with its end, spectra."""
    from transferscope.measure.reuse import along_pretraining

    return along_pretraining(make_bench(test_split=test_split, precision=precision), series)
