"""The test metric of one model, and whether it has learned the images at all."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from transferscope.analysis.intervals import rate_interval
from transferscope.analysis.learning import chance_level, loss_of_guessing, standard_error
from transferscope.answers.answer import NO, UNKNOWN, YES
from transferscope.claims.evidence import NORMAL_975

HARDLY = 0.05
"""Part of the way from guessing to no mistake below which a model has hardly learned."""
LIKE_GUESSING = 0.95
"""Part of the loss of guessing above which a loss is that of guessing."""


@dataclass(frozen=True)
class Score:
    """The main metric of a model on the test images of a task, beside that of guessing."""

    metric: str
    """`accuracy` or `auc`."""
    value: float
    low: float
    high: float
    """Ends of the 95 % interval over test images."""
    chance: float
    """The metric of a model without knowledge: the share of the largest class, or an AUC of 1/2."""
    loss: float
    """Nats per example (and finding)."""
    loss_of_guessing: float
    """Entropy of the labels, that is ln(classes) where all classes are equally frequent."""
    num_examples: int

    @property
    def is_like_guessing(self) -> bool:
        """True where guessing lies in the interval, or above it."""
        return self.low <= self.chance

    @property
    def has_learned(self) -> str:
        """`yes`, `no` or `cannot tell`; `yes` also where the metric is not known, or nothing is there to learn.

        `no` needs the whole interval less than 5 % of the way from guessing to no mistake. Guessing in the interval is
        no evidence by itself, so that it gives `no` only where the metric lies below these 5 % and the loss is that of
        guessing, too, else `cannot tell`.
        """
        if self.chance >= 1 or self.loss_of_guessing == 0:  # one class
            return YES
        hardly = self.chance + HARDLY * (1 - self.chance)
        if self.high < hardly:
            return NO
        if not self.is_like_guessing:
            return YES
        agrees = self.value < hardly and self.loss >= LIKE_GUESSING * self.loss_of_guessing
        return NO if agrees else UNKNOWN


def score_of(value: float, loss: float, class_sizes: pd.DataFrame, metric: str, num_examples: int) -> Score:
    """A score from the test metric, the test loss, and the counts of the test labels.

    class_sizes: as `analysis.learning.chance_level` takes them. The interval is Wilson's of an accuracy, and normal
    with the standard error of Hanley and McNeil (1982) of a mean AUC.
    """
    test = class_sizes[class_sizes["part"] == "test"]
    if metric == "accuracy":
        low, high = map(float, rate_interval(round(value * num_examples), num_examples))
    else:
        half = NORMAL_975 * standard_error(value, test, metric)
        low, high = max(value - half, 0.0), min(value + half, 1.0)
    chance = chance_level(test, metric)[0]
    return Score(metric, value, low, high, chance, loss, loss_of_guessing(test, metric), num_examples)
