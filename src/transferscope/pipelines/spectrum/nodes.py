"""Nodes of spectrum. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

import pandas as pd

from transferscope.experiment.node_parameters import PartSpec, Runs
from transferscope.experiment.options import SpectrumOptions
from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import derive_seed
from transferscope.pipelines.types import CheckpointSeries, PackedSplit
from transferscope.pipelines.wiring import make_bench, named


def measure_spectrum(
    series: CheckpointSeries, run: RunSpec, part: PartSpec, options: SpectrumOptions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Singular values of every layer at the chosen epochs, and what they sum up to at every saved one."""
    from transferscope.measure import spectrum

    values, summaries = spectrum(series, options.input_size or part.pictures.seen_size, options)
    return named(values, **run.columns), named(summaries, **run.columns)


def measure_network_spectrum(
    series: CheckpointSeries, run: RunSpec, part: PartSpec, options: SpectrumOptions, seed: int
) -> pd.DataFrame:
    """The maps that the trained network computes, with its own padding, beside the circular ones."""
    from transferscope.measure.spectra import paddings

    own = derive_seed(seed, run.full_name, "network_spectrum")
    size = options.input_size or part.pictures.seen_size
    return named(paddings(series, size, options.thresholds, own), **run.columns)


def measure_singular_vectors(
    series: CheckpointSeries, run: RunSpec, part: PartSpec, options: SpectrumOptions, seed: int
) -> pd.DataFrame:
    """The inputs that chosen layers of the trained network stretch most."""
    from transferscope.measure.spectra import singular_vectors

    own = derive_seed(seed, run.full_name, "singular_vectors")
    size = options.input_size or part.pictures.seen_size
    return named(singular_vectors(series, size, options.vector_layers, own), **run.columns)


def measure_margin(series: CheckpointSeries, run: RunSpec, train_split: PackedSplit) -> pd.DataFrame:
    """The margin that the trained network leaves on its training examples, and the largest norm of its inputs."""
    from transferscope.measure import margin

    table = margin(make_bench(train_split), series.load("final"), name=f"margin of {series.name}")
    return named(table, **run.columns, epoch=series.epoch("final"))


def measure_bound_factors(spectrum: pd.DataFrame, *margins: pd.DataFrame) -> pd.DataFrame:
    """Norm ratios, product of norms, depth, margin and inputs: what the generalisation bounds are made of."""
    from transferscope.analysis.spectrum_tables import bound_factors

    return bound_factors(spectrum, pd.concat(margins, ignore_index=True))


def compare_small_values(options: SpectrumOptions, runs: Runs, *singular_values: pd.DataFrame) -> pd.DataFrame:
    """Has RI-T more small singular values than P-T? A number with an interval for each threshold."""
    from transferscope.measure.spectra import small_values

    values = pd.concat(singular_values, ignore_index=True)
    task = str(values["task"].iloc[0])
    tuned = values["run"].isin([run.name for run in runs.root if run.role == "fine_tuned"])
    table = small_values(values[~tuned], values[tuned], options.thresholds)
    return named(table, task=task)
