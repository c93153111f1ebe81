"""Distances between the weights of two models, and along the training of one."""

from __future__ import annotations

import logging

import pandas as pd

from transferscope.analysis.distance import distances_from, module_distances
from transferscope.analysis.states import TensorKinds
from transferscope.experiment.options import ModulesOptions
from transferscope.measure.criticalities import modules_of
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.compatible import classifier_keys
from transferscope.models.parametrised import analysed_model, analysed_state
from transferscope.models.series import CheckpointSeries

log = logging.getLogger(__name__)


def distance(a: Checkpoint, b: Checkpoint, modules: ModulesOptions | None = None) -> pd.DataFrame:
    """Measure how far two models lie apart: globally, per module, and summed over modules (Table 2, Figure 10).

    Classifiers for different classes, as a parent and a fine-tuned model have them, are left out.
    """
    model = analysed_model(a)
    kinds, one, other = TensorKinds.of_model(model), analysed_state(a), analysed_state(b)
    apart = {key for key in classifier_keys(model) if key in other and one[key].shape != other[key].shape}
    if apart:
        log.info("%s and %s have other classes: no distance of %s", a.source, b.source, ", ".join(sorted(apart)))
    kept = {name: [key for key in keys if key not in apart] for name, keys in modules_of(a, modules).items()}
    return module_distances(one, other, {name: keys for name, keys in kept.items() if keys}, kinds=kinds)


def distance_travelled(series: CheckpointSeries, modules: ModulesOptions | None = None) -> pd.DataFrame:
    """Measure the distance from the initial weights at every saved epoch; that of a P-T is from P (Figure 11)."""
    start = series.load(0)
    kinds = TensorKinds.of_model(analysed_model(start))
    states = ((epoch, analysed_state(series.load(epoch))) for epoch in series.epochs)
    return distances_from(analysed_state(start), states, modules_of(start, modules), kinds=kinds)
