"""Outcomes: what one model says of each example and what is true, from its stored logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

Floats = NDArray[np.float64]

ROWS = 4096
"""Examples whose probabilities are computed at a time, so that memory grows by a few numbers an example only."""


@dataclass(frozen=True)
class Outcomes:
    """A model's answers to one question on some examples: which class, or whether a finding is there.

    All arrays are (num_examples,). An example with a logit that is not finite has prediction -1, counts as wrong, and
    has NaN as probabilities.
    """

    predicted: NDArray[np.int64]
    """The most probable class; of a finding 1 or 0."""
    correct: NDArray[np.bool_]
    confidence: Floats
    """The probability given to the predicted class; of a finding that it is there."""
    happened: NDArray[np.bool_]
    """True if that came true: the prediction is right; of a finding it is there."""
    true: Floats
    """The probability given to the true class, or to the true state of the finding."""
    brier: Floats
    """Brier score: squared errors of all classes' probabilities, in [0, 2]; of a finding of its own one, in [0, 1]."""

    @property
    def num_mistakes(self) -> int:
        """Examples with a wrong prediction."""
        return int((~self.correct).sum())


def class_outcomes(logits: ArrayLike, labels: ArrayLike) -> Outcomes:
    """Outcomes of a task with one label an example: logits (num_examples, num_classes), labels int (num_examples,)."""
    truth = np.asarray(labels)
    parts = []
    for start, scores, probabilities in _probabilities(logits):
        own = truth[start : start + len(scores)]
        rows = np.arange(len(own))
        finite = np.isfinite(scores).all(axis=1)
        predicted = np.where(finite, scores.argmax(axis=1), -1)
        true = probabilities[rows, own]
        squares = (probabilities**2).sum(axis=1) - true**2 + (1 - true) ** 2
        parts.append((predicted, predicted == own, probabilities.max(axis=1), predicted == own, true, squares))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else _nothing()
    return Outcomes(*columns)


def finding_outcomes(logits: ArrayLike, labels: ArrayLike, *, threshold: float = 0.5) -> Outcomes:
    """Outcomes of one finding, on the examples whose label is known.

    logits: (num_examples,). labels: 1 or 0 (num_examples,). The finding is predicted where its probability is above
    the threshold.
    """
    scores, truth = np.asarray(logits, dtype=float), np.asarray(labels) == 1
    probability = np.where(np.isfinite(scores), expit(scores), np.nan)
    predicted = np.where(np.isnan(probability), -1, probability > threshold).astype(np.int64)
    true = np.where(truth, probability, 1 - probability)
    return Outcomes(predicted, predicted == truth, probability, truth, true, (1 - true) ** 2)


def same_answer(logits_a: ArrayLike, logits_b: ArrayLike) -> Floats:
    """The chance that classes drawn from both models' probabilities are the same, (num_examples,)."""
    both = zip(_probabilities(logits_a), _probabilities(logits_b), strict=True)
    parts = [(a * b).sum(axis=1) for (_, _, a), (_, _, b) in both]
    return np.concatenate(parts) if parts else np.zeros(0)


def same_state(true_a: ArrayLike, true_b: ArrayLike) -> Floats:
    """`same_answer` for a finding, from the probabilities that both models give to its true state."""
    a, b = np.asarray(true_a, dtype=float), np.asarray(true_b, dtype=float)
    agreement: Floats = a * b + (1 - a) * (1 - b)
    return agreement


def _probabilities(logits: ArrayLike) -> Iterator[tuple[int, Floats, Floats]]:
    """First row, logits and probabilities of some examples after the other."""
    scores = np.asarray(logits)
    for start in range(0, len(scores), ROWS):
        part = scores[start : start + ROWS].astype(np.float64)
        finite = np.isfinite(part).all(axis=1, keepdims=True)
        yield start, part, np.where(finite, softmax(np.where(finite, part, 0.0), axis=1), np.nan)


def _nothing() -> list[NDArray[np.generic]]:
    numbers, truths = np.zeros(0), np.zeros(0, dtype=bool)
    return [numbers.astype(np.int64), truths, numbers, truths, numbers, numbers]
