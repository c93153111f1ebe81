"""The rule by which a claim is decided, and how its evidence is put in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from transferscope.claims.evidence import Effect, Evidence
from transferscope.tables import formats

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot tell"
MIN_UNITS = 2

RULE = (
    "holds: the effect has the claimed sign in every comparison of every task (or scenario), and there are at "
    "least two; "
    "does not hold: the mean effect has the opposite sign in more than half of the tasks (with at least two "
    "comparisons); "
    "cannot tell: anything else, also where the plan did not run what the claim needs. "
    "Runs that have not learned are left out of comparisons of mistakes, features, weights and landscapes. "
    "The final metric and the speed of a run that diverged count as 0."
)

Unit = Literal["score", "points", "share", "number", "cka"]
"""score: a test metric; points: hundredths of one; share: a fraction; number: of any size; cka: three decimals."""

BETWEEN_RUNS = "every P-T against every RI-T of a task"
BETWEEN_PAIRS = "every pair of the one kind against every pair of the other"
"""How runs or pairs of two kinds are compared, in words."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and how it is measured.

    effect: what one comparison is, in words (goes into the column `rule`); sides: what the numbers of `ours` are;
    needs: what the plan must run; section: where the report shows more.
    """

    id: str
    claim: str
    source: str
    paper: str
    measure: Callable[[Evidence], list[Effect]]
    effect: str
    unit: Unit
    sides: tuple[str, ...]
    needs: str
    section: str


def decide(effects: Sequence[Effect]) -> str:
    """`holds`, `does not hold` or `cannot tell` (`RULE`)."""
    if len(effects) < MIN_UNITS:
        return UNKNOWN
    if all(effect.value > 0 for effect in effects):
        return HOLDS
    places = by_place(effects)
    against = sum(float(np.mean([effect.value for effect in part])) < 0 for part in places.values())
    return FAILS if 2 * against > len(places) else UNKNOWN


def by_place(effects: Sequence[Effect]) -> dict[str, list[Effect]]:
    """Effects of each task or scenario, in order of appearance."""
    places: dict[str, list[Effect]] = {}
    for effect in effects:
        places.setdefault(effect.place, []).append(effect)
    return places


def say_ours(effects: Sequence[Effect], unit: Unit, sides: tuple[str, ...]) -> str:
    """Means by task: `P-T | RI-T: real 96.0 % | 91.2 %; clipart 99.1 % | 95.0 %`."""
    parts = []
    for place, part in by_place(effects).items():
        say = _formatter(unit, part[0].metric)
        first = say(float(np.mean([effect.first for effect in part])))
        seconds = [effect.second for effect in part if effect.second is not None]
        second = f" | {say(float(np.mean(seconds)))}" if seconds else ""
        parts.append(f"{place} {first}{second}")
    return f"{' | '.join(sides)}: {'; '.join(parts)}" if parts else ""


def say_interval(
    effects: Sequence[Effect], unit: Unit, left_out: Sequence[str] = (), diverged: Sequence[str] = ()
) -> str:
    """Smallest and largest value over all comparisons, and how many there are; a range, no confidence interval.

    Of differences where two kinds are compared (positive: as claimed), of the measured value where there is a bound.
    """
    runs = [f"left out: {', '.join(left_out)}"] if left_out else []
    runs += [f"diverged, counted as 0: {', '.join(diverged)}"] if diverged else []
    if not effects:
        return "; ".join(runs)
    differences = effects[0].second is not None
    values = [effect.value if differences else effect.first for effect in effects]
    low, high = min(values), max(values)
    if unit in ("score", "points", "share"):
        text = f"{formats.points(low, sign=differences)} to {formats.points(high, sign=differences)} points"
    elif unit == "cka":
        text = f"{low:{'+' if differences else ''}.3f} to {high:{'+' if differences else ''}.3f}"
    else:
        text = f"{formats.significant(low, 3, sign=differences)} to {formats.significant(high, 3, sign=differences)}"
    places = len(by_place(effects))
    count = f"{len(effects)} {_plural('comparison' if differences else 'value', len(effects))}"
    return "; ".join([f"{text} ({count}, {places} {_plural(_place_word(effects), places)})", *runs])


def _place_word(effects: Sequence[Effect]) -> str:
    place = effects[0].place
    return "scenario" if place.startswith("Figure") else "pair of domains" if " on " in place else "task"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s" if " " not in word else "pairs of domains"


def _formatter(unit: Unit, metric: str) -> Callable[[float], str]:
    return {
        "score": lambda value: formats.score(value, metric),
        "points": lambda value: f"{formats.points(value)} points",
        "share": formats.percent,
        "number": lambda value: formats.significant(value, 4),
        "cka": formats.decimals,
    }[unit]
