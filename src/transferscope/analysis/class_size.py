"""Accuracy of each class against its size (appendix B.2, Figure 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike

from transferscope.system.errors import UserError


@dataclass(frozen=True)
class SizeCorrelation:
    """Pearson's correlation over classes, with its two-sided p-value."""

    pearson_r: float
    p_value: float
    num_classes: int
    """Classes that have both a size and a test accuracy."""


def class_accuracy(
    correct: ArrayLike, labels: ArrayLike, class_sizes: ArrayLike, class_names: Sequence[str]
) -> pd.DataFrame:
    """Test accuracy of every class of a single-label task.

    correct: bool (num_test,); labels: int (num_test,); class_sizes: training examples of each class (num_classes,).
    Returns a row per class: class_name, class_size, num_test, accuracy (NaN for a class without test examples).
    """
    right, truth, sizes = np.asarray(correct, dtype=bool), np.asarray(labels), np.asarray(class_sizes)
    if right.shape != truth.shape or right.ndim != 1:
        raise UserError(f"correct has shape {right.shape} but labels {truth.shape}: expected (num_test,) for both")
    if len(sizes) != len(class_names):
        raise UserError(f"{len(sizes)} class sizes for {len(class_names)} class names")
    if truth.size and (truth.min() < 0 or truth.max() >= len(sizes)):
        raise UserError(f"labels run from {truth.min()} to {truth.max()} but there are {len(sizes)} classes")
    num_test = np.bincount(truth, minlength=len(sizes))
    num_right = np.bincount(truth[right], minlength=len(sizes))
    accuracy = np.where(num_test > 0, num_right / np.maximum(num_test, 1), np.nan)
    return pd.DataFrame(
        {"class_name": list(class_names), "class_size": sizes, "num_test": num_test, "accuracy": accuracy}
    )


def class_size_correlation(class_sizes: ArrayLike, accuracies: ArrayLike) -> SizeCorrelation:
    """Plain Pearson r of class size and accuracy over the classes whose accuracy is known (not NaN).

    Source: appendix B.2. NaN where fewer than 3 classes are left or where sizes or accuracies are all equal: there a
    correlation says nothing.
    """
    sizes, values = np.asarray(class_sizes, dtype=float), np.asarray(accuracies, dtype=float)
    if sizes.shape != values.shape or sizes.ndim != 1:
        raise UserError(f"class_sizes has shape {sizes.shape} but accuracies {values.shape}: expected (num_classes,)")
    known = ~np.isnan(values)
    sizes, values = sizes[known], values[known]
    if len(sizes) < 3 or np.ptp(sizes) == 0 or np.ptp(values) == 0:
        return SizeCorrelation(float("nan"), float("nan"), len(sizes))
    result = scipy.stats.pearsonr(sizes, values)
    return SizeCorrelation(float(result.statistic), float(result.pvalue), len(sizes))
