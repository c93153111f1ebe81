"""The barrier between two models in one test metric, held against the claims' margin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from transferscope.analysis.barriers import LOWER_TAIL
from transferscope.answers.answer import NO, UNKNOWN, YES
from transferscope.answers.compared import Compared, Pair
from transferscope.answers.rule import LEVEL, among, decide, images_that_decide, ranged
from transferscope.answers.wording import at_most, point_range, points, tiny
from transferscope.experiment.options import BARRIER_MARGIN
from transferscope.tables import formats

OF_LEARNED = f"{100 * BARRIER_MARGIN:.0f} % of what both score above guessing"

POWERS_FROM = 9
"""So many decimals are not read; a loss is then printed with powers of ten."""


@dataclass(frozen=True)
class Height:
    """A barrier with its interval, and the margin up to which it is none."""

    metric: str
    """`accuracy`, `AUC` or `loss`."""
    value: float
    low: float
    high: float
    margin: float
    num_examples: float
    unknown: str = ""
    """The reason that it cannot be held against the margin; empty where it can."""

    @property
    def verdict(self) -> str:
        """`yes`: below the margin; `no`: above it; else `cannot tell`."""
        return UNKNOWN if self.unknown else decide(self.value, self.low, self.high, (-math.inf, self.margin))

    @property
    def shown(self) -> str:
        """`1.0 points (0.2 to 1.8) of test accuracy`, `0.014 (0.007 to 0.022) of test loss`."""
        if self.metric != "loss":
            return f"{points(self.value)}{point_range(self.low, self.high)} of test {self.metric}"
        ends = f" ({self._loss(self.low)} to {self._loss(self.high)})" if math.isfinite(self.low) else ""
        return f"{self._loss(self.value)}{ends} of test loss"

    def _loss(self, value: float) -> str:
        """With the decimals that show three digits of the margin, three at least; powers of ten from `POWERS_FROM`."""
        digits = max(3, 2 - math.floor(math.log10(self.margin))) if self.margin > 0 else 3
        if digits >= POWERS_FROM:
            return formats.significant(value, 3)
        text = formats.decimals(value, digits)
        return text if text.strip("-0.") else tiny(value)

    @property
    def against_margin(self) -> str:
        """The barrier and on which side of the margin it lies, or why that is not known."""
        if self.unknown:
            return f"not known of test {self.metric}, since {self.unknown}"
        if self.metric != "loss":
            margin = f"the margin of {points(self.margin)} ({OF_LEARNED})"
        else:
            margin = f"its margin of {self._loss(self.margin)}"
        where = {YES: f"less than {margin}", NO: f"more than {margin}"}
        if self.value < 0 and self.verdict == YES:
            return f"not found in test {self.metric} ({self._none})"
        return f"{self.shown}, {where.get(self.verdict, f'and {margin} lies in that interval')}"

    @property
    def _none(self) -> str:
        """The most that a barrier below 0 may be by its interval."""
        if self.high <= 0:
            return "its whole interval lies below 0"
        if self.metric == "loss":
            return f"by its interval at most {self._loss(self.high)}, less than its margin of {self._loss(self.margin)}"
        return f"by its interval {at_most(self.high)}; the margin is {points(self.margin)}, {OF_LEARNED}"

    def images_needed(self, power: float) -> float:
        """Test images of which a share `power` of all sets would decide it, NaN where that is not known."""
        return images_that_decide(self.value, self.low, self.high, self.margin, self.num_examples, power=power)


def height(compared: Compared, pair: Pair, metric: str, number: int) -> Height:
    """The barrier of a pair in a metric, `accuracy`, `auc` or `loss`.

    number: of pairs and tasks about which verdicts are given at once. A barrier in either metric is enough for *no*,
    so lower ends hold for both metrics of all of them at once, from the error that they begin with
    (`barriers.LOWER_TAIL`). *Yes* takes both upper ends, which hold for all of them in one metric.
    """
    name = "AUC" if metric == "auc" else metric
    margin = compared.margin(pair, metric)
    rows = compared.main_rows("barriers", pair, metric=metric)
    if rows.empty:
        return Height(name, math.nan, math.nan, math.nan, margin, math.nan, f"its {name} was not measured")
    row = rows.to_dict("records")[0]
    measured = ranged(row, "barrier")
    value, _, high = among(measured, number)
    _, low, _ = among(measured, 2 * number, level=2 * LEVEL * LOWER_TAIL)
    unknown = ""
    if not math.isfinite(value):
        unknown = f"test {name} is not finite somewhere on the line between them"
    elif math.isnan(low):
        unknown = "the barrier has no interval without resamples (analyses.landscape.resamples)"
    elif math.isnan(margin):
        unknown = "what they have learned above guessing is not known"
    elif compared.tasks[pair.task].chance >= 1:
        unknown = "all test images are of one class, so that nothing can be learned above guessing"
    elif not margin > 0:
        unknown = f"they are no better than guessing{' by their loss' if metric == 'loss' else ''}"
    return Height(name, value, low, high, margin, float(row["num_examples"]), unknown)
