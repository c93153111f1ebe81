"""Spectra of a run along its training, and the comparison of two kinds of run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from transferscope.analysis.spectrum import Method, Padding, network_spectrum, top_vectors
from transferscope.analysis.spectrum_tables import (
    compare_small_values,
    layer_singular_values,
    layers_without_spectrum,
    spectrum_table,
)
from transferscope.experiment.options import SpectrumOptions
from transferscope.models.layers import trace_conv_inputs
from transferscope.models.parametrised import analysed_model, analysed_state
from transferscope.models.plain_layers import layers_of_unknown_map
from transferscope.models.series import CheckpointSeries
from transferscope.system.errors import UserError
from transferscope.system.progress import track

logger = logging.getLogger(__name__)

PADDINGS: tuple[Padding, ...] = ("network", "circular")


class Spectrum(NamedTuple):
    """Spectra of one run at several epochs."""

    values: pd.DataFrame
    """Singular values of every layer at the chosen epochs, columns epoch and those of `layer_singular_values`."""
    summaries: pd.DataFrame
    """Norms, ranks and counts of layers and network, columns epoch, stride, those of `spectrum_table`, and left_out.

    The last one names layers that have weights and no spectrum, in every row."""


def spectrum(series: CheckpointSeries, image_size: int, options: SpectrumOptions | None = None) -> Spectrum:
    """Compute the singular values of every layer of a run, of convolutions on images of a size in pixels.

    Epochs that the series lacks are left out and named in a warning: a checkpoint file has no untrained model.
    """
    options = options or SpectrumOptions()
    model = analysed_model(series.load("final"))
    unknown = layers_of_unknown_map(model)
    inputs = {name: entering for name, entering in trace_conv_inputs(model, image_size).items() if name not in unknown}
    for name, reason in unknown.items():
        logger.warning("spectrum of %s leaves out layer %s, for it %s", series.name, name, reason)
    others = layers_without_spectrum(model, {**inputs, **unknown})
    if others:
        listed = ", ".join(f"{name} ({kind})" for name, kind in others.items())
        logger.warning("spectrum of %s leaves out what is no 2-d convolution or linear layer: %s", series.name, listed)
    left_out = ", ".join([*unknown, *others])
    method: Method = "auto" if options.honour_stride else "published"
    lacking = [str(epoch) for epoch in options.epochs if isinstance(epoch, int) and epoch not in series.epochs]
    if lacking:
        there = ", ".join(map(str, series.epochs))
        logger.warning("spectrum of %s leaves out epoch %s; kept are %s", series.name, ", ".join(lacking), there)
    kept = {series.epoch(epoch) for epoch in options.epochs if isinstance(epoch, str) or epoch in series.epochs}
    measured = kept.union(series.epochs) if options.along_training else kept
    values, summaries = [], []
    for epoch in track(sorted(measured), f"spectrum of {series.name}"):
        try:
            table = layer_singular_values(analysed_state(series.load(epoch)), inputs, method=method)
        except UserError as error:
            raise UserError(f"{series.name}, epoch {epoch}, {error}") from error
        if epoch in kept:
            values.append(_named(table, {"epoch": epoch}))
        names = {"epoch": epoch, "stride": "honoured" if options.honour_stride else "ignored"}
        summaries.append(_named(spectrum_table(table, options.thresholds).assign(left_out=left_out), names))
    return Spectrum(pd.concat(values, ignore_index=True), pd.concat(summaries, ignore_index=True))


def paddings(series: CheckpointSeries, image_size: int, thresholds: Sequence[float], seed: int = 0) -> pd.DataFrame:
    """Measure the final epoch with the network's own padding, and with the circular one.

    One row for each padding and layer, and "all": columns epoch and those of `network_spectrum`.
    """
    model, epoch = analysed_model(series.load("final")), series.epoch("final")
    tables = []
    for padding in PADDINGS:
        try:
            table = network_spectrum(
                model, image_size, padding=padding, thresholds=thresholds, top=1, smallest=0, seed=seed % 2**32
            )
        except UserError as error:
            raise UserError(f"{series.name}, epoch {epoch}, {error}") from error
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    return table.assign(epoch=epoch)[["epoch", *table.columns]]


def singular_vectors(series: CheckpointSeries, image_size: int, layers: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Describe the inputs that chosen layers stretch most at the final epoch, as images.

    Columns epoch and those of `top_vectors`.
    """
    model, epoch = analysed_model(series.load("final")), series.epoch("final")
    try:
        return _named(top_vectors(model, image_size, layers, seed=seed % 2**32), {"epoch": epoch})
    except UserError as error:
        raise UserError(f"{series.name}, epoch {epoch}, {error}") from error


def small_values(first: pd.DataFrame, second: pd.DataFrame, thresholds: Sequence[float]) -> pd.DataFrame:
    """Compare whether runs from scratch (a) have more small singular values than fine-tuned ones (b) after training.

    Args:
        first: Rows of the runs from scratch, columns run, label, epoch and those of `layer_singular_values`.
        second: The same of the fine-tuned runs.
        thresholds: Below which values are counted.
    """
    networks_a, networks_b = _last_of_runs(first), _last_of_runs(second)
    table = compare_small_values(networks_a, networks_b, thresholds)
    return _named(table, {"label_a": str(first["label"].iloc[0]), "label_b": str(second["label"].iloc[0])})


def _last_of_runs(singular_values: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each run at its last epoch."""
    last = singular_values["epoch"] == singular_values.groupby("run")["epoch"].transform("max")
    return [rows for _, rows in singular_values[last].groupby("run", sort=False)]


def _named(table: pd.DataFrame, names: Mapping[str, str | int]) -> pd.DataFrame:
    return table.assign(**names)[[*names, *table.columns]]
