"""Flips: examples that turn wrong, or right, when one model replaces another (arXiv 2011.09161)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike, NDArray

from transferscope.analysis.intervals import paired_difference_interval, rate_interval


@dataclass(frozen=True)
class Grouping:
    """Examples by the value of one property, such as their class or the sex of a patient.

    codes: int (num_examples,), the number of each example's value in `values`.
    """

    name: str
    values: Sequence[str]
    codes: NDArray[np.int64]

    @staticmethod
    def of_all(num_examples: int) -> Grouping:
        """All examples as one group, named "all"."""
        return Grouping("all", ("all",), np.zeros(num_examples, dtype=np.int64))


def flips(correct_a: ArrayLike, correct_b: ArrayLike, grouping: Grouping) -> pd.DataFrame:
    """A row per value of the grouping, of the first model replaced by the second.

    correct_a, correct_b: bool (num_examples,), of the same examples in the same order.

    Returns columns group, value, num_examples, accuracy_a, accuracy_b; negative_flips (right before, wrong after) and
    positive_flips (the reverse); their rates in shares of all examples of the row, with Wilson's interval;
    accuracy_gain = accuracy_b - accuracy_a = positive - negative rate, with the paired interval; and p_value of
    McNemar's exact test that both models are right equally often. A value without examples has NaN in all rates.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    assert a.shape == b.shape == grouping.codes.shape
    total, right_a, right_b, lost, gained = (
        np.bincount(grouping.codes[chosen], minlength=len(grouping.values))
        for chosen in (np.ones_like(a), a, b, a & ~b, b & ~a)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {name: count / total for name, count in (("a", right_a), ("b", right_b), ("-", lost), ("+", gained))}
    columns: dict[str, ArrayLike] = {
        "group": grouping.name,
        "value": list(grouping.values),
        "num_examples": total,
        "accuracy_a": shares["a"],
        "accuracy_b": shares["b"],
        "negative_flips": lost,
        "positive_flips": gained,
    }
    columns |= _ranged("negative_flip_rate", shares["-"], rate_interval(lost, total))
    columns |= _ranged("positive_flip_rate", shares["+"], rate_interval(gained, total))
    gain = shares["+"] - shares["-"]
    columns |= _ranged("accuracy_gain", gain, paired_difference_interval(gained, lost, total))
    columns["p_value"] = np.where(total > 0, mcnemar_p(lost, gained), np.nan)
    return pd.DataFrame(columns)


def mcnemar_p(lost: ArrayLike, gained: ArrayLike) -> NDArray[np.float64]:
    """p-value of McNemar's exact test, element by element: 1 where the models never differ."""
    x, y = np.asarray(lost), np.asarray(gained)
    p: NDArray[np.float64] = np.minimum(1, 2 * scipy.stats.binom.cdf(np.minimum(x, y), x + y, 0.5))
    return p


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted by Holm's method for being many, in their order; NaN (a group without examples) stays NaN."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else steps
    return adjusted


def answer(low: float, high: float, margin: float) -> str:
    """Answer whether the second model may replace the first: "yes", "no" or "cannot tell".

    low, high: the interval of the gain in accuracy. "yes" where it lies above -margin, so that no more than the margin
    is lost; "no" where it lies below.
    """
    if low >= -margin:
        return "yes"
    return "no" if high < -margin else "cannot tell"


def _ranged(name: str, value: ArrayLike, interval: tuple[ArrayLike, ArrayLike]) -> Mapping[str, ArrayLike]:
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
