"""A linear classifier fitted anew to a network's features: how good a network is whose classifier may be misaligned."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transferscope.system.errors import UserError

MOST_ITERATIONS = 300


@dataclass(frozen=True)
class LinearClassifier:
    """Scores of classes, or log odds of findings, from features: weight (classes, features), bias (classes,)."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def logits(self, features: ArrayLike) -> NDArray[np.float64]:
        """features: (num_examples, features). (num_examples, num_classes)."""
        return np.asarray(features, dtype=np.float64) @ self.weight.T + self.bias


def fit_classifier(
    features: ArrayLike, labels: ArrayLike, num_classes: int, *, multi_label: bool = False
) -> LinearClassifier:
    """Logistic regression (scikit-learn's, with its default l2 penalty) on standardised features.

    Args:
        features: (num_examples, features), finite or not: what is not counts as 0.
        labels: (num_examples,) class indices, or (num_examples, num_classes) in {1, 0, -1} with -1 unknown.

    A class without examples is never predicted; a finding of which all examples have one value gets log odds of 0.
    Raises UserError for no examples.
    """
    x, y = np.nan_to_num(np.asarray(features, dtype=np.float64), posinf=0, neginf=0), np.asarray(labels)
    if len(x) == 0 or len(x) != len(y):
        raise UserError(f"{len(x)} rows of features and {len(y)} labels: give as many of each, and at least one")
    centre, spread = x.mean(axis=0), x.std(axis=0)
    scale = 1 / np.where(spread > 1e-12, spread, 1)
    z = (x - centre) * scale
    weight, bias = np.zeros((num_classes, x.shape[1])), np.zeros(num_classes)
    if multi_label:
        for finding in range(num_classes):
            known = y[:, finding] >= 0
            if len(np.unique(y[known, finding])) == 2:
                weight[finding], bias[finding] = (part[0] for part in _fit(z[known], y[known, finding]))
    else:
        present = np.unique(y)
        bias[:] = -np.inf
        if len(present) == 1:
            bias[present] = 0
        else:
            own, offset = _fit(z, y)
            if len(present) == 2:  # one row, for the second of the two
                own, offset = np.concatenate([-own, own]) / 2, np.concatenate([-offset, offset]) / 2
            weight[present], bias[present] = own, offset
    return LinearClassifier(weight * scale, bias - (weight * scale) @ centre)


def _fit(x: NDArray[np.float64], y: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from sklearn.exceptions import ConvergenceWarning  # takes a second to import
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = LogisticRegression(max_iter=MOST_ITERATIONS, tol=1e-3).fit(x, y)
    return classifier.coef_, classifier.intercept_
