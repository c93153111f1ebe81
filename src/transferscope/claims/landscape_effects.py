"""From tables to effects: barriers, extrapolation, cross-domain, criticality (appendix B.4 to B.9)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from transferscope.claims.evidence import (
    CROSS_DOMAIN,
    Effect,
    Evidence,
    against_bound,
    by_pair,
    compare,
    full_name,
    main_metric,
)

NO_BARRIER = 0.02
"""A curve that falls less than this below the chord of its ends, in accuracy or AUC, has no barrier."""
BARRIER = 0.05
"""A curve that falls more than this below the chord has one; what lies between is neither."""
OUTSIDE_DROP = 0.02
"""A pair is at the basin's boundary if the metric falls by more than this one whole step beyond each end."""


def no_barrier_between_pt(evidence: Evidence) -> list[Effect]:
    return _barriers(evidence, "P-T & P-T", NO_BARRIER, above=False)


def barrier_between_rit(evidence: Evidence) -> list[Effect]:
    return _barriers(evidence, "RI-T & RI-T", BARRIER, above=True)


def barrier_same_init(evidence: Evidence) -> list[Effect]:
    return _barriers(evidence, "RI-T & RI-T same init", BARRIER, above=True)


def barrier_mixed(evidence: Evidence) -> list[Effect]:
    return _barriers(evidence, "P-T & RI-T", BARRIER, above=True)


def same_init_is_smaller(evidence: Evidence) -> list[Effect]:
    """Barrier of every RI-T pair with one initialisation against every pair with two."""
    found: list[Effect] = []
    for task in evidence.tasks:
        same, different = (barriers(evidence, task, kind) for kind in ("RI-T & RI-T same init", "RI-T & RI-T"))
        found += compare(task, _heights(same), _heights(different), larger=False)
    return found


def _barriers(evidence: Evidence, pair_kind: str, bound: float, *, above: bool) -> list[Effect]:
    found: list[Effect] = []
    for task in evidence.tasks:
        found += against_bound(task, _heights(barriers(evidence, task, pair_kind)), bound, above=above)
    return found


def barriers(evidence: Evidence, task: str, pair_kind: str) -> pd.DataFrame:
    """One row a pair: test set, main metric, the grid of alphas that found the larger barrier."""
    rows = evidence.pairs(task, "barriers", pair_kind)
    if rows.empty:
        return rows
    rows = rows[rows["split"] == "test"]
    rows = rows[rows["metric"] == main_metric(rows)].sort_values("barrier", ascending=False, kind="stable")
    keys = [key for key in ("task", "checkpoint_a", "checkpoint_b") if key in rows.columns]
    if task == CROSS_DOMAIN:
        keys.append("scenario")
    return rows.drop_duplicates(keys).sort_index()


def _heights(rows: pd.DataFrame, column: str = "barrier") -> dict[str, float]:
    return by_pair(rows, rows[column].astype(float)) if len(rows) else {}


def cross_domain_no_barrier(evidence: Evidence) -> list[Effect]:
    return _across(evidence, "P-T & P-T", "barrier", NO_BARRIER, above=False, unions=False)


def cross_domain_gain(evidence: Evidence) -> list[Effect]:
    """What the model half-way gains over the mean of the ends."""
    return _across(evidence, "P-T & P-T", "midpoint_gain", 0.0, above=True, unions=False)


def cross_domain_rit_barrier(evidence: Evidence) -> list[Effect]:
    return _across(evidence, "RI-T & RI-T", "barrier", BARRIER, above=True, unions=False)


def union_no_barrier(evidence: Evidence) -> list[Effect]:
    return _across(evidence, "P-T & P-T", "barrier", NO_BARRIER, above=False, unions=True)


def union_rit_barrier(evidence: Evidence) -> list[Effect]:
    return _across(evidence, "RI-T & RI-T", "barrier", BARRIER, above=True, unions=True)


def _across(
    evidence: Evidence, pair_kind: str, column: str, bound: float, *, above: bool, unions: bool
) -> list[Effect]:
    rows = barriers(evidence, CROSS_DOMAIN, pair_kind)
    found: list[Effect] = []
    for scenario, part in rows.groupby("scenario", sort=False) if len(rows) else ():
        if _has_union(evidence, part) == unions:
            found += against_bound(place(scenario, part), _heights(part, column), bound, above=above)
    return found


def place(scenario: object, rows: pd.DataFrame) -> str:
    """`Figure 19 (clipart → real, on clipart)`."""
    ends = " → ".join(str(rows[side].iloc[0]).split(".")[0] for side in ("checkpoint_a", "checkpoint_b"))
    return f"{str(scenario).replace('_', ' ').capitalize()} ({ends}, on {rows['task'].iloc[0]})"


def _has_union(evidence: Evidence, rows: pd.DataFrame) -> bool:
    tasks = {str(name).split(".")[0] for side in ("checkpoint_a", "checkpoint_b") for name in rows[side]}
    return bool(tasks & evidence.unions)


