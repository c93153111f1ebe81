"""Every registered claim, decided from the tables of all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from transferscope.claims.comparisons import Comparison, effects_table
from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.claims.registry import Claim, registered
from transferscope.claims.verdict import decide
from transferscope.experiment.plan import Plan

COLUMNS = (
    "id", "claim", "source", "paper", "verdict", "effect", "smallest", "largest", "unit", "num_runs",
    "num_comparisons", "reason", "compares",
)  # fmt: skip


def decide_claims(plan: Plan, results: Mapping[str, TaskResults]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decide every claim by `verdict.RULE` from the tables alone.

    Args:
        plan: gives each run its role.
        results: by task, and `cross_domain`.

    Returns:
        Two tables. The first has a row per claim: id, claim (its text), source, paper (the paper's figures), verdict,
        effect (mean over the comparisons), smallest and largest (their range), unit of these three numbers, num_runs,
        num_comparisons, reason (of the verdict, with what was left out), compares (what one comparison is).
        The second has a row per comparison: the claim's id and `comparisons.EFFECT_COLUMNS`.
    """
    evidence = Evidence(plan, results)
    rows, effects = [], []
    for claim in registered(plan.study.report.claims).values():
        comparisons = list(claim.measure(evidence))
        rows.append(_row(claim, comparisons))
        effects.append(effects_table(comparisons).assign(id=claim.id))
    table = pd.concat([part for part in effects if len(part)] or effects[:1], ignore_index=True)
    return pd.DataFrame(rows, columns=list(COLUMNS)), table[["id", *table.columns.drop("id")]]


def _row(claim: Claim, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    counted = [one for one in comparisons if one.counted]
    verdict = decide(comparisons)
    reason = verdict.reason if comparisons else f"not run: needs {claim.needs}"
    return {
        "id": claim.id,
        "claim": claim.text,
        "source": claim.source,
        "paper": "; ".join(claim.paper),
        "verdict": verdict.verdict,
        "effect": verdict.effect,
        "smallest": verdict.smallest,
        "largest": verdict.largest,
        "unit": claim.unit,
        "num_runs": len({run for one in counted for run in one.runs}),
        "num_comparisons": len(counted),
        "reason": "; ".join([reason, *remarks([(one.unit, one.counted, one.note) for one in comparisons])]),
        "compares": claim.compares,
    }


def remarks(comparisons: Sequence[tuple[str, bool, str]]) -> list[str]:
    """Units that were left out with the reason, then what others stand for; of (unit, counted, note) each."""
    left_out = dict.fromkeys(f"{unit} ({note})" for unit, counted, note in comparisons if not counted)
    notes = dict.fromkeys(note for _, counted, note in comparisons if counted and note)
    return [*([f"left out: {', '.join(left_out)}"] if left_out else []), *notes]
