"""Spectra of a run along its training, and the comparison of two kinds of run."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from transferscope.analysis.spectrum import Method, network_spectrum
from transferscope.analysis.spectrum_tables import (
    compare_small_values,
    layer_singular_values,
    layers_without_spectrum,
    spectrum_table,
)
from transferscope.experiment.options import SpectrumOptions
from transferscope.experiment.plan import derive_seed
from transferscope.models.checkpoint import check_checkpoint_file
from transferscope.models.layers import trace_conv_inputs
from transferscope.models.parametrised import analysed_model, analysed_state, layers_of_unknown_map
from transferscope.models.series import CheckpointSeries
from transferscope.system.errors import UserError
from transferscope.system.progress import track

logger = logging.getLogger(__name__)


def epochs(
    run: dict[str, Any], series: CheckpointSeries, image_size: int, options: SpectrumOptions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Singular values of every layer at the chosen epochs; norms, ranks and counts of layers and network at all.

    Epochs that the series lacks are left out and named in a warning: a checkpoint file has no untrained model.
    """
    model = analysed_model(series.load("final"))
    unknown = layers_of_unknown_map(model)
    inputs = {name: entering for name, entering in trace_conv_inputs(model, image_size).items() if name not in unknown}
    for name, reason in unknown.items():
        logger.warning("spectrum of %s leaves out layer %s, for it %s", series.name, name, reason)
    left_out = layers_without_spectrum(model, {**inputs, **unknown})
    if left_out:
        listed = ", ".join(f"{name} ({kind})" for name, kind in left_out.items())
        logger.warning("spectrum of %s leaves out what is no 2-d convolution or linear layer: %s", series.name, listed)
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
        names = {"task": run["task"], "run": run["name"], "label": run["label"], "epoch": epoch}
        if epoch in kept:
            values.append(_named(table, names))
        stride = {"stride": "honoured" if options.honour_stride else "ignored"}
        summaries.append(_named(spectrum_table(table, options.thresholds), names | stride))
    return pd.concat(values, ignore_index=True), pd.concat(summaries, ignore_index=True)


def series_of_file(run: dict[str, Any]) -> CheckpointSeries:
    """The checkpoint file of a run as a series of one epoch; what the file leaves open is that of the run's model."""
    model, chosen = run["model"], {"weights": run["weights"], "prefix": run["prefix"]}
    name, options = model["name"], dict(model["options"])
    known = check_checkpoint_file(run["checkpoint"], architecture=name, model_options=options, **chosen)
    about = {"architecture": name, "model_options": options, "num_classes": known.num_classes}
    return CheckpointSeries.from_file(run["checkpoint"], f"{run['task']}.{run['name']}", **chosen, **about)


def paddings(
    run: dict[str, Any], series: CheckpointSeries, image_size: int, options: SpectrumOptions, seed: int
) -> pd.DataFrame:
    """`network_spectrum` of the final epoch with the network's own padding, and with the circular one.

    One row for each padding and layer, and "all"; columns task, run, label and epoch go before those.
    """
    model, epoch = analysed_model(series.load("final")), series.epoch("final")
    names = {"task": run["task"], "run": run["name"], "label": run["label"], "epoch": epoch}
    start = derive_seed(seed, run["task"], run["name"], "network_spectrum") % 2**32
    tables = []
    for padding in ("network", "circular"):
        try:
            table = network_spectrum(
                model, image_size, padding=padding, thresholds=options.thresholds, top=1, smallest=0, seed=start
            )
        except UserError as error:
            raise UserError(f"{series.name}, epoch {epoch}, {error}") from error
        tables.append(_named(table, names))
    return pd.concat(tables, ignore_index=True)


def small_values(singular_values: pd.DataFrame, task: str, options: SpectrumOptions, seed: int) -> pd.DataFrame:
    """Whether RI-T (a) has more small singular values than P-T (b) at the end of training."""
    last = singular_values["epoch"] == singular_values.groupby("run")["epoch"].transform("max")
    networks = {
        label: [network for _, network in rows.groupby("run", sort=False)]
        for label, rows in singular_values[last].groupby("label", sort=False)
    }
    table = compare_small_values(
        networks["RI-T"],
        networks["P-T"],
        options.thresholds,
        num_resamples=options.bootstrap,
        seed=derive_seed(seed, task, "small_values"),
    )
    return _named(table, {"task": task, "label_a": "RI-T", "label_b": "P-T"})


def _named(table: pd.DataFrame, names: dict[str, Any]) -> pd.DataFrame:
    return table.assign(**names)[[*names, *table.columns]]