def other_domain(evidence: Evidence) -> list[Effect]:
    """Test metric of models on a domain that they were not trained on, P-T against RI-T of the same domain."""
    table = evidence.table(CROSS_DOMAIN, "interpolation")
    if table is None:
        return []
    rows = table[(table["split"] == "test") & (table["metric"] == "accuracy")]
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for alpha, side in ((0.0, "checkpoint_a"), (1.0, "checkpoint_b")):
        for _, row in rows[np.isclose(rows["alpha"], alpha)].iterrows():
            name = str(row[side]).split("@")[0]
            trained, run = name.split(".")[0], evidence.runs.index
            if trained == row["task"] or trained in evidence.unions or name not in run or not evidence.learned(name):
                continue
            kinds = found.setdefault((trained, str(row["task"])), {})
            kinds.setdefault(str(evidence.runs.at[name, "label"]), {})[name] = float(row["value"])
    effects: list[Effect] = []
    for (trained, on), kinds in found.items():
        effects += compare(f"{trained} on {on}", kinds.get("P-T", {}), kinds.get("RI-T", {}))
    return effects


def edge_of_the_basin(evidence: Evidence) -> list[Effect]:
    """How far the metric of a P-T pair falls from an end to the end of the extrapolation, the smaller fall of both."""
    found: list[Effect] = []
    for task, _ in evidence.each("interpolation"):
        rows = evidence.pairs(task, "interpolation", "P-T & P-T")
        rows = rows[rows["split"] == "test"] if len(rows) else rows
        if rows.empty or rows["alpha"].min() >= 0 or rows["alpha"].max() <= 1:
            continue
        metric = main_metric(rows)
        falls: dict[str, float] = {}
        for (a, b), curve in rows[rows["metric"] == metric].groupby(["checkpoint_a", "checkpoint_b"], sort=False):
            values = curve.groupby(curve["alpha"].round(6))["value"].mean()
            ends = [values.get(0.0, np.nan) - values.iloc[0], values.get(1.0, np.nan) - values.iloc[-1]]
            falls[f"{a} & {b}"] = float(np.min(ends))
        found += against_bound(task, falls, OUTSIDE_DROP, above=True, metric=metric)
    return found


def rewinding_hurts_rit(evidence: Evidence) -> list[Effect]:
    """Fall of the metric when one module goes back to its initial value, mean over modules but the classifier."""
    return _rewinding(evidence, lambda falls: falls.iloc[:-1].mean())


def first_module(evidence: Evidence) -> list[Effect]:
    """The same for the first module alone."""
    return _rewinding(evidence, lambda falls: falls.iloc[0])


def _rewinding(evidence: Evidence, summary: Callable[[pd.Series], float]) -> list[Effect]:
    found: list[Effect] = []
    for task, table in evidence.each("rewinding"):
        falls: dict[str, dict[str, float]] = {"P-T": {}, "RI-T": {}}
        for name, values in falls_of_runs(evidence, task, table).items():
            label = str(evidence.runs.at[name, "label"]) if name in evidence.runs.index else ""
            if label in falls and len(values) > 1 and evidence.learned(name):
                falls[label][name] = float(summary(values))
        found += compare(task, falls["RI-T"], falls["P-T"])
    return found


def falls_of_runs(evidence: Evidence, task: str, table: pd.DataFrame) -> dict[str, pd.Series]:
    """For each run the fall of the test metric by module, in order of the forward pass, set back to the first epoch."""
    rows = table[table["split"] == "test"] if "split" in table.columns else table
    rows = rows[rows["metric"] == main_metric(rows)]
    found: dict[str, pd.Series] = {}
    for run, part in rows.groupby("run", sort=False):
        whole = part[part["module"].isin(("none", "unrewound"))]["value"]
        moved = part[~part["module"].isin(("none", "unrewound"))]
        moved = moved[moved["epoch"].astype(str) == min(moved["epoch"].astype(str), key=_epoch_rank, default="")]
        if len(whole) and len(moved):
            found[full_name(task, str(run))] = float(whole.iloc[0]) - moved.set_index("module")["value"].astype(float)
    return found


def _epoch_rank(epoch: str) -> float:
    try:
        return float(epoch)
    except ValueError:
        return np.inf


def criticality_grows(evidence: Evidence) -> list[Effect]:
    """Spearman correlation of a module's criticality mu with its depth in P-T (direct path, to the final weights).

    Without the classifier: it is new in P-T, so that its initial value says nothing about transfer.
    """
    found: list[Effect] = []
    for task, table in evidence.each("module_criticality"):
        correlations: dict[str, float] = {}
        for name, mu in mu_of_runs(task, table).items():
            mu = mu.iloc[:-1]
            known = name in evidence.runs.index and evidence.runs.at[name, "label"] == "P-T"
            if not known or len(mu) < 3 or not evidence.learned(name):
                continue
            if mu.nunique() == 1:
                evidence.left_out[f"{name} (the same criticality in all modules)"] = None
            else:
                # Ranks, because mu may be infinite; floats cannot be ranked past infinity by subtraction.
                correlations[name] = float(spearmanr(np.arange(len(mu)), mu.rank().to_numpy()).statistic)
        found += against_bound(task, correlations, 0.0, above=True)
    return found


def mu_of_runs(task: str, table: pd.DataFrame) -> dict[str, pd.Series]:
    """mu by module, in order of the forward pass, for each run: direct path, final end, smallest epsilon."""
    rows = table
    for column, preferred in (("path", "direct"), ("end", "final")):
        if column in rows.columns and (rows[column] == preferred).any():
            rows = rows[rows[column] == preferred]
    if "epsilon" in rows.columns:
        rows = rows[rows["epsilon"] == rows["epsilon"].min()]
    return {
        full_name(task, str(run)): part.set_index("module")["mu"].astype(float)
        for run, part in rows.groupby("run", sort=False)
    }
