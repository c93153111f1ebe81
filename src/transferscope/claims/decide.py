"""The study's claims: where the paper makes them, its figures, and what the tables say, by `rules.RULE`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.claims.landscape_claims import LANDSCAPE_CLAIMS
from transferscope.claims.model_claims import MODEL_CLAIMS, SPECTRUM_CLAIMS
from transferscope.claims.results import TaskResults
from transferscope.claims.rules import Claim, decide, say_interval, say_ours

COLUMNS = ("claim", "source", "paper", "ours", "interval", "verdict", "rule", "num_effects", "id")
CLAIMS = (*MODEL_CLAIMS, *LANDSCAPE_CLAIMS, *SPECTRUM_CLAIMS)
"""In the order of the appendix."""


def decide_claims(study: Mapping[str, Any], results: Mapping[str, TaskResults]) -> pd.DataFrame:
    """A row per claim, decided by `rules.RULE` from the tables alone.

    study: the parameters (only which tasks are unions is read). results: by task, and `cross_domain`.
    Columns: claim, source, paper, ours (means by task), interval (range over comparisons), verdict, then
    rule (what one comparison is), num_effects (how many), id.
    """
    evidence = Evidence(study, results)
    return pd.DataFrame([_decide(claim, evidence) for claim in CLAIMS], columns=list(COLUMNS))


def _decide(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    evidence.left_out.clear()
    evidence.worst.clear()
    found = claim.measure(evidence)
    return {
        "claim": claim.claim,
        "source": claim.source,
        "paper": claim.paper,
        "ours": say_ours(found, claim.unit, claim.sides) or f"not run: needs {claim.needs}",
        "interval": say_interval(found, claim.unit, list(evidence.left_out), list(evidence.worst)),
        "verdict": decide(found),
        "rule": claim.effect,
        "num_effects": len(found),
        "id": claim.id,
    }
