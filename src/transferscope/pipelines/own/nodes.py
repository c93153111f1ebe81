"""Nodes that carry out a function of the user's own; objects, because processes of other runners receive them."""

from __future__ import annotations

from typing import cast, get_type_hints

import pandas as pd

from transferscope.experiment.node_parameters import Pairs
from transferscope.experiment.options import OwnOptions, Precision
from transferscope.pipelines.types import CheckpointSeries, Figure, PackedSplit
from transferscope.pipelines.wiring import Labels, make_bench


class Own:
    """A function of the user's own by its reference; Kedro sees its name and the types of the parameters."""

    def __init__(self, reference: str) -> None:
        self.reference, self.__name__ = reference, reference.partition(":")[2]
        self.__annotations__ = get_type_hints(type(self).__call__)


class MeasureRuns(Own):
    """One table of all runs of a task, by an analysis of single runs."""

    def __call__(
        self,
        options: OwnOptions,
        precision: Precision,
        train_split: PackedSplit,
        test_split: PackedSplit,
        **runs: CheckpointSeries,
    ) -> pd.DataFrame:
        from transferscope.measure import own

        bench = make_bench(train_split, test_split, precision).limited(options.max_examples)
        return own.measure_runs(own.imported(self.reference), bench, runs.values(), options.epoch)


class MeasurePairs(Own):
    """One table of all pairs of a task, by an analysis of pairs."""

    def __call__(
        self,
        options: OwnOptions,
        precision: Precision,
        train_split: PackedSplit,
        test_split: PackedSplit,
        pairs: Pairs,
        **runs: CheckpointSeries,
    ) -> pd.DataFrame:
        from transferscope.measure import own

        bench = make_bench(train_split, test_split, precision).limited(options.max_examples)
        return own.measure_pairs(own.imported(self.reference), bench, pairs.root, runs, options.epoch)


class DrawTable(Own):
    """A figure of one table, with the labels of the study."""

    def __call__(self, table: pd.DataFrame, labels: Labels) -> Figure:
        from transferscope.measure import own
        from transferscope.plots.roles import labelled

        with labelled(**labels):
            return cast(Figure, own.imported(self.reference)(table))
