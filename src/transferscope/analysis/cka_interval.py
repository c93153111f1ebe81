"""Intervals of CKA over the choice of examples, from sums that are taken batch by batch.

CKA is a ratio of three means over pairs of examples, c / sqrt(a b). Its interval has six parts, chosen by simulation
(`tests/benchmarks/bench_cka.py --coverage`):

1. The variance is that of leaving out each example in turn (jackknife), less what a jackknife counts twice of the part
   that belongs to pairs of examples (Efron and Stein 1981). From 512 examples on, groups of them are left out.
2. The variance is about proportional to (CKA + d) (1 - CKA)^2, where 2 d is what chance adds to a biased estimate. On
   the scale artanh(sqrt((CKA + d) / (1 + d))) it is constant, so the interval is symmetric there. For features of one
   dimension, where CKA is the square of a correlation, this is Fisher's z.
3. The quantile is Student's. Features have heavy tails, a few examples make most of the variance, and its degrees of
   freedom follow from the kurtosis of what the examples contribute.
4. Of little CKA the variance is underestimated where the CKA is. The upper end lets it grow with CKA as fast as it does
   in the direction of features that varies most.
5. The lower end takes the whole 5 % where no interval could lie below the truth, since upper ends are above it anyway.
   Whether 0 belongs to the interval is decided by a test of independence, whose distribution (a sum of weighted
   chi squares) is matched by its first three moments. Where 0 does not, the lower end is `ABOVE_ZERO` or more.
6. The end towards which the examples' contributions are skewed is longer, by Hall's transformation (1992). A few
   examples that lower the CKA of features with heavy tails are missing from many samples, which then have too high a
   CKA and too small a variance. The other end is not shortened, and skewness counts `UNSEEN_SKEWNESS` times.

In 2,000 simulations each of twelve populations the intervals hold the truth in 93.5 to 98.5 % (100 examples in batches
of 50), 93.3 to 97.7 % (100 in batches of 25) and 93.8 to 97.2 % (500 in batches of 64). The most have small CKA.
`UNSEEN_SKEWNESS` was chosen on five of the twelve, so these do not test it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from transferscope.analysis.intervals import unskewed

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

GROUPS = 512
"""Groups of examples that are left out; up to so many examples, each one alone."""
MIN_EXAMPLES = 50
"""Fewer examples have no interval: what they say of their own spread is too little."""
ABOVE_ZERO = 1e-9
WELL_BELOW = 0.6
"""Part of the upper end of an estimate of 0: below it no interval is expected to lie below the truth."""
UNSEEN_SKEWNESS = 1.6
"""Times by which skewness counts, of which samples of heavy tails show too little."""
SAME = 1e-9
"""Features whose CKA is nearer to 1 than this are the same up to rotation and scale: nothing varies."""
PAIRS_AT_ONCE = 64


@dataclass(frozen=True)
class Spread:
    """Numbers that decide the interval of each pair, (num_pairs,) each.

    variance: of CKA over examples. chance: variance of the CKA of features without anything in common. shift: d of the
    module's docstring. steepest: growth of the variance in the direction that varies most. df: degrees of freedom.
    lean: skewness of CKA over examples, as it counts. skewness: of the CKA of features without anything in common.
    """

    variance: Floats
    chance: Floats
    shift: Floats
    steepest: Floats
    df: Floats
    lean: Floats
    skewness: Floats

    def interval(self, values: Floats, confidence: float) -> tuple[Floats, Floats]:
        """Ends of the interval around estimates, (num_pairs,) each; NaN where nothing varies."""
        with np.errstate(invalid="ignore", divide="ignore"):
            one_sided, two_sided = (scipy.stats.t.ppf(level, self.df) for level in (confidence, (1 + confidence) / 2))
            high = self._high(values, np.maximum(two_sided, -unskewed(-two_sided, self.lean)))
            safe = WELL_BELOW * self._high(np.zeros_like(values), two_sided)
            low = self._low(values, self._longer(two_sided))
            low = np.where(low < safe, np.minimum(self._low(values, self._longer(one_sided)), safe), low)
            related = values > np.sqrt(self.chance) * scipy.stats.pearson3.ppf(confidence, self.skewness)
            low = np.maximum(low, np.where(related, ABOVE_ZERO, 0.0))
            known = 1 - values > SAME
        return np.where(known, np.minimum(low, values), np.nan), np.where(known, np.maximum(high, values), np.nan)

    def _longer(self, quantile: Floats) -> Floats:
        return np.maximum(quantile, unskewed(quantile, self.lean))

    def _low(self, values: Floats, quantile: Floats) -> Floats:
        inside = np.clip(values, 0.0, 1.0)
        error = self.variance / (4 * (1 - inside) ** 2) * _slope(inside, self.shift)
        return _from(_to(values, self.shift) - quantile * np.sqrt(error), self.shift)

    def _high(self, values: Floats, quantile: Floats) -> Floats:
        inside = np.clip(values, 0.0, 1.0)
        variance = np.where(values > 0, self.variance, self.chance)
        error = variance / (4 * (1 - inside) ** 2)
        growth = np.maximum(error * _slope(inside, self.shift), self.steepest)
        part = error / growth
        # The shift with which the variance at the estimate is what it is, and beyond it grows as fast.
        shift = (part - inside) / (1 - part)
        return np.clip(_from(_to(inside, shift) + quantile * np.sqrt(growth), shift), 0.0, 1.0)


def _slope(value: Floats, shift: Floats) -> Floats:
    """(1 + d) / (value + d), by which 4 (1 - value)^2 times the variance on the scale of `_to` is that of the value."""
    return (1 + shift) / (value + shift)


def _to(value: Floats, shift: Floats) -> Floats:
    return np.arctanh(np.sqrt(np.clip((value + shift) / (1 + shift), 0.0, 1.0)))


def _from(place: Floats, shift: Floats) -> Floats:
    return np.tanh(np.maximum(place, 0.0)) ** 2 * (1 + shift) - shift


class ExampleSpread:
    """Sums over batches from which the `Spread` of pairs of layers follows.

    Memory is `GROUPS` numbers for each layer and each pair, however many examples there are.
    """

    def __init__(self, num_units: int, first: Places, second: Places) -> None:
        """first, second: of every pair the places of its two layers among the units."""
        pairs = len(first)
        self._a, self._b = first, second
        self._num_examples, self._num_batches, self._squared_sizes = 0, 0, 0
        self._own, self._own_change, self._own_squares = (np.zeros(shape) for shape in _sizes(num_units))
        self._cross, self._change, self._squares = (np.zeros(shape) for shape in _sizes(pairs))
        self._first_squares, self._second_squares, self._norms, self._cubes = (np.zeros(pairs) for _ in range(4))
        self._powers = np.zeros((2, pairs))

    def update(self, stack: Tensor, norms: Tensor) -> None:
        """Add a batch: centred Gram matrices (num_units, n, n), squared norms of centred features (num_units, n)."""
        n = stack.shape[1]
        groups = (self._num_examples + np.arange(n)) % GROUPS
        self._num_examples += n
        self._num_batches += 1
        self._squared_sizes += n**2
        own = stack.square()
        self._add(own.sum(dim=2), groups, self._own, self._own_change, slice(None))
        self._own_squares += _numbers(own.square().sum(dim=(1, 2))) / (n - 3) ** 2
        for start in range(0, len(self._a), PAIRS_AT_ONCE):
            at = slice(start, start + PAIRS_AT_ONCE)
            a, b = (torch.as_tensor(side[at]).to(stack.device) for side in (self._a, self._b))
            self._add_pairs(stack[a] * stack[b], own[a], own[b], norms[a] * norms[b], groups, at)

    def _add_pairs(
        self, products: Tensor, first: Tensor, second: Tensor, norms: Tensor, groups: Places, at: slice
    ) -> None:
        n = products.shape[1]
        self._add(products.sum(dim=2), groups, self._cross, self._change, at)
        twice = products @ products
        four_times = twice @ twice
        sums = (products.square(), products * first, products * second, twice * products)
        square, with_first, with_second, cube = (_numbers(one.sum(dim=(1, 2))) for one in sums)
        fourth, eighth = (_numbers(one.square().sum(dim=(1, 2))) for one in (twice, four_times))
        self._squares[at] += square / (n - 3) ** 2
        self._first_squares[at] += with_first / (n - 3) ** 2
        self._second_squares[at] += with_second / (n - 3) ** 2
        self._norms[at] += _numbers(norms.sum(dim=1))
        self._cubes[at] += cube / (n - 3) ** 3
        self._powers[:, at] += fourth / n**2, eighth / n**6

    @staticmethod
    def _add(rows: Tensor, groups: Places, totals: Floats, changes: Floats, at: slice) -> None:
        """Add sums of products, and by how much they change without each example; rows: their sums by example."""
        n = rows.shape[1]
        of_rows = _numbers(rows)
        total = of_rows.sum(axis=1) / (n - 3)
        # Of four examples three are left, which have no unbiased estimate: the batch is left out.
        without = (of_rows.sum(axis=1)[:, None] - 2 * of_rows) / (n - 4) if n > 4 else 0.0
        totals[at] += total
        np.add.at(changes[at].T, groups, (without - total[:, None]).T)

    def of(self, places: Places, *, exact: bool) -> Spread | None:
        """The spread of some of the pairs; exact: of the estimate from all examples at once, not of the minibatch one.

        None for fewer than `MIN_EXAMPLES`. Values are NaN of features that do not vary.
        """
        n, groups = self._num_examples, min(self._num_examples, GROUPS)
        if n < MIN_EXAMPLES:
            return None
        a, b = self._a[places], self._b[places]
        part = self._squared_sizes / n**2
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.sqrt(self._own[a] * self._own[b])
            cka = self._cross[places] / scale
            variance, df, lean = self._jackknife(places, groups)
            of_pairs = self._variance_of_pairs(places, cka, scale)
            # All examples at once make n / batch size times as many pairs as batches do.
            chance = of_pairs * part if exact else of_pairs
            skewness = np.sqrt(8) * self._cubes[places] / self._squares[places] ** 1.5
            return Spread(
                variance=np.maximum(variance - 2 * of_pairs + chance, chance),
                chance=chance,
                shift=self._norms[places] / scale / (2 * n * (1 if exact else part)),
                steepest=(self._powers[1] / self._powers[0])[places] ** 0.25 / scale,
                df=df,
                lean=UNSEEN_SKEWNESS * lean,
                skewness=np.maximum(skewness * (np.sqrt(self._num_batches) if exact else 1), 1e-3),
            )

    def _jackknife(self, places: Places, groups: int) -> tuple[Floats, Floats, Floats]:
        """Variance of the minibatch estimate by leaving out each group, its degrees of freedom, and its skewness."""
        a, b = self._a[places], self._b[places]
        own = np.maximum(self._own[:, None] + self._own_change[:, :groups], 0.0)
        without = (self._cross[places, None] + self._change[places, :groups]) / np.sqrt(own[a] * own[b])
        apart = without - without.mean(axis=1, keepdims=True)
        squares = (apart**2).sum(axis=1)
        kurtosis = groups * (apart**4).sum(axis=1) / squares**2
        df = np.maximum(2 * groups / (np.maximum(kurtosis, 1.2) - 1), 2.5)
        # What an example contributes is what CKA lacks without it.
        return (groups - 1) / groups * squares, df, -(apart**3).sum(axis=1) / squares**1.5

    def _variance_of_pairs(self, places: Places, cka: Floats, scale: Floats) -> Floats:
        """The part of the variance of the minibatch estimate that belongs to pairs of examples."""
        a, b = self._a[places], self._b[places]
        of_a, of_b = -cka / (2 * self._own[a]), -cka / (2 * self._own[b])
        crossed, squares = self._squares[places], self._own_squares
        return 2 * np.asarray(
            crossed / scale**2
            + of_a**2 * squares[a]
            + of_b**2 * squares[b]
            + 2 * of_a * of_b * crossed  # (a's matrix)^2 (b's)^2 is the square of their product
            + 2 / scale * (of_a * self._first_squares[places] + of_b * self._second_squares[places])
        )


def _sizes(number: int) -> tuple[tuple[int, ...], ...]:
    return (number,), (number, GROUPS), (number,)


def _numbers(values: Tensor) -> Floats:
    return np.asarray(values.double().cpu().numpy())
