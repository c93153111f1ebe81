"""From tables to effects: training, mistakes, similarity and spectra (appendix B.1 to B.3, C)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from transferscope.claims.evidence import (
    Effect,
    Evidence,
    against_bound,
    by_pair,
    compare,
    full_name,
    last_epochs,
    named,
)

CKA_FLOOR = 0.1
"""CKA below this, averaged over layers, counts as no similarity: the paper prints .0004 to .0424 for two RI-T."""
LOWER_PART = 0.1
"""Singular values are counted below the threshold that has about this share of P-T's and RI-T's below it."""


Measure = Callable[[pd.DataFrame], dict[str, float]]
"""Rows of pairs of one kind -> a number for each pair."""


def final_score(evidence: Evidence) -> list[Effect]:
    """Final test metric of every P-T against every RI-T."""
    return _compare_runs(evidence, "score")


def speed(evidence: Evidence) -> list[Effect]:
    """Train metric averaged over the epochs (the paper's optimization speed), every P-T against every RI-T."""
    return _compare_runs(evidence, "speed")


def _compare_runs(evidence: Evidence, column: str) -> list[Effect]:
    found: list[Effect] = []
    for task in evidence.tasks:
        pt, rit = evidence.runs_of(task, "P-T"), evidence.runs_of(task, "RI-T")
        if len(pt) and len(rit):
            metric = str(pt["metric"].iloc[0])
            found += compare(task, evidence.values(pt, column), evidence.values(rit, column), metric=metric)
    return found


def pt_prefers_smaller_lr(evidence: Evidence) -> list[Effect]:
    """Final test metric of every P-T at the smallest learning rate against every one at the largest."""
    return _learning_rates(evidence, "P-T", smaller=True)


def rit_prefers_larger_lr(evidence: Evidence) -> list[Effect]:
    """Final test metric of every RI-T at the largest learning rate against every one at the smallest."""
    return _learning_rates(evidence, "RI-T", smaller=False)


def _learning_rates(evidence: Evidence, label: str, *, smaller: bool) -> list[Effect]:
    found: list[Effect] = []
    runs = evidence.runs
    of_kind = runs[(runs["label"] == label) | runs["label"].str.match(rf"{label} .*\blr$")]
    for task, rows in of_kind.groupby("task", sort=False):
        if rows["lr"].nunique() > 1:
            extremes = sorted((rows["lr"].min(), rows["lr"].max()), reverse=not smaller)
            first, second = (evidence.values(rows[rows["lr"] == extreme], "score") for extreme in extremes)
            found += compare(str(task), first, second, metric=str(rows["metric"].iloc[0]))
    return found


def uncommon_ratio(evidence: Evidence) -> list[Effect]:
    """Share of a model's mistakes that the other does not make, RI-T's against P-T's, mean over classes with both."""
    found: list[Effect] = []
    for task, _ in evidence.each("mistakes"):
        (rows,) = _with_predictions(evidence, task, evidence.pairs(task, "mistakes", "P-T & RI-T"))
        if rows.empty:
            continue
        both = rows[["uncommon_ratio_a", "uncommon_ratio_b"]].notna().all(axis=1)  # a model may make no mistake
        pt, rit = (by_pair(rows, rows[f"uncommon_ratio_{side}"].where(both)) for side in "ab")
        found += [
            Effect(task, pair, rit[pair] - pt[pair], rit[pair], pt[pair])
            for pair in pt
            if np.isfinite(pt[pair]) and np.isfinite(rit[pair])
        ]
    return found


def shared_mistakes_over_mixed(evidence: Evidence) -> list[Effect]:
    """Share of all mistakes of a pair that both make, P-T & P-T against P-T & RI-T."""
    return _shared_mistakes(evidence, "P-T & P-T", "P-T & RI-T")


def shared_mistakes_over_rit(evidence: Evidence) -> list[Effect]:
    """The same, P-T & P-T against RI-T & RI-T."""
    return _shared_mistakes(evidence, "P-T & P-T", "RI-T & RI-T")


def _shared_mistakes(evidence: Evidence, first: str, second: str) -> list[Effect]:
    found: list[Effect] = []
    for task, _ in evidence.each("mistakes"):
        both = _with_predictions(evidence, task, *(evidence.pairs(task, "mistakes", kind) for kind in (first, second)))
        found += compare(task, *(shared_mistakes(rows) if len(rows) else {} for rows in both))
    return found


def _with_predictions(evidence: Evidence, task: str, *tables: pd.DataFrame) -> list[pd.DataFrame]:
    """Without the findings that neither model of some pair ever predicts: their mistakes are all positives."""
    mute: set[str] = set()
    for rows in tables:
        if "num_predicted_a" in rows.columns:
            mute |= set(rows.loc[(rows["num_predicted_a"] == 0) & (rows["num_predicted_b"] == 0), "class_name"])
    if mute:
        evidence.left_out[f"{task}: {', '.join(sorted(mute))} (predicted by neither model)"] = None
    return [rows[~rows["class_name"].isin(mute)] if len(rows) else rows for rows in tables]


def shared_mistakes(rows: pd.DataFrame) -> dict[str, float]:
    """Common mistakes / (common + only one is wrong), by pair, mean over classes."""
    either = rows["common_mistakes"] + rows["only_a_correct"] + rows["only_b_correct"]
    return by_pair(rows, rows["common_mistakes"] / either.where(either > 0))


def class_size(evidence: Evidence) -> list[Effect]:
    """Pearson correlation of accuracy per class with class size, every P-T against every RI-T."""
    found: list[Effect] = []
    for task, table in evidence.each("class_size_correlation"):
        values: dict[str, dict[str, float]] = {}
        for label in ("P-T", "RI-T"):
            names = [name for name in evidence.runs_of(task, label).index if evidence.learned(name)]
            rows = table.assign(name=[full_name(task, run) for run in table["run"]])
            values[label] = named(rows[rows["name"].isin(names)].set_index("name")["pearson_r"])
        found += compare(task, values["P-T"], values["RI-T"])
    return found


def cka_over_mixed(evidence: Evidence) -> list[Effect]:
    """CKA averaged over layers, P-T & P-T against P-T & RI-T."""
    return _compare_pairs(evidence, "cka", mean_cka, "P-T & P-T", "P-T & RI-T")


def cka_over_rit(evidence: Evidence) -> list[Effect]:
    """CKA averaged over layers, P-T & P-T against RI-T & RI-T."""
    return _compare_pairs(evidence, "cka", mean_cka, "P-T & P-T", "RI-T & RI-T")


def cka_with_p(evidence: Evidence) -> list[Effect]:
    """CKA averaged over layers, P-T & P against P-T & RI-T."""
    return _compare_pairs(evidence, "cka", mean_cka, "P-T & P", "P-T & RI-T")


def cka_floor(evidence: Evidence) -> list[Effect]:
    """CKA averaged over layers of RI-T & RI-T against the floor; not of a biased estimate, which is far above 0."""
    found: list[Effect] = []
    for task, _ in evidence.each("cka"):
        rows = evidence.pairs(task, "cka", "RI-T & RI-T")
        if len(rows) and set(one_cka(rows).get("estimator", ())) != {"biased"}:
            found += against_bound(task, mean_cka(rows), CKA_FLOOR, above=False)
    return found


def mean_cka(rows: pd.DataFrame) -> dict[str, float]:
    """CKA by pair, averaged over layers; pooled features and an unbiased estimate where there is a choice."""
    rows = one_cka(rows)
    return by_pair(rows, rows["cka"].astype(float))


def one_cka(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with one sort of features and one estimator."""
    for column, preferred in (("features", ("pooled",)), ("estimator", ("debiased", "minibatch"))):
        if column in rows.columns and rows[column].nunique() > 1:
            present = set(rows[column])
            chosen = next((value for value in preferred if value in present), rows[column].iloc[0])
            rows = rows[rows[column] == chosen]
    return rows


def distance_between(evidence: Evidence) -> list[Effect]:
    """Global l2 distance, P-T & P-T against RI-T & RI-T."""
    return _compare_pairs(evidence, "distances", global_l2, "P-T & P-T", "RI-T & RI-T", larger=False)


def distance_travelled(evidence: Evidence) -> list[Effect]:
    """Global l2 distance to the initial weights, every P-T against every RI-T."""
    return _compare_pairs(evidence, "distances", global_l2, "P-T & init", "RI-T & init", larger=False)


def global_l2(rows: pd.DataFrame) -> dict[str, float]:
    """l2 over all weights, by pair."""
    rows = rows[rows["module"] == "all"]
    return by_pair(rows, rows["l2"].astype(float))


def near_zero(evidence: Evidence) -> list[Effect]:
    """Share of the whole network's singular values below one threshold for all tasks, every RI-T against every P-T."""
    found: list[Effect] = []
    of_tasks = {task: _whole_network(evidence, task, table) for task, table in evidence.each("spectrum")}
    threshold = lower_threshold(pd.concat(of_tasks.values())) if of_tasks else None
    for task, rows in of_tasks.items():
        if threshold is not None:
            rows = rows.assign(share=rows[threshold] / rows["num_values"])
            found += compare(task, _of(rows, "RI-T", "share"), _of(rows, "P-T", "share"))
    return found


def norm_ratio(evidence: Evidence) -> list[Effect]:
    """Sum over layers of Frobenius / spectral norm, every RI-T against every P-T."""
    found: list[Effect] = []
    for task, table in evidence.each("spectrum"):
        # The row "all" is the spectrum of the whole network; the sum over its layers is the row "sum".
        rows = _whole_network(evidence, task, table, "sum")
        found += compare(task, _of(rows, "RI-T", "ratio"), _of(rows, "P-T", "ratio"))
    return found


def lower_threshold(rows: pd.DataFrame) -> str | None:
    """The column of counts at which the mean share is nearest to `LOWER_PART`; None where no count tells runs apart."""
    columns = [name for name in rows.columns if name.startswith("count_below_")]
    shares = {name: float((rows[name] / rows["num_values"]).mean()) for name in columns}
    shares = {name: share for name, share in shares.items() if 0 < share < 1}
    return min(shares, key=lambda name: abs(shares[name] - LOWER_PART), default=None)


def _whole_network(evidence: Evidence, task: str, table: pd.DataFrame, row: str = "all") -> pd.DataFrame:
    """A row per run that has learned, of the kinds P-T and RI-T, with its label."""
    rows = last_epochs(table[table["module"] == row])
    names = [full_name(task, run) for run in rows["run"]]
    runs = evidence.runs
    labels = [str(runs.at[name, "label"]) if name in runs.index else "" for name in names]
    rows = rows.assign(name=names, label=labels)
    rows = rows[rows["label"].isin(("P-T", "RI-T"))]
    return rows[[evidence.learned(name) for name in rows["name"]]] if len(rows) else rows


def _of(rows: pd.DataFrame, label: str, column: str) -> dict[str, float]:
    return named(rows[rows["label"] == label].set_index("name")[column])


def _compare_pairs(
    evidence: Evidence, table: str, measure: Measure, first: str, second: str, *, larger: bool = True
) -> list[Effect]:
    found: list[Effect] = []
    for task, _ in evidence.each(table):
        rows_a, rows_b = evidence.pairs(task, table, first), evidence.pairs(task, table, second)
        if len(rows_a) and len(rows_b):
            found += compare(task, measure(rows_a), measure(rows_b), larger=larger)
    return found
