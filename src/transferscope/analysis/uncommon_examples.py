"""Examples that one of two models gets right and the other wrong (Figure 9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

from transferscope.analysis.mistakes import correct_from_logits
from transferscope.system.errors import UserError

COLUMNS = ["class_index", "row", "rank", "example", "label"]
COLUMNS += ["prediction_a", "confidence_a", "prediction_b", "confidence_b"]


def uncommon_examples(
    logits_a: ArrayLike,
    logits_b: ArrayLike,
    labels: ArrayLike,
    *,
    multi_label: bool = False,
    classes: int | Sequence[int] = 5,
    examples_per_cell: int = 1,
) -> pd.DataFrame:
    """Choose examples for a gallery: a column per class, row "only_a_correct" above row "only_b_correct".

    logits (num_examples, num_classes) of both models on the same examples; labels as in `correct_from_logits`.
    classes: the classes to show, or how many: those with most disagreement, first such as have examples in both rows.
    Within a cell the examples come first on which the right model is surest and the wrong one most sure
    of its mistake. For a multi-label task a class is a finding, and label and predictions are 1 or 0.

    Returns a row per example: class_index, row, rank (0 first), example (index), label, and prediction and confidence
    (probability given to the prediction) of both models. A cell without examples has no rows.
    """
    scores_a, scores_b, truth = np.asarray(logits_a), np.asarray(logits_b), np.asarray(labels)
    if scores_a.shape != scores_b.shape:
        raise UserError(f"the models' logits differ in shape: {scores_a.shape} and {scores_b.shape}")
    correct_a, valid = correct_from_logits(scores_a, truth, multi_label=multi_label)
    correct_b, _ = correct_from_logits(scores_b, truth, multi_label=multi_label)
    member = valid if multi_label else truth[:, None] == np.arange(scores_a.shape[1])
    only_a, only_b = member & _column(correct_a & ~correct_b), member & _column(correct_b & ~correct_a)
    if isinstance(classes, int):
        chosen = _most_disagreement(only_a, only_b, classes)
    else:
        chosen = _checked(classes, scores_a.shape[1])
    rows = []
    for class_index in chosen:
        a, b = (_predictions(scores, class_index, multi_label) for scores in (scores_a, scores_b))
        for row, cell in (("only_a_correct", only_a), ("only_b_correct", only_b)):
            candidates = np.flatnonzero(cell[:, class_index])
            surest = np.argsort(-(a[1] + b[1])[candidates], kind="stable")[:examples_per_cell]
            for rank, i in enumerate(candidates[surest]):
                label = truth[i, class_index] if multi_label else truth[i]
                rows.append((class_index, row, rank, i, label, a[0][i], a[1][i], b[0][i], b[1][i]))
    return pd.DataFrame(rows, columns=COLUMNS)


def class_indices(names: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Indices of classes by name. Raises UserError that lists the classes there are."""
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise UserError(f"no class named {', '.join(unknown)}; there are: {', '.join(class_names)}")
    return [list(class_names).index(name) for name in names]


def _column(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return values if values.ndim == 2 else values[:, None]


def _most_disagreement(only_a: NDArray[np.bool_], only_b: NDArray[np.bool_], num_classes: int) -> list[int]:
    """Classes by (examples in both rows, number of examples that the models disagree on), without empty ones."""
    count_a, count_b = only_a.sum(axis=0), only_b.sum(axis=0)
    total = count_a + count_b
    order = np.lexsort((-total, (count_a == 0) | (count_b == 0)))
    return [int(i) for i in order if total[i] > 0][:num_classes]


def _checked(classes: Sequence[int], num_classes: int) -> list[int]:
    outside = [i for i in classes if not 0 <= i < num_classes]
    if outside:
        raise UserError(f"classes {outside} do not exist: there are {num_classes}, numbered from 0")
    return list(classes)


def _predictions(
    scores: NDArray[np.floating], class_index: int, multi_label: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Predicted class (or 1/0 of a finding) and the probability given to it, each (num_examples,)."""
    if multi_label:
        probability = expit(scores[:, class_index].astype(float))
        predicted = (probability > 0.5).astype(np.int64)
        return predicted, np.where(predicted == 1, probability, 1 - probability)
    probabilities = softmax(scores.astype(float), axis=1)
    return probabilities.argmax(axis=1), probabilities.max(axis=1)
