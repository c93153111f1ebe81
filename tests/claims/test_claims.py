"""The claims follow the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drawn_study import OTHER_LABELS, change_study, relabel, relabelled
from transferscope.claims.comparisons import EFFECT_COLUMNS
from transferscope.claims.decide import COLUMNS, decide_claims
from transferscope.claims.evidence import TaskResults
from transferscope.claims.registry import registered
from transferscope.experiment.plan import Plan
from transferscope.plots.rendered import SavedFigure
from transferscope.report.chapters import CHAPTERS
from transferscope.report.claims_table import whole_table

Results = dict[str, TaskResults]
Draw = Callable[..., Results]
Decided = tuple[pd.DataFrame, pd.DataFrame]


def verdicts(plan: Plan, results: Results) -> dict[str, str]:
    claims, _ = decide_claims(plan, results)
    return dict(zip(claims["id"], claims["verdict"], strict=True))


def change(results: Results, task: str, name: str, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Results:
    """The results with one table changed."""
    tables = results[task].tables | {name: edit(results[task].tables[name].copy())}
    return results | {task: replace(results[task], tables=tables)}


ONE_LINE = {
    "cross_domain_basin",
    "cross_domain_basin_loss",
    "cross_domain_gain",
    "cross_domain_rit",
    "one_basin",
    "one_basin_loss",
}
"""Claims on lines between domains, of which the drawn study has one pair."""
UNDECIDED = ONE_LINE | {"union_basin", "union_basin_loss", "union_rit", "criticality_depth", "reuse_grows_less"}
"""With them one on drawings, which the study lacks, those on lines to one union, and one whose rank correlation is the same on all tasks."""


def test_all_hold_in_the_papers_sense(plan: Plan, drawn: Draw) -> None:
    """Tables drawn as the paper has them confirm every claim that has something to repeat."""
    by_claim = verdicts(plan, drawn(sense=1))
    assert {name for name, verdict in by_claim.items() if verdict != "holds"} == UNDECIDED


def test_none_holds_against_it(plan: Plan, drawn: Draw) -> None:
    """Tables drawn the other way round refute every claim: none is decided by its wording.

    Where P-T gains nothing there are no parts of a gain that the first modules could carry.
    """
    by_claim = verdicts(plan, drawn(sense=-1))
    undecided = UNDECIDED | {"first_modules"}
    assert {name for name, verdict in by_claim.items() if verdict != "does not hold"} == undecided


def test_nothing_was_run(plan: Plan) -> None:
    """Without tables nothing can be decided, and each claim says what it needs."""
    claims, effects = decide_claims(plan, {"real": TaskResults("real")})
    assert set(claims["verdict"]) == {"cannot tell"}
    assert claims["reason"].str.startswith("not run: needs ").all()
    assert (claims["num_comparisons"] == 0).all()
    assert claims[["effect", "low", "high", "p"]].isna().all().all()
    assert (claims["would_tell"].map(len) > 0).all()
    assert effects.empty
    assert tuple(effects.columns) == ("id", *EFFECT_COLUMNS)


def test_labels_decide_nothing(plan: Plan, drawn: Draw) -> None:
    """A study whose labels read "Fine-tuned" and "Scratch", or call a kind by another's name, gets the same claims."""
    written = [run for run in plan.runs.values() if run.task not in plan.views]
    assert all(relabelled().runs[run.full_name].label == OTHER_LABELS[run.label] for run in written)
    for sense in (1, -1):
        before, after = (
            decide_claims(plan, drawn(sense=sense)),
            decide_claims(relabelled(), relabel(drawn(sense=sense))),
        )
        for table, same in zip(before, after, strict=True):
            pd.testing.assert_frame_equal(table, same)


def test_numbers_are_columns_that_follow_from_the_comparisons(decided: Decided) -> None:
    """The effect is the mean over places of the mean over their rows in the table of comparisons."""
    claims, effects = decided
    assert claims[["effect", "low", "high"]].dtypes.map(str).eq("float64").all()
    for claim in claims.to_dict("records"):
        rows = effects[(effects["id"] == claim["id"]) & effects["counted"]]
        numbers = rows["value"].where(rows["second"].notna(), rows["first"])
        assert claim["num_comparisons"] == len(rows)
        if claim["id"] != "rit_rates_alike":  # its value is what is left of the margin
            assert np.isclose(claim["effect"], numbers.groupby(rows["place"]).mean().mean(), equal_nan=True)
        assert claim["verdict"] == "cannot tell" or claim["low"] <= claim["effect"] <= claim["high"]
    by_id = claims.set_index("id")
    assert by_id.at["final_score", "num_runs"] == 12  # four of each of three tasks, none of their union
    assert "real_clipart (shows the images of other tasks)" in by_id.at["final_score", "reason"]
    assert by_id.at["barrier_rit", "num_runs"] == 6


def test_one_replica_has_no_pairs(plan: Plan, drawn: Draw) -> None:
    """Claims on pairs of P-T or of RI-T cannot be told with one run each; those on runs still can, over the tasks."""
    by_claim = verdicts(plan, drawn(replicas=1))
    assert {by_claim[name] for name in ("no_barrier_pt", "barrier_rit", "l2", "cka_mixed", "extrapolation")} == {
        "cannot tell"
    }
    assert by_claim["final_score"] == by_claim["l2_init"] == by_claim["barrier_mixed"] == "holds"


