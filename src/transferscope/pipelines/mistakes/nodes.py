"""Nodes of mistakes. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from transferscope.experiment.options import MistakesOptions
from transferscope.experiment.plan import derive_seed
from transferscope.pipelines.wiring import concatenate


def predict_test(series: Any, test_split: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Logits of a run on the test split, computed once for all that needs them."""
    from transferscope.analysis.evaluation import prepare
    from transferscope.training.device import choose_device
    from transferscope.training.evaluation import predict

    epoch = MistakesOptions.model_validate(options).epoch
    return {"test": predict(prepare(series.load(epoch).build(), choose_device(None)), test_split)}


def compare_pair(
    pair: dict[str, Any],
    predictions_a: dict[str, Any],
    predictions_b: dict[str, Any],
    test_split: Any,
    options: dict[str, Any],
) -> pd.DataFrame:
    """A row of Tables 3 to 6 per class, with bootstrap intervals."""
    from transferscope.analysis.mistakes import compare_predictions, num_predicted, with_intervals

    chosen = MistakesOptions.model_validate(options)
    names = {
        "task": test_split.name,
        "pair_kind": pair["kind"],
        "checkpoint_a": f"{pair['run_a']}@{chosen.epoch}",
        "checkpoint_b": f"{pair['run_b']}@{chosen.epoch}",
    }
    comparison = compare_predictions(
        predictions_a["test"],
        predictions_b["test"],
        test_split.labels,
        test_split.class_names,
        multi_label=test_split.multi_label,
    )
    table = comparison.to_frame(test_split.class_names if test_split.multi_label else None)
    seed = derive_seed(names["checkpoint_a"], names["checkpoint_b"], "bootstrap")
    table = with_intervals(table, comparison, num_resamples=chosen.bootstrap, seed=seed)
    if test_split.multi_label:
        for side, logits in (("a", predictions_a), ("b", predictions_b)):
            table[f"num_predicted_{side}"] = num_predicted(logits["test"])
    return table.assign(**names)[[*names, *table.columns]]


def compare_pairs(
    pairs: list[dict[str, Any]], test_split: Any, options: dict[str, Any], **predictions: dict[str, Any]
) -> pd.DataFrame:
    """The tables of `compare_pair` of many pairs, one below the other; predictions by the full name of the run."""
    return concatenate(
        *(
            compare_pair(pair, predictions[pair["run_a"]], predictions[pair["run_b"]], test_split, options)
            for pair in pairs
        )
    )


def summarise_pairs(mistakes: pd.DataFrame) -> pd.DataFrame:
    """Mean and range over the pairs of a kind, statistic by statistic."""
    from transferscope.analysis.mistakes import spread_over_pairs

    return spread_over_pairs(mistakes)


def measure_class_accuracy(
    runs: dict[str, Any], test_split: Any, class_sizes: pd.DataFrame, **predictions: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy of each class against its size for each run, and the correlation of the two.

    Rows with run "mean" are of the accuracies averaged over the runs of a label.
    """
    from transferscope.analysis.class_size import class_accuracy, class_size_correlation
    from transferscope.analysis.mistakes import correct_from_logits

    sizes = class_sizes[class_sizes["part"] == "train"]["count"].to_numpy()
    tables, correlations = [], []
    for run, logits in predictions.items():
        correct, _ = correct_from_logits(logits["test"], test_split.labels, multi_label=False)
        table = class_accuracy(correct, test_split.labels, sizes, test_split.class_names)
        names = {"task": test_split.name, "run": run, "label": runs[run]["label"]}
        tables.append(table.assign(**names)[[*names, *table.columns]])
        correlations.append(names | vars(class_size_correlation(table["class_size"], table["accuracy"])))
    accuracy = pd.concat(tables, ignore_index=True)
    for label, rows in accuracy.groupby("label", sort=False):
        means = rows.groupby("class_name", sort=False)[["class_size", "accuracy"]].mean()
        names = {"task": test_split.name, "run": "mean", "label": label}
        correlations.append(names | vars(class_size_correlation(means["class_size"], means["accuracy"])))
    return accuracy, pd.DataFrame(correlations)


def draw_class_size_figure(class_accuracy: pd.DataFrame, correlation: pd.DataFrame, note: str | None) -> Any:
    """Figure 8."""
    from transferscope.plots.mistakes import accuracy_by_class_size

    return accuracy_by_class_size(class_accuracy, correlation, title=str(class_accuracy["task"].iloc[0]), note=note)


def draw_mistakes(mistakes: pd.DataFrame, note: str | None) -> Any:
    """Tables 3 to 6 as bars."""
    from transferscope.plots.mistakes import mistake_bars

    return mistake_bars(mistakes, title=str(mistakes["task"].iloc[0]), note=note)


def draw_gallery(
    pair: dict[str, Any],
    predictions_a: dict[str, Any],
    predictions_b: dict[str, Any],
    test_split: Any,
    options: dict[str, Any],
    note: str | None,
) -> Any:
    """Figure 9: images that only one of two models gets right."""
    from transferscope.analysis.uncommon_examples import class_indices, uncommon_examples
    from transferscope.images.augment import SeenImages
    from transferscope.plots.images import uncommon_mistakes_gallery

    chosen = MistakesOptions.model_validate(options)
    classes = chosen.gallery_of(test_split.name)
    found = uncommon_examples(
        predictions_a["test"],
        predictions_b["test"],
        test_split.labels,
        multi_label=test_split.multi_label,
        classes=classes if isinstance(classes, int) else class_indices(classes, test_split.class_names),
        examples_per_cell=chosen.gallery_rows_of,
    )
    return uncommon_mistakes_gallery(
        SeenImages(test_split),
        _captions(found, test_split),
        name_a=pair["label_a"],
        name_b=pair["label_b"],
        title=test_split.name,
        note=note,
    )


def _captions(found: pd.DataFrame, split: Any) -> pd.DataFrame:
    """Names instead of numbers: the class, or of a finding whether it is present."""
    names = np.array(split.class_names)

    def name(values: pd.Series) -> np.ndarray:
        if not split.multi_label:
            return names[values.to_numpy(dtype=int)]
        finding = names[found["class_index"].to_numpy(dtype=int)]
        return np.where(values.to_numpy(dtype=int) == 1, finding, np.char.add("no ", finding))

    return pd.DataFrame(
        {
            "image": found["example"],
            "column": found.groupby(["class_index", "rank"], sort=False).ngroup(),
            "only_correct": found["row"].str.slice(5, 6),
            "true_label": name(found["label"]),
            "prediction_a": name(found["prediction_a"]),
            "confidence_a": found["confidence_a"],
            "prediction_b": name(found["prediction_b"]),
            "confidence_b": found["confidence_b"],
        }
    )
