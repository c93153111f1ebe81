"""Predictions of models, and the mistakes that two of them share."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from transferscope.analysis.class_size import class_accuracy as accuracy_of_classes
from transferscope.analysis.class_size import class_size_correlation
from transferscope.analysis.mistakes import compare_predictions, correct_from_logits, num_predicted, with_intervals
from transferscope.analysis.uncommon_examples import class_indices, uncommon_examples
from transferscope.images.split import PackedSplit
from transferscope.measure.bench import Bench, network
from transferscope.models.checkpoint import Checkpoint
from transferscope.training.evaluation import predict as logits_of


def predict(bench: Bench, checkpoint: Checkpoint, part: str = "test") -> Tensor:
    """Compute the logits of a network on all examples of a part: float32 (num_examples, num_classes), on the CPU."""
    return logits_of(network(checkpoint), bench.split(part))


def mistakes(
    split: PackedSplit, logits_a: ArrayLike, logits_b: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compare the mistakes of two models on a split: a row of Tables 3 to 6 per class, with bootstrap intervals.

    A multi-label task has a row per finding, and the columns num_predicted_a and num_predicted_b.
    """
    names = split.class_names if split.multi_label else None
    comparison = compare_predictions(logits_a, logits_b, split.labels, split.class_names, multi_label=split.multi_label)
    table = with_intervals(comparison.to_frame(names), comparison, num_resamples=resamples, seed=seed)
    if split.multi_label:
        for side, logits in (("a", logits_a), ("b", logits_b)):
            table[f"num_predicted_{side}"] = num_predicted(logits)
    return table


def class_accuracy(split: PackedSplit, logits: ArrayLike, class_sizes: ArrayLike) -> pd.DataFrame:
    """Measure the accuracy of a model in each class of a single-label task, beside the training examples of the class.

    Columns class_name, class_size, num_test, accuracy.
    """
    correct, _ = correct_from_logits(logits, split.labels, multi_label=False)
    return accuracy_of_classes(correct, split.labels, class_sizes, split.class_names)


def size_correlations(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Correlate the size of a class with its accuracy, for each run and for the mean over the runs of a label.

    accuracy: rows of `class_accuracy` of all runs behind columns task, run, label. Columns task, run ("mean" of those
    over runs), label, pearson_r, p_value, num_classes.
    """
    rows = []
    for (task, run, label), own in accuracy.groupby(["task", "run", "label"], sort=False):
        correlation = class_size_correlation(own["class_size"], own["accuracy"])
        rows.append({"task": task, "run": run, "label": label, **vars(correlation)})
    for (task, label), own in accuracy.groupby(["task", "label"], sort=False):
        means = own.groupby("class_name", sort=False)[["class_size", "accuracy"]].mean()
        correlation = class_size_correlation(means["class_size"], means["accuracy"])
        rows.append({"task": task, "run": "mean", "label": label, **vars(correlation)})
    return pd.DataFrame(rows)


def uncommon(
    split: PackedSplit, logits_a: ArrayLike, logits_b: ArrayLike, classes: int | tuple[str, ...] = 5, per_cell: int = 1
) -> pd.DataFrame:
    """Choose examples that only one of two models gets right, with names in place of numbers, for the gallery.

    classes: names of classes or findings, or how many. per_cell: examples of each class and model. Columns as
    `uncommon_mistakes_gallery` takes them.
    """
    examples = uncommon_examples(
        logits_a,
        logits_b,
        split.labels,
        multi_label=split.multi_label,
        classes=classes if isinstance(classes, int) else class_indices(classes, split.class_names),
        examples_per_cell=per_cell,
    )
    names = np.array(split.class_names)

    def name(values: pd.Series) -> np.ndarray:
        """The class, or of a finding whether it is present."""
        if not split.multi_label:
            return names[values.to_numpy(dtype=int)]
        finding = names[examples["class_index"].to_numpy(dtype=int)]
        return np.where(values.to_numpy(dtype=int) == 1, finding, np.char.add("no ", finding))

    return pd.DataFrame(
        {
            "image": examples["example"],
            "column": examples.groupby(["class_index", "rank"], sort=False).ngroup(),
            "only_correct": examples["row"].str.slice(5, 6),
            "true_label": name(examples["label"]),
            "prediction_a": name(examples["prediction_a"]),
            "confidence_a": examples["confidence_a"],
            "prediction_b": name(examples["prediction_b"]),
            "confidence_b": examples["confidence_b"],
        }
    )
