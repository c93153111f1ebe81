"""Coverage that an interval can have at all where few changes are expected, by going through all intervals.

Counts are Poisson, which binomial counts of rare changes are: no number of examples takes part.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson

MOST = 30
"""Counts above have a chance of less than 1e-12 where six changes are expected."""
TOTALS = np.array([0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6])
"""Expected numbers of changes of both kinds together, as many of the one as of the other."""
FREE = 4
"""Outcomes with so many changes of either kind are left open, which changes the bound by their chance."""


def of_one_count(expected: float) -> NDArray[np.float64]:
    """Coverages at an expected count that intervals can have which move up with the count.

    The counts whose intervals hold the truth then follow on each other, from one to another one.
    """
    sums = np.concatenate([[0.0], poisson.cdf(np.arange(MOST + 1), expected)])
    return np.unique([sums[last] - sums[first] for first in range(MOST) for last in range(first + 1, MOST + 2)])


def least_of_equal_models(floor: float) -> NDArray[np.float64]:
    """The least coverage at each of `TOTALS` of any interval of a difference that has `floor` or more at all of them.

    The truth is a difference of 0, whatever the number of changes, so one set of outcomes (gains, losses) holds it at
    all of them. Intervals treat gains and losses alike and move with them, so with m changes of the rarer kind the set
    ends at a number of the other that does not fall with m. All such ends of m below `FREE` are tried.
    """
    chances = poisson.pmf(np.arange(MOST + 1)[None], TOTALS[:, None] / 2)
    excluded = np.zeros((1, len(TOTALS)))
    ends = np.zeros(1, dtype=int)
    for rarer in range(FREE):
        first = np.arange(rarer + 1, MOST + 1)
        both = 2 * chances[:, rarer, None] * chances[:, ::-1].cumsum(axis=1)[:, ::-1][:, rarer + 1 :]
        steps = itertools.product(range(len(ends)), range(len(first)))
        kept = [(end, step) for end, step in steps if first[step] >= ends[end]]
        index, step = np.array(kept).T
        excluded, ends = excluded[index] + both.T[step], first[step]
        possible = (excluded <= 1 - floor).all(axis=1)
        excluded, ends = excluded[possible], ends[possible]
    open_ = np.square(chances[:, FREE:].sum(axis=1))
    return np.asarray(1 - excluded.max(axis=0) - open_)
