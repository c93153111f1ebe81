"""The rows that a claim returns: a comparison each, also those that were left out, with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from transferscope.experiment.names import PairName, RunName

Unit = RunName | PairName
"""A number is measured on a run or on a pair of checkpoints."""

Region = tuple[float, float]
"""Range of the effect if the claim is true, both ends excluded: (0, inf) of a difference."""

Place = Literal["task", "pair of domains", "set of domains"]
"""The kind of place that a claim's comparisons have."""

EFFECT_COLUMNS = ("place", "unit", "first", "second", "value", "metric", "counted", "note", "error")


@dataclass(frozen=True)
class Measured:
    """A number for each run, or for each pair, of one kind.

    left_out: units without a number, with the reason. notes: units whose number stands for something that could not be
    measured, with what it stands for. errors: standard errors of the numbers over what they are measured on, such as
    test images, where they are known.
    """

    values: Mapping[Unit, float]
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[Unit, str] = field(default_factory=dict)
    errors: Mapping[Unit, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One measurement that bears on a claim, or one that was left out of it.

    value: how far the number lies inside the region that is claimed, negative outside. first, second: the two numbers
    that are compared; second is NaN where a number is held against a fixed bound. effect: the number that is estimated,
    a difference (positive as claimed) or the number itself; region: where it lies if the claim is true. place: task or
    scenario. unit: the runs or pairs compared, as text, and `runs` the runs in it. error: standard error of the effect
    over test images, NaN where it is not known. counted: False of what was left out, and `note` says why; of what
    counts, what it stands for.
    """

    place: str
    unit: str
    first: float = math.nan
    second: float = math.nan
    effect: float = math.nan
    region: Region = (0.0, math.inf)
    metric: str = "accuracy"
    counted: bool = True
    note: str = ""
    runs: frozenset[RunName] = frozenset()
    error: float = math.nan

    @property
    def value(self) -> float:
        return min(self.effect - self.region[0], self.region[1] - self.effect)


def compare(
    place: str,
    first: Measured,
    second: Measured,
    *,
    larger: bool = True,
    within: float | None = None,
    metric: str = "accuracy",
) -> list[Comparison]:
    """Every run (or pair) of the first kind against every one of the second; claimed: the first is larger (smaller).

    within: claimed is instead that both are alike, their difference smaller than this.
    """
    region = (0.0, math.inf) if within is None else (-within, within)
    couples = [(a, b) for a in first.values for b in second.values if a != b]
    made = [_difference(place, f"{a} : {b}", a, b, first, second, larger, region, metric) for a, b in couples]
    return [one for one in made if math.isfinite(one.effect)] + _left_out(place, first, second)


def paired(
    place: str, first: Measured, second: Measured, *, larger: bool = True, metric: str = "accuracy"
) -> list[Comparison]:
    """Two numbers of the same run (or pair), for every one that has both; claimed: the first is larger (smaller)."""
    units = [unit for unit in first.values if unit in second.values]
    region = (0.0, math.inf)
    made = [_difference(place, str(unit), unit, unit, first, second, larger, region, metric) for unit in units]
    return [one for one in made if math.isfinite(one.effect)] + _left_out(place, first, second)


def _difference(
    place: str,
    text: str,
    a: Unit,
    b: Unit,
    first: Measured,
    second: Measured,
    larger: bool,
    region: Region,
    metric: str,
) -> Comparison:
    x, y = first.values[a], second.values[b]
    return Comparison(
        place=place,
        unit=text,
        first=x,
        second=y,
        effect=x - y if larger else y - x,
        region=region,
        metric=metric,
        note="; ".join(note for note in (first.notes.get(a), second.notes.get(b)) if note),
        runs=frozenset((*a.runs, *b.runs)),
        # Two models err on the same images, mostly together, so this is not too small.
        error=math.hypot(first.errors.get(a, math.nan), second.errors.get(b, math.nan)),
    )


def against(place: str, measured: Measured, bound: float, *, above: bool, metric: str = "accuracy") -> list[Comparison]:
    """Every value against a fixed bound; claimed: it lies above (below)."""
    made = [
        Comparison(
            place=place,
            unit=str(unit),
            first=x,
            effect=x,
            region=(bound, math.inf) if above else (-math.inf, bound),
            metric=metric,
            note=measured.notes.get(unit, ""),
            runs=frozenset(unit.runs),
            error=measured.errors.get(unit, math.nan),
        )
        for unit, x in measured.values.items()
        if math.isfinite(x)
    ]
    return made + _left_out(place, measured)


def left_out(place: str, reasons: Mapping[str, str]) -> list[Comparison]:
    """Units that are not compared, with the reason."""
    return [Comparison(place=place, unit=unit, counted=False, note=note) for unit, note in reasons.items()]


def _left_out(place: str, *measured: Measured) -> list[Comparison]:
    reasons: dict[str, str] = {}
    for one in measured:
        reasons |= one.left_out
        reasons |= {str(unit): "no finite value" for unit, value in one.values.items() if not math.isfinite(value)}
    return left_out(place, reasons)


def effects_table(comparisons: list[Comparison]) -> pd.DataFrame:
    """A row per comparison: `EFFECT_COLUMNS`."""
    rows = [[getattr(comparison, name) for name in EFFECT_COLUMNS] for comparison in comparisons]
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))
