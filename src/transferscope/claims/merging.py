"""Verdicts on merges, merge by merge and as claims over runs (beyond the paper)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from transferscope.claims.comparisons import Comparison, Region, left_out
from transferscope.claims.evidence import CROSS_DOMAIN, Evidence
from transferscope.claims.inference import Estimate
from transferscope.claims.pair_rows import NORMAL_975
from transferscope.claims.registry import claim
from transferscope.claims.verdict import FAILS, HOLDS, UNKNOWN, judge
from transferscope.experiment.merges import MergeSpec
from transferscope.experiment.names import RunName
from transferscope.experiment.run import Role

PAYS = {HOLDS: "pays", FAILS: "does not pay", UNKNOWN: "cannot tell"}
"""Verdicts of single merges in the words of the claims' ones."""
BETTER: Region = (0.0, math.inf)
NEAR_UNION = 0.03
"""A merge that is no more than this behind a model trained on all images comes near it."""
_SOURCES = (
    "Wortsman et al. 2022, model soups (arXiv 2203.05482) and WiSE-FT (arXiv 2109.01903); Ilharco et al. 2023 "
    "(arXiv 2212.04089)"
)


def with_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `measure.merging.merge` with the column `verdict` behind the gain; empty of what is no merge.

    The rule is that of claims: a merge pays where the whole interval of its gain over the best candidate lies above 0,
    does not pay where all of it lies at 0 or below, and else one cannot tell. The interval is over test images, for
    these models as they are; the runs are not drawn again.
    """
    gain, low, high = (table[name].to_numpy(dtype=float) for name in ("gain", "gain_low", "gain_high"))
    se = (high - low) / (2 * NORMAL_975)
    judged = judge(Estimate(gain, se, np.full(len(gain), np.inf), low, high, se), BETTER)
    merged = table["kind"].to_numpy() == "merge"
    verdicts = [PAYS[str(one)] if is_merge else "" for one, is_merge in zip(judged, merged, strict=True)]
    place = list(table.columns).index("gain_high") + 1
    result = table.copy()
    result.insert(place, "verdict", verdicts)
    return result


@claim(
    "The average of P-T of two domains comes within 3 points of a P-T trained on both.",
    source=_SOURCES,
    paper=("none: the paper averages no models",),
    compares=f"test metric of the P-T trained on the union minus that of the uniform soup, mean over the domains; "
    f"claimed: below {NEAR_UNION:.0%}",
    unit="share",
    sides=("behind",),
    needs="merges of fine-tuned runs of several domains (analyses.merging), with a union of its own for each",
    place="pair of domains",
    section="merging",
)
def merge_near_union(evidence: Evidence) -> Iterator[Comparison]:
    yield from _soups(evidence, "fine_tuned", "behind_union", (-math.inf, NEAR_UNION))


@claim(
    "The average of P-T of two domains is better on both than the best of them.",
    source=_SOURCES,
    paper=("none: the paper averages no models",),
    compares="test metric of the uniform soup minus that of the best candidate, mean over domains; claimed: above 0",
    unit="share",
    sides=("gain",),
    needs="merges of fine-tuned runs of several domains (analyses.merging)",
    place="pair of domains",
    section="merging",
)
def merge_pays(evidence: Evidence) -> Iterator[Comparison]:
    yield from _soups(evidence, "fine_tuned", "gain", BETTER)


@claim(
    "The average of RI-T of two domains is worse on both than the best of them.",
    source=_SOURCES,
    paper=("none: the paper averages no models",),
    compares="test metric of the best candidate minus that of the uniform soup, mean over domains; claimed: above 0",
    unit="share",
    sides=("loss",),
    needs="merges of runs from scratch of several domains (analyses.merging)",
    place="pair of domains",
    section="merging",
)
def merge_of_rit_fails(evidence: Evidence) -> Iterator[Comparison]:
    yield from _soups(evidence, "from_scratch", "gain", BETTER, sign=-1)


def _soups(evidence: Evidence, role: Role, column: str, region: Region, sign: int = 1) -> Iterator[Comparison]:
    """A number of the uniform soup of each merge across tasks whose candidates all have a role.

    A model trained on all images is a draw of its own only where there are several; one alone is named in a note.
    """
    table = evidence.table(CROSS_DOMAIN, "merging")
    chosen = [
        spec
        for spec in evidence.plan.merges()
        if {evidence.plan.runs[name].role for name in spec.candidates} == {role}
        and len({evidence.plan.runs[name].task for name in spec.candidates}) > 1
        and spec.scope == CROSS_DOMAIN
        and (column != "behind_union" or spec.union is not None)
    ]
    unions = {spec.union for spec in chosen} if column == "behind_union" else set()
    for spec in chosen:
        if table.empty and not evidence.failures(map(RunName.parse, spec.candidates)):
            continue  # not run
        place, failed = " & ".join(spec.tasks), evidence.failures(map(RunName.parse, spec.candidates))
        if failed:
            yield from left_out(place, failed)
            continue
        rows = table[table["merge"] == spec.name] if len(table) else table
        made = _comparison(place, spec, rows, column, region, sign)
        if made.counted and len(unions) > 1 and spec.union is not None:
            made = replace(made, runs=made.runs | {RunName.parse(spec.union)})
        elif made.counted and unions:
            made = replace(made, note=f"against {spec.union} alone")
        yield made


def _comparison(place: str, spec: MergeSpec, rows: pd.DataFrame, column: str, region: Region, sign: int) -> Comparison:
    """The number of a merge whose candidates have all learned."""
    chosen = rows[(rows["model"] == "uniform") & (rows["task"] == "all")] if len(rows) else rows
    if chosen.empty or not math.isfinite(float(chosen[column].iloc[0])):
        return Comparison(place, spec.name, counted=False, note="no uniform soup that was judged on all tasks")
    row = chosen.iloc[0]
    value = sign * float(row[column])
    return Comparison(
        place=place,
        unit=spec.name,
        first=value,
        effect=value,
        region=region,
        metric=str(row["metric"]),
        runs=frozenset(map(RunName.parse, spec.candidates)),
        error=float(row[f"{column}_high"] - row[f"{column}_low"]) / (2 * NORMAL_975),
    )
