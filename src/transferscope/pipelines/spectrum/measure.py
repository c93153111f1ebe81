"""Spectra of a run at the chosen epochs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from transferscope.analysis.spectrum import Method
from transferscope.analysis.spectrum_tables import layer_singular_values, spectrum_table
from transferscope.models.layers import trace_conv_inputs
from transferscope.models.series import CheckpointSeries
from transferscope.options import SpectrumOptions
from transferscope.progress import track


def epochs(
    run: dict[str, Any], series: CheckpointSeries, image_size: int, options: SpectrumOptions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Singular values of every layer, and a row per layer and network of what they sum up to, for each epoch.

    Epochs that the series lacks are left out: a checkpoint file has no untrained model.
    """
    inputs = trace_conv_inputs(series.load("final").build(), image_size)
    method: Method = "auto" if options.honour_stride else "published"
    chosen = sorted(
        {series.epoch(epoch) for epoch in options.epochs if isinstance(epoch, str) or epoch in series.epochs}
    )
    values, summaries = [], []
    for epoch in track(chosen, f"spectrum of {series.name}"):
        table = layer_singular_values(series.load(epoch).state_dict, inputs, method=method)
        names = {"task": run["task"], "run": run["name"], "label": run["label"], "epoch": epoch}
        values.append(_named(table, names))
        summaries.append(_named(spectrum_table(table, options.thresholds), names))
    return pd.concat(values, ignore_index=True), pd.concat(summaries, ignore_index=True)


def _named(table: pd.DataFrame, names: dict[str, Any]) -> pd.DataFrame:
    return table.assign(**names)[[*names, *table.columns]]
