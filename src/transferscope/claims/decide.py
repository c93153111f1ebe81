"""Every registered claim, decided from the tables of all tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from transferscope.claims.comparisons import Comparison, effects_table
from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.claims.registry import Claim, NumberUnit, registered
from transferscope.claims.verdict import UNKNOWN, decide, holm
from transferscope.experiment.plan import Plan
from transferscope.tables import formats

COLUMNS = (
    "id", "claim", "source", "paper", "verdict", "effect", "low", "high", "unit", "num_runs", "num_comparisons",
    "reason", "would_tell", "covers", "p", "corrected", "compares", "unfinished",
)  # fmt: skip


def decide_claims(plan: Plan, results: Mapping[str, TaskResults]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decide every claim by `verdict.RULE` from the tables alone.

    Args:
        plan: gives each run its role. Of one that compares checkpoint files the claims that are about them are decided.
        results: by task, and `cross_domain`.

    Returns:
        Two tables. The first has a row per claim: id, claim (its text), source, paper (the paper's figures), verdict,
        effect (mean over tasks of the mean over the comparisons), low and high (its 95 % interval; NaN where nothing is
        repeated), unit of these three numbers, num_runs, num_comparisons, reason (of the verdict, with what was left
        out), would_tell (how large a study or an effect it takes, where the claim is not decided), covers (to which
        other studies the interval reaches), p (two-sided, against the nearer end of what is claimed), corrected (the
        verdict after Holm's correction for the number of claims), compares (what one comparison is), unfinished (runs
        in it that were not trained to the end, with the points of the train metric that they still gained per epoch).
        The second has a row per comparison: the claim's id and `comparisons.EFFECT_COLUMNS`.
    """
    evidence = Evidence(plan, results)
    rows, effects = [], []
    for claim in registered(plan.study.report.claims).values():
        comparisons = list(claim.measure(evidence))
        if plan.compares_files and not comparisons:
            continue  # a claim about kinds of runs that files are none of
        rows.append(_row(claim, comparisons, evidence))
        effects.append(effects_table(comparisons).assign(id=claim.id))
    nothing = effects_table([]).assign(id="")
    table = pd.concat([part for part in effects if len(part)] or [nothing], ignore_index=True)
    claims = pd.DataFrame(rows, columns=list(COLUMNS))
    kept = holm(claims["p"].to_numpy(dtype=float))
    claims["corrected"] = claims["verdict"].where(kept, UNKNOWN)
    return claims, table[["id", *table.columns.drop("id")]]


def _row(claim: Claim, comparisons: Sequence[Comparison], evidence: Evidence) -> dict[str, Any]:
    counted = [one for one in comparisons if one.counted]
    runs = {run for one in counted for run in one.runs}
    verdict = decide(
        comparisons, evidence.kinship(), size_of(claim.unit), over=claim.over, limits=claim.limits, place=claim.place
    )
    reason = verdict.reason if comparisons else f"not run: needs {claim.needs}"
    would = verdict.would_tell if counted else claim.needs
    return {
        "id": claim.id,
        "claim": claim.text,
        "source": claim.source,
        "paper": "; ".join(claim.paper),
        "verdict": verdict.verdict,
        "effect": verdict.effect,
        "low": verdict.low,
        "high": verdict.high,
        "unit": claim.unit,
        "num_runs": len(runs),
        "num_comparisons": len(counted),
        "reason": "; ".join([reason, *remarks([(one.unit, one.counted, one.note) for one in comparisons])]),
        "would_tell": would,
        "covers": verdict.covers,
        "p": verdict.p,
        "compares": claim.compares,
        "unfinished": evidence.unfinished(runs),
    }


def size_of(unit: NumberUnit) -> Callable[[float], str]:
    """Format for the size of an effect: points, or a number."""
    if unit == "coefficient":
        return "{:.3f}".format
    if unit == "number":
        return lambda value: formats.significant(value, 3)
    return lambda value: "less than 0.1 points" if 0 < value < 0.0005 else f"{formats.points(value)} points"


def remarks(comparisons: Sequence[tuple[str, bool, str]]) -> list[str]:
    """Units that were left out with the reason, then what others stand for; of (unit, counted, note) each."""
    left_out = dict.fromkeys(f"{unit} ({note})" for unit, counted, note in comparisons if not counted)
    notes = dict.fromkeys(note for _, counted, note in comparisons if counted and note)
    return [*([f"left out: {', '.join(left_out)}"] if left_out else []), *notes]
