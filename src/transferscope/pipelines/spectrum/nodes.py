"""Nodes of spectrum. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

from typing import Any

import pandas as pd

from transferscope.options import PictureOptions, SpectrumOptions


def measure_spectrum(
    series: Any, run: dict[str, Any], part: dict[str, Any], options: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Singular values of every layer at the chosen epochs, and what they sum up to per layer and in all."""
    from transferscope.pipelines.spectrum import measure

    chosen = SpectrumOptions.model_validate(options)
    pictures = PictureOptions.model_validate(part["pictures"])
    return measure.epochs(run, series, pictures.crop_size or pictures.store_size, chosen)


def draw_spectra(options: dict[str, Any], **singular_values: pd.DataFrame) -> tuple[Any, Any, Any]:
    """Figures 31 and 32 (whole network), 31b (lower part) and 33 (number below a threshold)."""
    from transferscope.plots import spectrum as plots

    table = pd.concat(singular_values.values(), ignore_index=True)
    final = table.groupby("run")["epoch"].transform("max")
    trained = table[table["epoch"] == final]
    title = str(next(iter(singular_values.values()))["task"].iloc[0])
    return (
        plots.spectrum_histogram(trained, title=title),
        plots.lower_spectrum_histogram(trained, title=title),
        plots.count_below_threshold(trained, title=title),
    )
