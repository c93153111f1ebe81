"""As few examples as needed: decide whether a line has a barrier while its examples come in, in growing batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from transferscope.analysis.barriers import gaps_between_ends
from transferscope.system.errors import UserError

Decision = Literal["no barrier", "barrier", "neither"]

TUNED_AT = 100
"""Number of examples at which intervals that hold at every look are least wide."""


def growing_sizes(num_examples: int, first: int = 32, factor: float = 1.5) -> Iterator[int]:
    """Numbers of examples after which one looks: first, then each `factor` times the one before, and all of them.

    Each is at least one more than the one before.
    """
    if first < 2 or factor <= 1:
        raise UserError(f"first {first}, factor {factor}: begin with 2 examples or more and grow by more than 1")
    size = float(first)
    while size < num_examples:
        yield int(size)
        size = max(size * factor, int(size) + 1)
    yield num_examples


def reach_at_every_look(num_examples: int, error: float, *, tuned_at: int = TUNED_AT) -> float:
    """Reach in standard errors of an interval that holds at all numbers of examples at once.

    A mean of n examples with standard error s lies within reach * s of the true one for all n together, with
    probability 1 - error (for n that are not tiny), so one may look as often as one likes and stop at will. The normal
    mixture of Robbins in the asymptotic form of Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (Annals of Statistics
    2024, Theorem 2.2):

        sqrt(2 (n r + 1) / (n r) log(sqrt(n r + 1) / error)),  r = (2 log(1/error) + log(1 + 2 log(1/error))) / tuned_at

    Smallest at n = tuned_at, where it is about 1.5 times the 1.96 of an interval for one look at .05.
    """
    if not 0 < error < 1:
        raise UserError(f"error is {error}: give a probability between 0 and 1")
    wanted = -2 * math.log(error)
    weight = num_examples * (wanted + math.log1p(wanted)) / tuned_at
    return math.sqrt(2 * (weight + 1) / weight * math.log(math.sqrt(weight + 1) / error))


def decide_barrier(
    alphas: ArrayLike,
    values: ArrayLike,
    num_examples: int,
    *,
    higher_is_better: bool,
    no_barrier: float,
    barrier: float,
    is_share: bool = False,
    error: float = 0.05,
) -> Decision | None:
    """Decide whether the largest gap to the chord is below `no_barrier`, above `barrier` or between; None while open.

    alphas, values, is_share: as in `barriers.barrier_row`, on the examples so far. May be asked after every batch: the
    probability that any of its answers is ever wrong is at most `error`, half of it for each side. Above: some place
    is, where each place has its part of the error. Below: all places are; for the truly highest one that is wrong with
    the probability of a single place, so nothing is divided. Non-finite metrics decide nothing, as no more examples
    will change that: neither.
    """
    if not no_barrier <= barrier:
        raise UserError(f"no_barrier {no_barrier} is above barrier {barrier}: give them in order")
    gaps = gaps_between_ends(alphas, values, higher_is_better=higher_is_better)[:, 1:-1]
    if gaps.shape[1] == 0 or not np.isfinite(gaps[0]).all():
        return "neither"
    noise = gaps[1:][np.isfinite(gaps[1:]).all(axis=1)]
    if len(noise) < 2:
        return None
    imagined = 1 / num_examples if is_share else 0.0
    errors = np.hypot(noise.std(axis=0, ddof=1) * math.sqrt(num_examples / max(num_examples - 1, 1)), imagined)
    for_one = reach_at_every_look(num_examples, error / 2) * errors
    for_all = reach_at_every_look(num_examples, error / 2 / gaps.shape[1]) * errors
    low, high = float((gaps[0] - for_all).max()), float((gaps[0] + for_one).max())
    if high < no_barrier:
        return "no barrier"
    if low > barrier:
        return "barrier"
    return "neither" if low > no_barrier and high < barrier else None
