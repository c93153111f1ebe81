"""Nodes of mistakes. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

import pandas as pd

from transferscope.experiment.node_parameters import Pairs, PairSpec, Runs
from transferscope.experiment.options import MistakesOptions, ReplaceOptions
from transferscope.experiment.seeds import derive_seed
from transferscope.pipelines.types import CheckpointSeries, Figure, PackedSplit, Predictions, Tensor
from transferscope.pipelines.wiring import concatenate, make_bench, named


def predict_test(series: CheckpointSeries, test_split: PackedSplit, options: MistakesOptions) -> Predictions:
    """Logits of a run on the test split, computed once for all that needs them."""
    from transferscope.measure import predict

    return {"test": predict(make_bench(test_split=test_split), series.load(options.epoch))}


def predict_until_decided(
    pairs: Pairs, test_split: PackedSplit, options: MistakesOptions, **series: CheckpointSeries
) -> list[Predictions]:
    """Logits of all runs of a task on as many test images as it takes to decide every pair; series by full name."""
    from functools import partial

    import torch

    from transferscope.measure.stopping import predict_until_decided

    assert options.until_decided is not None
    assert options.replace is not None
    load = {name: partial(one.load, options.epoch) for name, one in series.items()}
    names = [(pair.run_a, pair.run_b) for pair in pairs.root]
    by_run = predict_until_decided(test_split, load, names, options.replace, options.until_decided)
    return [{"test": logits, "rows": torch.from_numpy(rows)} for rows, logits in by_run.values()]


def seen_by(test_split: PackedSplit, *predictions: Predictions) -> tuple[PackedSplit, list[Tensor]]:
    """The test images that all of these models have seen, and their logits on them."""
    rows = [one["rows"] for one in predictions if "rows" in one]
    if not rows:
        return test_split, [one["test"] for one in predictions]
    fewest = min(rows, key=len)
    return test_split.subset(fewest), [one["test"][: len(fewest)] for one in predictions]


def compare_pair(
    pair: PairSpec,
    predictions_a: Predictions,
    predictions_b: Predictions,
    test_split: PackedSplit,
    options: MistakesOptions,
) -> pd.DataFrame:
    """A row of Tables 3 to 6 per class, with bootstrap intervals."""
    from transferscope.measure import mistakes

    names = pair.columns(options.epoch)
    seed = derive_seed(names["checkpoint_a"], names["checkpoint_b"], "bootstrap")
    seen, (first, second) = seen_by(test_split, predictions_a, predictions_b)
    table = mistakes(seen, first, second, resamples=options.bootstrap, seed=seed)
    return named(table, task=test_split.name, **names)


def compare_pairs(
    pairs: Pairs, test_split: PackedSplit, options: MistakesOptions, **predictions: Predictions
) -> pd.DataFrame:
    """The tables of `compare_pair` of many pairs, one below the other; predictions by the full name of the run."""
    return concatenate(
        *(
            compare_pair(pair, predictions[pair.run_a], predictions[pair.run_b], test_split, options)
            for pair in pairs.root
        )
    )


def replace_pair(
    pair: PairSpec,
    predictions_a: Predictions,
    predictions_b: Predictions,
    test_split: PackedSplit,
    options: MistakesOptions,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answer whether the second run of a pair can replace the first, and count the flips by class and group."""
    from transferscope.measure import replacement
    from transferscope.measure.stopping import looks_at

    names = pair.columns(options.epoch)
    seed = derive_seed(names["checkpoint_a"], names["checkpoint_b"], "replacement")
    seen, (first, second) = seen_by(test_split, predictions_a, predictions_b)
    looks = looks_at(len(test_split), options.until_decided) if options.until_decided else ()
    whole, flips = replacement(seen, first, second, options.replace or ReplaceOptions(), seed=seed, looks=looks)
    return named(whole, task=test_split.name, **names), named(flips, task=test_split.name, **names)


def replace_pairs(
    pairs: Pairs, test_split: PackedSplit, options: MistakesOptions, **predictions: Predictions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of `replace_pair` of many pairs, one below the other; predictions by the full name of the run."""
    tables = [
        replace_pair(pair, predictions[pair.run_a], predictions[pair.run_b], test_split, options) for pair in pairs.root
    ]
    whole, flips = zip(*tables, strict=True)
    return concatenate(*whole), concatenate(*flips)


def calibrate_runs(
    runs: Runs, test_split: PackedSplit, options: MistakesOptions, **predictions: Predictions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Calibration of each run, and the bins of its reliability diagram; predictions by the name of the run."""
    from transferscope.measure import calibration

    labels = {run.name: run.label for run in runs.root}
    rows: list[pd.DataFrame] = []
    bins: list[pd.DataFrame] = []
    for run, of_run in predictions.items():
        seen, (logits,) = seen_by(test_split, of_run)
        tables = calibration(seen, logits, options.replace or ReplaceOptions())
        for tables_of, table in zip((rows, bins), tables, strict=True):
            tables_of.append(named(table, task=test_split.name, run=run, label=labels[run]))
    return concatenate(*rows), concatenate(*bins)


def summarise_pairs(mistakes: pd.DataFrame) -> pd.DataFrame:
    """Mean and range over the pairs of a kind, statistic by statistic."""
    from transferscope.analysis.mistakes import spread_over_pairs

    return spread_over_pairs(mistakes)


def measure_class_accuracy(
    runs: Runs, test_split: PackedSplit, class_sizes: pd.DataFrame, **predictions: Predictions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy of each class against its size for each run, and the correlation of the two.

    Rows with run "mean" are of the accuracies averaged over the runs of a label.
    """
    from transferscope.measure.predictions import class_accuracy, size_correlations

    sizes = class_sizes[class_sizes["part"] == "train"]["count"].to_numpy()
    labels = {run.name: run.label for run in runs.root}
    tables = []
    for run, of_run in predictions.items():
        seen, (logits,) = seen_by(test_split, of_run)
        tables.append(named(class_accuracy(seen, logits, sizes), task=test_split.name, run=run, label=labels[run]))
    accuracy = pd.concat(tables, ignore_index=True)
    return accuracy, size_correlations(accuracy)


def draw_flip_gallery(
    pair: PairSpec,
    predictions_a: Predictions,
    predictions_b: Predictions,
    test_split: PackedSplit,
    options: MistakesOptions,
    note: str | None,
) -> Figure:
    """Images that flip between two models, those first on which the wrong one is surest."""
    from transferscope.measure.replacements import flip_gallery
    from transferscope.plots.splits import gallery

    seen, (first, second) = seen_by(test_split, predictions_a, predictions_b)
    shown = flip_gallery(seen, first, second, options.replace or ReplaceOptions())
    return gallery(seen, shown, pair.label_a, pair.label_b, note=note)


def draw_gallery(
    pair: PairSpec,
    predictions_a: Predictions,
    predictions_b: Predictions,
    test_split: PackedSplit,
    options: MistakesOptions,
    note: str | None,
) -> Figure:
    """Figure 9: images that only one of two models gets right."""
    from transferscope.measure.predictions import uncommon
    from transferscope.plots.splits import gallery

    classes = options.gallery_of(test_split.name)
    seen, (first, second) = seen_by(test_split, predictions_a, predictions_b)
    shown = uncommon(seen, first, second, classes, options.gallery_rows_of)
    return gallery(seen, shown, pair.label_a, pair.label_b, note=note)
