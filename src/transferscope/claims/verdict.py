"""The rule by which comparisons decide a claim. Nothing else knows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from transferscope.claims.comparisons import Comparison

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot tell"
MIN_COMPARISONS = 2

RULE = (
    "holds: the effect has the claimed sign in every comparison of every task (or scenario), and there are at "
    "least two; "
    "does not hold: the mean effect has the opposite sign in more than half of the tasks (with at least two "
    "comparisons); "
    "cannot tell: anything else, also where the plan did not run what the claim needs. "
    "Runs that have not learned are left out of comparisons of mistakes, features, weights and landscapes. "
    "The final metric and the speed of a run that diverged count as 0."
)


@dataclass(frozen=True)
class Verdict:
    """The verdict in words, the mean effect with its range over comparisons, and the reason.

    The effect is the difference where two kinds are compared, positive as claimed, and the measured number where there
    is a bound. NaN without comparisons.
    """

    verdict: str
    effect: float
    smallest: float
    largest: float
    reason: str


def decide(comparisons: Sequence[Comparison]) -> Verdict:
    """Decide a claim by `RULE`; what was left out does not count."""
    counted = [one for one in comparisons if one.counted]
    if not counted:
        return Verdict(UNKNOWN, math.nan, math.nan, math.nan, "nothing to compare")
    numbers = [one.first if math.isnan(one.second) else one.value for one in counted]
    verdict, reason = _by_sign(counted)
    return Verdict(verdict, math.fsum(numbers) / len(numbers), min(numbers), max(numbers), reason)


def _by_sign(counted: Sequence[Comparison]) -> tuple[str, str]:
    places: dict[str, list[float]] = {}
    for one in counted:
        places.setdefault(one.place, []).append(one.value)
    favourable = sum(one.value > 0 for one in counted)
    against = sum(math.fsum(values) < 0 for values in places.values())
    if len(counted) < MIN_COMPARISONS:
        return UNKNOWN, f"one comparison, {MIN_COMPARISONS} are needed"
    if favourable == len(counted):
        return HOLDS, f"as claimed in all {favourable} comparisons"
    if 2 * against > len(places):
        return FAILS, f"on average against the claim in {against} of {len(places)} tasks or scenarios"
    return UNKNOWN, f"as claimed in {favourable} of {len(counted)} comparisons"
