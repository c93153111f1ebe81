"""Distances between the weights of two models, and along the training of one."""

from __future__ import annotations

import pandas as pd

from transferscope.analysis.distance import distances_from, module_distances
from transferscope.analysis.states import TensorKinds
from transferscope.experiment.options import ModulesOptions
from transferscope.measure.criticalities import modules_of
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.parametrised import analysed_model, analysed_state
from transferscope.models.series import CheckpointSeries


def distance(a: Checkpoint, b: Checkpoint, modules: ModulesOptions | None = None) -> pd.DataFrame:
    """Measure how far two models lie apart: globally, per module, and summed over modules (Table 2, Figure 10)."""
    kinds = TensorKinds.of_model(analysed_model(a))
    return module_distances(analysed_state(a), analysed_state(b), modules_of(a, modules), kinds=kinds)


def distance_travelled(series: CheckpointSeries, modules: ModulesOptions | None = None) -> pd.DataFrame:
    """Measure the distance from the initial weights at every saved epoch; that of a P-T is from P (Figure 11)."""
    start = series.load(0)
    kinds = TensorKinds.of_model(analysed_model(start))
    states = ((epoch, analysed_state(series.load(epoch))) for epoch in series.epochs)
    return distances_from(analysed_state(start), states, modules_of(start, modules), kinds=kinds)