def test_columns(plan: Plan, drawn: Draw, decided: Decided) -> None:
    """A row per claim and the stated columns; texts are there, and the same results give the same tables."""
    claims, effects = decided
    assert tuple(claims.columns) == COLUMNS
    assert tuple(effects.columns) == ("id", *EFFECT_COLUMNS)
    assert len(claims) == len(registered()) == 69
    assert claims["id"].is_unique
    texts = claims.select_dtypes(exclude="number").drop(columns=["would_tell", "covers", "unfinished"])
    assert (texts.map(len) > 0).all().all()
    undecided = claims["verdict"] == "cannot tell"
    assert ((claims["would_tell"] != "") == undecided).all()
    for table, same in zip((claims, effects), decide_claims(plan, drawn()), strict=True):
        pd.testing.assert_frame_equal(table, same)


def test_runs_not_trained_to_the_end_are_reported(plan: Plan, drawn: Draw, decided: Decided) -> None:
    """Of each kind how many of the runs that are compared, and by how much; the verdict stays, the page says it."""
    results = drawn()

    def rising(runs: pd.DataFrame) -> pd.DataFrame:
        chosen = runs["run"].isin(["rit_1", "rit_2"])
        return runs.assign(still_rising=chosen, last_rise=np.where(runs["run"] == "rit_1", 0.02, 0.096))

    before = decided[0]
    claims = decide_claims(plan, change(results, "real", "runs", rising))[0].set_index("id")
    assert claims.at["final_score", "unfinished"] == "RI-T, 2 of 6 runs (+2.0 to +9.6)"
    assert claims.at["no_barrier_pt", "unfinished"] == ""
    assert (before["unfinished"] == "").all()
    assert (claims["verdict"].to_numpy() == before["verdict"].to_numpy()).all()
    assert "points of the train metric that they still gained" in whole_table(claims)
    assert "not trained to the end" not in whole_table(before)


def test_a_share_has_no_interval_beyond_all(decided: Decided) -> None:
    """P-T is ahead in three classes of four, more or less: the interval ends at 1."""
    claims = decided[0].set_index("id")
    assert claims.at["class_by_class", "high"] <= 1
    assert claims.at["cka_floor", "low"] >= 0


def test_every_claim_has_its_section() -> None:
    """The report has a section for every claim, and the source is a place in the paper or other literature."""
    sections = {section.id for chapter in CHAPTERS for section in chapter.sections}
    assert {claim.section for claim in registered().values()} <= sections
    places = ("Section", "Main text")
    assert all(claim.source.startswith(places) or "arXiv" in claim.source for claim in registered().values())


def test_one_contrary_run_withholds_the_verdict(plan: Plan, drawn: Draw) -> None:
    """A single RI-T above the P-T of its task is enough for `cannot tell`."""

    def edit(history: pd.DataFrame) -> pd.DataFrame:
        history.loc[history["run"] == "rit_2", "test_accuracy"] = 0.99
        return history

    assert verdicts(plan, change(drawn(), "real", "history", edit))["final_score"] == "cannot tell"


def test_auc_decides_multi_label_tasks(plan: Plan, drawn: Draw) -> None:
    """On a multi-label task accuracy does not count."""

    def edit(history: pd.DataFrame) -> pd.DataFrame:
        return history.assign(test_accuracy=np.where(history["label"] == "P-T", 0.0, 1.0))

    assert verdicts(plan, change(drawn(), "chest", "history", edit))["final_score"] == "holds"


def test_runs_that_diverged_carry_no_verdict(plan: Plan, drawn: Draw) -> None:
    """A run whose metric is missing is left out and named, whatever it would speak for; one that did not learn, too."""

    def mark(runs: pd.DataFrame) -> pd.DataFrame:
        runs.loc[runs["run"] == "pt_large_lr_1", "status"] = "diverged"
        runs.loc[runs["run"] == "rit_1", "learned"] = False
        return runs

    claims = decide_claims(plan, change(drawn(), "clipart", "runs", mark))[0].set_index("id")
    assert claims.at["pt_small_lr", "num_comparisons"] == 2
    assert claims.at["pt_small_lr", "reason"].endswith("left out: clipart.pt_large_lr_1 (diverged)")
    assert "clipart.rit_1 (not learned)" in claims.at["final_score", "reason"]
    assert claims.at["final_score", "num_comparisons"] == 10


def test_runs_that_did_not_learn_are_left_out_of_geometry(plan: Plan, drawn: Draw, decided: Decided) -> None:
    """A model at chance says nothing about barriers; it is left out and named."""

    def mark(runs: pd.DataFrame) -> pd.DataFrame:
        runs.loc[runs["run"] == "rit_2", "learned"] = False
        return runs

    whole = decided[0].set_index("id")
    part, effects = decide_claims(plan, change(drawn(), "real", "runs", mark))
    part = part.set_index("id")
    assert whole.at["barrier_rit", "num_comparisons"] == 3
    assert part.at["barrier_rit", "num_comparisons"] == 2
    assert part.at["barrier_rit", "reason"].endswith("left out: real.rit_2 (not learned)")
    assert part.at["final_score", "num_comparisons"] == whole.at["final_score", "num_comparisons"] - 2
    (row,) = effects[(effects["id"] == "barrier_rit") & ~effects["counted"]].to_dict("records")
    assert (row["place"], row["unit"], row["note"]) == ("real", "real.rit_2", "not learned")


