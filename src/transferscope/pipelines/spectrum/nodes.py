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
    return measure.epochs(run, series, pictures.seen_size, chosen)


def draw_histogram(*inputs: Any) -> Any:
    """Figures 31a and 32: the whole network."""
    return _draw("spectrum_histogram", inputs)


def draw_lower_part(*inputs: Any) -> Any:
    """Figure 31b: its lower part."""
    return _draw("lower_spectrum_histogram", inputs)


def draw_counts(*inputs: Any) -> Any:
    """Figure 33: the number below a threshold."""
    return _draw("count_below_threshold", inputs)


def draw_norm_ratios(spectrum: pd.DataFrame, note: str | None) -> Any:
    """The ratio of Frobenius to spectral norm of every layer, which appendix C adds up."""
    from transferscope.plots.spectrum import norm_ratios

    return norm_ratios(spectrum, title=str(spectrum["task"].iloc[0]), note=note)


def _draw(figure: str, inputs: tuple[Any, ...]) -> Any:
    """The figure of the final epochs of all runs; the inputs are their singular values, and a note."""
    from transferscope.plots import spectrum as plots

    *tables, note = inputs
    return getattr(plots, figure)(pd.concat(tables, ignore_index=True), title=str(tables[0]["task"].iloc[0]), note=note)
