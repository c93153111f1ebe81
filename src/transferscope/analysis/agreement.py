"""Agreement of two models beyond what their accuracies force: error consistency, which wrong answer, probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transferscope.analysis.intervals import mean_interval

Floats = NDArray[np.float64]

MIN_MISTAKES = 10
"""Mistakes that each model has to make before an interval of a mean over examples is given.

With fewer the mean rests on a handful of images; of 100 images and 6 mistakes kappa_p's interval covers 89 %."""


def consistency(shares: ArrayLike) -> dict[str, Floats]:
    """Agreement of the mistakes of two models beyond chance, of n sets of four shares, each result (n,).

    shares: (n, 4), both right, only the first right, only the second, neither; they need not add up to 1.

    - kappa: Cohen's kappa of being right ("error consistency", arXiv 2006.16736, 2507.06645). 1: the same mistakes;
      0: as many in common as two independent models of these accuracies.
    - kappa_max: the largest kappa that the two accuracies allow, below 1 where they differ.
    - excess_overlap: common mistakes, less those of independent models, in shares of the largest possible number less
      the same, (c - e_a e_b) / (min(e_a, e_b) - e_a e_b). It equals kappa / kappa_max. 1: every mistake of the better
      model is shared by the other one, whatever the accuracies.

    NaN where a model makes no mistake or nothing but mistakes: accuracy then forces the overlap.
    """
    both, only_a, only_b, neither = np.moveaxis(np.asarray(shares, dtype=float), -1, 0)
    total = both + only_a + only_b + neither
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong_a, wrong_b, common = (only_b + neither) / total, (only_a + neither) / total, neither / total
        chance, most = wrong_a * wrong_b, np.minimum(wrong_a, wrong_b)
        free = np.where((chance > 0) & (np.maximum(wrong_a, wrong_b) < 1), 1.0, np.nan)
        agree_by_chance = chance + (1 - wrong_a) * (1 - wrong_b)
        measures = {
            "kappa": 2 * (common - chance) / (1 - agree_by_chance),
            "kappa_max": 2 * (most - chance) / (1 - agree_by_chance),
            "excess_overlap": (common - chance) / (most - chance),
        }
        return {name: np.minimum(value * free, 1) for name, value in measures.items()}


@dataclass(frozen=True)
class Agreement:
    """kappa_p with its interval; NaN where undefined."""

    kappa_p: float
    low: float
    high: float


def kappa_p(agreed: ArrayLike, true_a: ArrayLike, true_b: ArrayLike, num_classes: int) -> Agreement:
    """CAPA, the chance-adjusted probabilistic agreement of two models (arXiv 2502.04313, Section 2).

    agreed: per example the sum over classes of the product of both models' probabilities, the chance that an answer
    drawn from each is the same. true_a, true_b: the probability that each gives to the true class. All (num_examples,).

    kappa_p = (observed - expected) / (1 - expected), where observed is the mean of `agreed`, and expected is that of
    two independent models that give the true class these mean probabilities and spread the rest evenly over the other
    classes. At most 1, which takes two models that are sure of the same answers; 0 by chance. A model compared with
    itself has the kappa_p of its own sureness and not 1. Undefined where both are sure of the truth everywhere.

    The interval is that of the mean influence of an example (`mean_interval`).
    """
    o, a, b = (np.asarray(values, dtype=float) for values in (agreed, true_a, true_b))
    if len(o) == 0 or not (np.isfinite(o).all() and np.isfinite(a).all() and np.isfinite(b).all()):
        return Agreement(*[float("nan")] * 3)
    others = max(num_classes - 1, 1)
    observed, sure_a, sure_b = o.mean(), a.mean(), b.mean()
    expected = sure_a * sure_b + (1 - sure_a) * (1 - sure_b) / others
    if 1 - expected < 1e-12:
        return Agreement(*[float("nan")] * 3)
    value = (observed - expected) / (1 - expected)
    slope_a, slope_b = (sure_b - (1 - sure_b) / others, sure_a - (1 - sure_a) / others)
    moved = slope_a * (a - sure_a) + slope_b * (b - sure_b)
    influence = value + (o - observed) / (1 - expected) - (1 - observed) / (1 - expected) ** 2 * moved
    low, high = mean_interval(influence)
    return Agreement(float(value), low, min(high, 1.0))
