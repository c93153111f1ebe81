"""The claims follow the tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from transferscope.claims.decide import CLAIMS, COLUMNS, decide_claims
from transferscope.claims.results import SavedFigure, TaskResults
from transferscope.report.sections import CHAPTERS

Results = dict[str, TaskResults]
Draw = Callable[..., Results]


def verdicts(study: dict[str, Any], results: Results) -> dict[str, str]:
    claims = decide_claims(study, results)
    return dict(zip(claims["id"], claims["verdict"], strict=True))


def change(results: Results, task: str, name: str, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Results:
    """The results with one table changed."""
    tables = results[task].tables | {name: edit(results[task].tables[name].copy())}
    return results | {task: replace(results[task], tables=tables)}


def test_all_hold_in_the_papers_sense(study: dict[str, Any], drawn: Draw) -> None:
    """Tables drawn as the paper has them confirm every claim."""
    assert set(verdicts(study, drawn(sense=1)).values()) == {"holds"}


def test_none_holds_against_it(study: dict[str, Any], drawn: Draw) -> None:
    """Tables drawn the other way round refute every claim: none is decided by its wording."""
    found = verdicts(study, drawn(sense=-1))
    assert {name for name, verdict in found.items() if verdict != "does not hold"} == set()


def test_nothing_was_run(study: dict[str, Any]) -> None:
    """Without tables nothing can be told, and each claim says what it needs."""
    claims = decide_claims(study, {"real": TaskResults("real")})
    assert set(claims["verdict"]) == {"cannot tell"}
    assert claims["ours"].str.startswith("not run: needs ").all()
    assert (claims["num_effects"] == 0).all()


def test_one_replica_has_no_pairs(study: dict[str, Any], drawn: Draw) -> None:
    """Claims on pairs of P-T or of RI-T cannot be told with one run each; those on runs still can, over the tasks."""
    found = verdicts(study, drawn(replicas=1))
    assert {found[name] for name in ("no_barrier_pt", "barrier_rit", "l2", "cka_mixed", "extrapolation")} == {
        "cannot tell"
    }
    assert found["final_score"] == found["l2_init"] == found["barrier_mixed"] == "holds"


def test_columns(study: dict[str, Any], drawn: Draw) -> None:
    """A row per claim, the stated columns, text everywhere but in the count, and the same after a trip through CSV."""
    claims = decide_claims(study, drawn())
    assert tuple(claims.columns) == COLUMNS
    assert len(claims) == len(CLAIMS) >= 14
    assert claims["id"].is_unique
    assert (claims.drop(columns="num_effects").map(len) > 0).all().all()
    pd.testing.assert_frame_equal(claims, decide_claims(study, drawn()))


def test_every_claim_has_its_section() -> None:
    """The report has a section for every claim, and the source is a place in the paper."""
    sections = {section.id for chapter in CHAPTERS for section in chapter.sections}
    assert {claim.section for claim in CLAIMS} <= sections
    assert all(claim.source.startswith(("Section", "Main text")) for claim in CLAIMS)


def test_one_contrary_run_withholds_the_verdict(study: dict[str, Any], drawn: Draw) -> None:
    """A single RI-T above the P-T of its task is enough for `cannot tell`."""

    def edit(history: pd.DataFrame) -> pd.DataFrame:
        history.loc[history["run"] == "rit_2", "test_accuracy"] = 0.99
        return history

    assert verdicts(study, change(drawn(), "real", "history", edit))["final_score"] == "cannot tell"


def test_auc_decides_multi_label_tasks(study: dict[str, Any], drawn: Draw) -> None:
    """On a multi-label task accuracy does not count."""

    def edit(history: pd.DataFrame) -> pd.DataFrame:
        return history.assign(test_accuracy=np.where(history["label"] == "P-T", 0.0, 1.0))

    assert verdicts(study, change(drawn(), "chest", "history", edit))["final_score"] == "holds"


def test_diverged_run_is_the_worst(study: dict[str, Any], drawn: Draw) -> None:
    """A P-T that diverges at the large learning rate speaks for the small one, though its metric is missing."""

    def lose(history: pd.DataFrame) -> pd.DataFrame:
        history.loc[(history["run"] == "pt_large_lr_1") & (history["epoch"] == 4), "test_accuracy"] = math.nan
        return history

    def mark(runs: pd.DataFrame) -> pd.DataFrame:
        runs.loc[runs["run"] == "pt_large_lr_1", "status"] = "diverged"
        return runs

    results = change(change(drawn(sense=-1), "clipart", "history", lose), "clipart", "runs", mark)
    assert verdicts(study, drawn(sense=-1))["pt_small_lr"] == "does not hold"
    claims = decide_claims(study, results).set_index("id")
    assert claims.at["pt_small_lr", "num_effects"] == 4
    assert claims.at["pt_small_lr", "interval"].split(" to ")[1].startswith("+")
    assert claims.at["pt_small_lr", "interval"].endswith("; diverged, counted as 0: clipart.pt_large_lr_1")
    assert "diverged" not in claims.at["final_score", "interval"]


def test_runs_that_did_not_learn_are_left_out_of_geometry(study: dict[str, Any], drawn: Draw) -> None:
    """A model at chance says nothing about barriers; it is left out and named."""

    def mark(runs: pd.DataFrame) -> pd.DataFrame:
        runs.loc[runs["run"] == "rit_2", "learned"] = False
        return runs

    whole = decide_claims(study, drawn()).set_index("id")
    part = decide_claims(study, change(drawn(), "real", "runs", mark)).set_index("id")
    assert whole.at["barrier_rit", "num_effects"] == 3
    assert part.at["barrier_rit", "num_effects"] == 2
    assert "left out: real.rit_2 (not learned)" in part.at["barrier_rit", "interval"]
    assert part.at["final_score", "num_effects"] == whole.at["final_score", "num_effects"]


@pytest.mark.parametrize(("height", "verdict"), [(0.019, "holds"), (0.021, "does not hold")])
def test_margin_of_no_barrier(study: dict[str, Any], drawn: Draw, height: float, verdict: str) -> None:
    """`No barrier` means less than .02 below the chord."""
    results = drawn()
    for task in ("real", "clipart", "chest"):
        results = change(results, task, "barriers", lambda table: table.assign(barrier=height))
    assert verdicts(study, results)["no_barrier_pt"] == verdict


def test_unions_are_told_from_domains_by_the_study(drawn: Draw, study: dict[str, Any]) -> None:
    """Which scenarios count as combined domains follows from the tasks, not from the figures' numbers."""
    claims = decide_claims(study, drawn()).set_index("id")
    assert claims.at["cross_domain_basin", "num_effects"] == claims.at["union_basin", "num_effects"] == 2
    plain = {"tasks": {name: {"format": "domainnet"} for name in study["tasks"]}}
    claims = decide_claims(plain, drawn()).set_index("id")
    assert claims.at["cross_domain_basin", "num_effects"] == 4
    assert claims.at["union_basin", "verdict"] == "cannot tell"


def test_best_epochs_do_not_count_beside_final_ones(study: dict[str, Any], drawn: Draw) -> None:
    """Where a table compares best weights as well, claims are decided on the final ones."""

    def add_best(table: pd.DataFrame) -> pd.DataFrame:
        best = table.assign(
            barrier=0.9,
            checkpoint_a=table["checkpoint_a"].str.replace("final", "best"),
            checkpoint_b=table["checkpoint_b"].str.replace("final", "best"),
        )
        return pd.concat([table, best])

    results = drawn()
    for task in ("real", "clipart", "chest"):
        results = change(results, task, "barriers", add_best)
    assert verdicts(study, results)["no_barrier_pt"] == "holds"


def test_claims_are_decided_without_files(study: dict[str, Any], drawn: Draw) -> None:
    """Figures play no part in the verdicts."""
    gone = {"cka": SavedFigure(Path("gone.png"))}
    results = {name: replace(result, figures=gone) for name, result in drawn().items()}
    assert set(verdicts(study, results).values()) == {"holds"}