@pytest.mark.parametrize(("part", "verdict"), [(0.045, "holds"), (0.05, "cannot tell"), (0.055, "does not hold")])
def test_margin_of_no_barrier(plan: Plan, drawn: Draw, part: float, verdict: str) -> None:
    """`No barrier` means less than 5 % of what the ends are above chance: .8 of accuracy here, .4 of AUC."""
    results = drawn()
    for index, task in enumerate(("real", "clipart", "chest")):
        height = (part + 0.001 * (index - 1)) * (0.4 if task == "chest" else 0.8)
        results = change(results, task, "barriers", lambda table, height=height: table.assign(barrier=height))
    assert verdicts(plan, results)["no_barrier_pt"] == verdict


def test_a_claim_whose_runs_all_failed_says_so(plan: Plan, drawn: Draw) -> None:
    """It was run, but there is nothing to compare: the reason names the runs."""
    results = drawn()
    for task in ("real", "clipart", "chest"):
        results = change(results, task, "runs", lambda runs: runs.assign(learned=False))
    claims = decide_claims(plan, results)[0].set_index("id")
    assert claims.at["l2", "reason"].startswith("nothing to compare; left out: real.pt_1 (not learned), ")


def test_unions_follow_from_the_study(drawn: Draw, decided: Decided) -> None:
    """Which scenarios count as combined domains follows from the tasks, not from the figures' numbers."""
    claims = decided[0].set_index("id")
    assert claims.at["cross_domain_basin", "num_comparisons"] == 1  # one line, evaluated on both of its domains
    assert claims.at["union_basin", "num_comparisons"] == 2
    single = change_study(tasks__real_clipart={"format": "domainnet", "root": "domains"})
    claims = decide_claims(single, drawn())[0].set_index("id")
    assert claims.at["cross_domain_basin", "num_comparisons"] == 3
    assert claims.at["union_basin", "verdict"] == "cannot tell"


def test_a_kind_with_another_training_is_a_variant(drawn: Draw, decided: Decided) -> None:
    """Runs at another learning rate take part in the claims on rates alone; a second kind trained alike counts fully."""
    effects = decided[1]
    units = effects.groupby("id")["unit"].agg(" ".join)
    variants = units[units.str.contains("large_lr|small_lr")]
    assert set(variants.index) == {"pt_small_lr", "rit_large_lr", "rit_rates_alike", "rit_large_lr_faster"}
    alike = change_study(runs__pt_large_lr__training={"lr": 0.01}, runs__rit_small_lr__training={"lr": 0.05})
    assert "clipart.pt_large_lr_2" in " ".join(decide_claims(alike, drawn())[1].query("id == 'final_score'")["unit"])


def test_best_epochs_do_not_count_beside_final_ones(plan: Plan, drawn: Draw) -> None:
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
    assert verdicts(plan, results)["no_barrier_pt"] == "holds"


def test_claims_are_decided_without_files(plan: Plan, drawn: Draw, decided: Decided) -> None:
    """Figures play no part in the verdicts."""
    gone = {"cka": SavedFigure(Path("gone.png"))}
    results = {name: replace(result, figures=gone) for name, result in drawn().items()}
    assert verdicts(plan, results) == dict(zip(decided[0]["id"], decided[0]["verdict"], strict=True))


def test_one_run_of_a_kind_on_one_task_tells_nothing(plan: Plan, drawn: Draw) -> None:
    """There is no interval and no verdict, and every claim says what would tell."""
    claims, _ = decide_claims(plan, {"real": drawn(replicas=1)["real"]})
    assert set(claims["verdict"]) == {"cannot tell"}
    assert claims["low"].isna().all()
    compared = claims[claims["num_comparisons"] > 0]
    assert len(compared) > 10
    assert compared["would_tell"].str.startswith("2 runs of each kind").all()


@pytest.mark.parametrize("fate", ["diverged", "not learned"])
def test_runs_that_all_failed_tell_nothing(plan: Plan, drawn: Draw, fate: str) -> None:
    """No claim gets a verdict from runs that diverged, or that predict as by chance."""
    change_of = {"diverged": {"status": "diverged"}, "not learned": {"learned": False}}[fate]
    results = drawn()
    for task in ("real", "clipart", "chest", "real_clipart"):
        results = change(results, task, "runs", lambda runs: runs.assign(**change_of))
    for task in ("real", "clipart"):
        results = change(results, task, "feature_reuse", lambda runs: runs.assign(**change_of))
    claims, effects = decide_claims(plan, results)
    assert set(claims["verdict"]) == {"cannot tell"}
    assert not effects["counted"].any()
    assert fate in set(effects["note"])
