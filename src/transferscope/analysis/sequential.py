"""As few examples as needed: decide while the examples come in, in growing batches.

Decided is whether a line has a barrier, and whether one model can replace another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from transferscope.analysis.barriers import gaps_between_ends, learned_by
from transferscope.analysis.intervals import paired_difference_interval
from transferscope.system.errors import UserError

Decision = Literal["no barrier", "barrier", "undecidable"]

EARLY = 0.005
"""Part of the 5 % of error that is spent on looks before all examples are there."""
IMAGINED_LOSS = 2.0
"""Loss of the example that is imagined beside those of a line, in losses of guessing: a mistake of which it is sure."""
LARGEST_RISE = 2.75
"""Mean rise of the loss of examples that were not seen, in losses of guessing; by simulation, see `docs/log.md`."""
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


def unseen_share(num_examples: int, error: float) -> float:
    """Largest share of all examples that can be of a kind of which so many show none, with probability 1 - error.

    About -log(error) / num_examples, which is the rule of three where the error is .05.
    """
    return float(1 - error ** (1 / num_examples))


def decide_barrier(
    alphas: ArrayLike,
    values: ArrayLike,
    num_examples: int,
    *,
    higher_is_better: bool,
    margin: float,
    guessing: float,
    is_share: bool = False,
    error: float = 0.05,
) -> Decision | None:
    """Decide whether the largest gap to the chord is below the margin or above it; None while open.

    margin: a part of what the mean of the ends is better than `guessing`, in the metric's unit, as in the claims on
    barriers, so that a line on which this is decided is decided there. alphas, values, is_share: as in
    `barriers.barrier_row`, on the examples so far.

    May be asked after every batch: the probability that any of its answers is ever wrong is at most `error`, half of it
    for the interval on each side and, of a loss, half of it for what was not seen, since only one of the two sides can
    be wrong. Above: some place is, where each place has its part of the error. Below: all places are; for the
    truly highest one that is wrong with the probability of a single place, so nothing is divided.

    A few examples that are all alike do not show the rare ones. An example is imagined at every place, and at the ends,
    whose answer changes, or whose loss rises by twice that of guessing. A loss is below the margin only if it stays
    there when that of as many examples as can have been missed (`unseen_share`) rises by `LARGEST_RISE`, since no
    interval of a mean holds without a bound on single values (Bahadur and Savage 1956).

    Undecidable are metrics that are not finite, lines without a place between the ends, and ends that are worse than
    guessing beyond doubt, of which no part could be a margin; while they are so within noise the line stays open.
    """
    if not 0 < margin < 1:
        raise UserError(f"margin is {margin}: give a part of what the ends have learned, between 0 and 1")
    curves = np.atleast_2d(np.asarray(values, dtype=np.float64))
    points = np.asarray(alphas, dtype=np.float64)
    gaps = gaps_between_ends(alphas, curves, higher_is_better=higher_is_better)[:, 1:-1]
    if gaps.shape[1] == 0 or not np.isfinite(gaps[0]).all():
        return "undecidable"
    ends = (curves[:, points.argmin()] + curves[:, points.argmax()]) / 2
    learned = learned_by(ends, guessing, higher_is_better=higher_is_better)
    beyond = gaps - margin * learned[:, None]
    known = np.isfinite(beyond[1:]).all(axis=1)
    if known.sum() < 2:
        return None
    noise, scale = beyond[1:][known], math.sqrt(num_examples / max(num_examples - 1, 1))
    for_one = reach_at_every_look(num_examples, error / 2)
    of_one = 1.0 if is_share else 0.0 if higher_is_better else IMAGINED_LOSS * guessing
    imagined = of_one / num_examples
    if learned[0] + for_one * np.hypot(scale * learned[1:][known].std(ddof=1), imagined) < 0:
        return "undecidable"
    if learned[0] <= 0:
        return None
    errors = np.hypot(scale * noise.std(axis=0, ddof=1), imagined)
    for_all = reach_at_every_look(num_examples, error / 2 / gaps.shape[1]) * errors
    seen = errors if higher_is_better else scale * noise.std(axis=0, ddof=1)
    missed = 0.0 if higher_is_better else unseen_share(num_examples, error / 2) * LARGEST_RISE * guessing
    if (beyond[0] + for_one * seen).max() + missed < 0:
        return "no barrier"
    return "barrier" if (beyond[0] - for_all).max() > 0 else None


def gain_at_every_look(
    gained: ArrayLike, lost: ArrayLike, totals: ArrayLike, num_looks: int, *, error: float = 0.05, early: float = EARLY
) -> tuple[float, float]:
    """Interval of the gain in accuracy of one model over another that holds however early one stops.

    gained, lost, totals: flips of either kind and examples at each look so far, (m,) of at most `num_looks`, each of
    which counts the examples of those before. The paired interval of each look (`paired_difference_interval`) has its
    part of the error: looks before the last share `early`, the last has the rest, so that with all examples it is
    nearly as short as if nobody had looked. The interval is what all of them have in common (Bonferroni); the last one
    alone where that is nothing. (-1, 1) where no look has examples.
    """
    total = np.asarray(totals, dtype=np.float64)
    parts = np.full(num_looks, early / max(num_looks - 1, 1))
    parts[-1] = error - early if num_looks > 1 else error
    ends = [
        paired_difference_interval(x, y, n, confidence=1 - part)
        for x, y, n, part in zip(np.asarray(gained), np.asarray(lost), total, parts[: len(total)], strict=True)
        if n > 0
    ]
    if not ends:
        return -1.0, 1.0
    low, high = max(float(end[0]) for end in ends), min(float(end[1]) for end in ends)
    return (low, high) if low <= high else (float(ends[-1][0]), float(ends[-1][1]))
