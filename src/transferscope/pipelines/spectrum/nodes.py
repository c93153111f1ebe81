"""Nodes of spectrum. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

from typing import Any

import pandas as pd

from transferscope.experiment.options import PictureOptions, SpectrumOptions


def measure_spectrum(
    series: Any, run: dict[str, Any], part: dict[str, Any], options: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Singular values of every layer at the chosen epochs, and what they sum up to at every saved one."""
    from transferscope.measure import spectrum as measure

    chosen = SpectrumOptions.model_validate(options)
    return measure.epochs(run, series, _input_size(part, chosen), chosen)


def measure_file_spectrum(
    run: dict[str, Any], part: dict[str, Any], options: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As `measure_spectrum`, of a checkpoint file, which needs no images."""
    from transferscope.measure import spectrum as measure

    return measure_spectrum(measure.series_of_file(run), run, part, options)


def measure_network_spectrum(
    series: Any, run: dict[str, Any], part: dict[str, Any], options: dict[str, Any], seed: int
) -> pd.DataFrame:
    """The maps that the trained network computes, with its own padding, beside the circular ones."""
    from transferscope.measure import spectrum as measure

    chosen = SpectrumOptions.model_validate(options)
    return measure.paddings(run, series, _input_size(part, chosen), chosen, seed)


def measure_network_spectrum_of_file(
    run: dict[str, Any], part: dict[str, Any], options: dict[str, Any], seed: int
) -> pd.DataFrame:
    """As `measure_network_spectrum`, of a checkpoint file."""
    from transferscope.measure import spectrum as measure

    return measure_network_spectrum(measure.series_of_file(run), run, part, options, seed)


def _input_size(part: dict[str, Any], options: SpectrumOptions) -> int:
    return options.input_size or PictureOptions.model_validate(part["pictures"]).seen_size


def measure_margin(series: Any, run: dict[str, Any], train_split: Any) -> pd.DataFrame:
    """The margin that the trained network leaves on its training examples, and the largest norm of its inputs."""
    from transferscope.measure.margin import margin_table

    return margin_table(series, run, train_split)


def measure_bound_factors(spectrum: pd.DataFrame, *margins: pd.DataFrame) -> pd.DataFrame:
    """Norm ratios, product of norms, depth, margin and inputs: what the generalisation bounds are made of."""
    from transferscope.analysis.spectrum_tables import bound_factors

    return bound_factors(spectrum, pd.concat(margins, ignore_index=True))


def compare_small_values(options: dict[str, Any], seed: int, *singular_values: pd.DataFrame) -> pd.DataFrame:
    """Has RI-T more small singular values than P-T? A number with an interval for each threshold."""
    from transferscope.measure import spectrum as measure

    values = pd.concat(singular_values, ignore_index=True)
    return measure.small_values(values, str(values["task"].iloc[0]), SpectrumOptions.model_validate(options), seed)


def draw_histogram(*inputs: Any) -> Any:
    """Figures 31 and 32: the whole network, and its lower part."""
    return _draw("spectrum_histogram", inputs)


def draw_counts(*inputs: Any) -> Any:
    """Figure 33: the number below a threshold."""
    return _draw("count_below_threshold", inputs)


def draw_layers(*inputs: Any) -> Any:
    """Pages with the spectrum of every layer, drawn one by one."""
    return lambda: _draw("layer_spectra", inputs)


def draw_norm_ratios(spectrum: pd.DataFrame, note: str | None) -> Any:
    """The ratio of Frobenius to spectral norm of every layer, which appendix C adds up."""
    from transferscope.plots.spectrum import norm_ratios

    return norm_ratios(spectrum, title=str(spectrum["task"].iloc[0]), note=note)


def draw_paddings(spectrum: pd.DataFrame, note: str | None) -> Any:
    """Shares of small values with the network's own padding and with the circular one."""
    from transferscope.plots.spectrum import paddings

    return paddings(spectrum, title=str(spectrum["task"].iloc[0]), note=note)


def draw_training(spectrum: pd.DataFrame, note: str | None) -> Any:
    """The whole network's spectrum along training."""
    from transferscope.plots.spectrum import spectrum_along_training

    return spectrum_along_training(spectrum, title=str(spectrum["task"].iloc[0]), note=note)


def _draw(figure: str, inputs: tuple[Any, ...]) -> Any:
    """A figure of untrained and trained networks; the inputs are their singular values, and a note."""
    from transferscope.plots import spectrum as plots

    *tables, note = inputs
    return getattr(plots, figure)(pd.concat(tables, ignore_index=True), title=str(tables[0]["task"].iloc[0]), note=note)
