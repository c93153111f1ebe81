"""Rows of the claims table in words: numbers with their units, the effect, the reason of the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from transferscope.answers.wording import listed
from transferscope.claims.decide import remarks
from transferscope.claims.registry import Claim
from transferscope.claims.verdict import FAILS, HOLDS, UNKNOWN
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import Role
from transferscope.system.errors import UserError
from transferscope.tables import formats
from transferscope.tables.formats import Format

MARKS = {HOLDS: ("✓", "holds"), FAILS: ("✗", "fails"), UNKNOWN: ("?", "unknown")}
"""Sign and style class of each verdict."""

PLURALS = {
    "comparison": "comparisons", "value": "values", "task": "tasks", "pair of domains": "pairs of domains",
    "set of domains": "sets of domains",
}  # fmt: skip


@dataclass(frozen=True)
class ClaimView:
    """A row of the claims table.

    ours: means, an item per place. effect: with its interval, and over how much. why: the verdict in at most two
    sentences, with what was left out and which runs were not trained to the end.
    """

    claim: Claim
    verdict: str
    reason: str
    ours: list[str]
    effect: str
    why: str

    @property
    def sides(self) -> str:
        return " | ".join(self.claim.sides)

    @property
    def mark(self) -> str:
        return MARKS[self.verdict][0]

    @property
    def style(self) -> str:
        return MARKS[self.verdict][1]


def claim_views(claims: pd.DataFrame, effects: pd.DataFrame, known: Mapping[str, Claim]) -> list[ClaimView]:
    """The rows of `decide_claims`, with numbers as the page prints them.

    Raises:
        UserError: a claim is not registered here.
    """
    unknown = [name for name in claims["id"] if name not in known]
    if unknown:
        raise UserError(f"claims: {', '.join(unknown)} is not registered; name its module in report.claims")
    return [
        _claim_view(known[row["id"]], row, effects[effects["id"] == row["id"]]) for row in claims.to_dict("records")
    ]


def _claim_view(claim: Claim, row: Mapping[Any, Any], effects: pd.DataFrame) -> ClaimView:
    effects = effects.fillna({"note": ""})
    counted = effects[effects["counted"].astype(bool)]
    places = counted.groupby("place", sort=False)
    ours = [" | ".join([f"{place} {_mean(claim, part, 'first')}", *_second(claim, part)]) for place, part in places]
    notes = remarks(list(effects[["unit", "counted", "note"]].itertuples(index=False, name=None)))
    effect = _effect(claim, row, differences=bool(counted["second"].notna().any()), places=len(places)) if ours else ""
    return ClaimView(claim, str(row["verdict"]), str(row["reason"]), ours, effect, _why(row, "; ".join(notes)))


def _why(row: Mapping[Any, Any], left_out: str) -> str:
    """Give the verdict's reason in at most two sentences, the second on the study that would decide it.

    left_out: End of the reason, about what was left out.
    """
    covers, unfinished, would_tell = (
        str(row[name]) if isinstance(row[name], str) else "" for name in ("covers", "unfinished", "would_tell")
    )
    reason = str(row["reason"]).removesuffix(left_out).removesuffix("; ") + (f", for {covers}" if covers else "")
    rising = f"not trained to the end are {unfinished}" if unfinished else ""
    first = "; ".join(filter(None, (reason, rising, left_out)))
    if row["verdict"] != UNKNOWN or not would_tell or reason.startswith("not run"):
        return _sentence(first)
    return f"{_sentence(first)} {_sentence(would_tell if ': ' in would_tell else f'to tell: {would_tell}')}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _mean(claim: Claim, part: pd.DataFrame, side: str) -> str:
    show: dict[str, Format] = {
        "score": formats.score(str(part["metric"].iloc[0])),
        "points": lambda value: f"{formats.points(value)} points",
        "share": formats.percent,
        "number": formats.significant,
        "coefficient": formats.decimals,
    }
    return show[claim.unit](float(part[side].mean()))


def _second(claim: Claim, part: pd.DataFrame) -> list[str]:
    return [_mean(claim, part, "second")] if part["second"].notna().any() else []


def _effect(claim: Claim, row: Mapping[Any, Any], *, differences: bool, places: int) -> str:
    """`+13.1 points [+10.3, +16.0] (16 comparisons, 4 tasks)`: signs of differences, none where there is a bound."""
    show = _shown(claim, differences)
    low, high = show(float(row["low"])), show(float(row["high"]))
    interval = ", no interval" if formats.MISSING in (low, high) else f" [{low}, {high}]"
    unit = " points" if claim.unit in ("score", "points", "share") else ""
    counts = _count("comparison" if differences else "value", int(row["num_comparisons"])), _count(claim.place, places)
    return f"{show(float(row['effect']))}{unit}{interval} ({', '.join(counts)})"


def _shown(claim: Claim, sign: bool) -> Format:
    if claim.unit == "coefficient":
        return lambda value: f"{value:{'+' if sign else ''}.3f}" if math.isfinite(value) else formats.MISSING
    if claim.unit == "number":
        return lambda value: formats.significant(value, 3, sign=sign)
    return lambda value: formats.points(value, sign=sign)


def _count(word: str, number: int) -> str:
    return f"{number} {word if number == 1 else PLURALS[word]}"


def whole_table(claims: pd.DataFrame) -> str:
    """Say how many verdicts may be false by chance, with and without correction, and how to read unfinished runs."""
    tested, decided = int(claims["p"].notna().sum()), claims[claims["verdict"] != UNKNOWN]
    rising = claims["unfinished"].fillna("").astype(bool).any()
    note = (
        " Of runs that were not trained to the end the brackets hold the points of the train metric that they still "
        "gained per epoch when they were stopped: the effect is partly one of how far training had come."
    )
    if not tested:
        return note.strip() if rising else ""
    kept = int((decided["corrected"] != UNKNOWN).sum())
    return (
        f"Each of the {tested} claims with an interval has a chance of at most 5 % of a false verdict, so in studies "
        f"like this one at most {tested / 20:.1f} are false on average, and at least one with a chance of "
        f"{100 * (1 - 0.95**tested):.0f} % if they were independent; {len(decided)} are decided. "
        f"After Holm's correction, with a chance of 5 % of any false verdict in the whole table, {kept} stay decided "
        "(column corrected of claims.csv)." + (note if rising else "")
    )


ROLES: Mapping[Role, str] = {
    "fine_tuned": "fine-tuned runs", "from_scratch": "runs from scratch", "shared_init": "runs that share their start",
}  # fmt: skip
"""Roles of which claims compare one kind, in words."""


def compared_kinds(plan: Plan) -> str:
    """Name the kinds that claims compare, and those of the same roles that figures alone show; empty without such."""
    parts = []
    for role, words in ROLES.items():
        compared = {run.kind: run.label for task in plan.targets() for run in plan.compared(task, role)}
        others: dict[str, str] = {}
        for task in plan.targets():
            for run in plan.left_out(task, role):
                others[run.kind] = f"{run.label} on {task}" if run.kind in compared else run.label
        if others:
            parts.append(f"of the {words} {_labels(compared)} and not {_labels(others)}")
    if not parts:
        return ""
    return (
        f"The claims compare {'; '.join(parts)}. Kinds that are not compared stand in figures, and in the claims on "
        "learning rates; `compared: true` of a kind chooses it."
    )


def _labels(kinds: Mapping[str, str]) -> str:
    return listed(list(dict.fromkeys(kinds.values())))
