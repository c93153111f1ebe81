"""The summary of a study: its main claims as answers, on tables in the paper's sense and against it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from transferscope.answers.answer import NO, UNKNOWN, YES
from transferscope.answers.headlines import HEADLINES, answers_of_study
from transferscope.answers.wording import percent
from transferscope.claims.decide import decide_claims
from transferscope.claims.evidence import TaskResults
from transferscope.claims.registry import registered
from transferscope.experiment.plan import Plan
from transferscope.report.page import write_page

Draw = Callable[..., dict[str, TaskResults]]
VERDICTS = {"holds": YES, "does not hold": NO, "cannot tell": UNKNOWN}


@pytest.fixture(scope="module")
def claims(plan: Plan, drawn: Draw) -> tuple[pd.DataFrame, pd.DataFrame]:
    return decide_claims(plan, drawn())


def test_every_headline_is_a_claim_with_its_verdict(plan: Plan, claims: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """At most eight answers, each with the verdict, effect and interval of its claim; counts are those of the table."""
    card = answers_of_study(plan, claims[0])
    rows = claims[0].set_index("id")
    assert len(card.answers) <= 8
    assert {one.claim for one in HEADLINES} <= set(registered())
    for answer in card.answers[:-1]:
        row = rows.loc[answer.id]
        assert answer.verdict == VERDICTS[row["verdict"]]
        assert answer.value == row["effect"]
        assert f"{int(row['num_comparisons']):,} comparison" in answer.answer
    run = claims[0][claims[0]["num_comparisons"] > 0]
    assert f"of {len(run)} claims".lower() in card.answers[-1].answer.lower()
    assert f"{(run['verdict'] == 'holds').sum()} hold" in card.answers[-1].answer


def test_the_answer_turns_with_the_tables(plan: Plan, drawn: Draw) -> None:
    """Against the paper's sense the same questions are answered by no."""
    card = answers_of_study(plan, decide_claims(plan, drawn(sense=-1))[0])
    assert card["final_score"].verdict == NO
    assert card["final_score"].answer.startswith("P-T does not end better than RI-T")
    assert card["no_barrier_pt"].answer.startswith("A barrier lies between two P-T")


@pytest.mark.parametrize(
    ("claim", "accuracy", "loss", "verdict"),
    [
        ("no_barrier_pt", "holds", "holds", YES),
        ("no_barrier_pt", "holds", "does not hold", NO),
        ("no_barrier_pt", "holds", "cannot tell", UNKNOWN),
        ("no_barrier_pt", "cannot tell", "does not hold", NO),
        ("barrier_rit", "does not hold", "holds", YES),
        ("barrier_rit", "does not hold", "cannot tell", UNKNOWN),
        ("barrier_rit", "does not hold", "does not hold", NO),
        ("barrier_rit", "holds", "cannot tell", YES),
    ],
)
def test_no_barrier_takes_both_claims(
    plan: Plan, claims: tuple[pd.DataFrame, pd.DataFrame], claim: str, accuracy: str, loss: str, verdict: str
) -> None:
    """That there is none takes accuracy and the loss, that there is one takes either; both numbers are given."""
    table = claims[0].set_index("id")
    table.loc[[claim, f"{claim}_loss"], "verdict"] = accuracy, loss
    answer = answers_of_study(plan, table.reset_index())[claim]
    assert answer.verdict == verdict
    assert f"in the loss on training images {percent(table.at[f'{claim}_loss', 'effect'])}" in answer.answer
    alone = table[table.index != f"{claim}_loss"].reset_index()
    shown = (claim, accuracy) == ("barrier_rit", "holds")
    assert answers_of_study(plan, alone)[claim].verdict == (YES if shown else UNKNOWN)


@pytest.mark.parametrize(
    ("accuracy", "loss", "needed"),
    [
        ("5 runs", "8 runs", "5 runs, and for the loss 8 runs"),
        ("5 runs", "5 runs", "5 runs"),
        ("5 runs", "", "5 runs"),
        (float("nan"), "8 runs", "for the loss 8 runs"),
        ("", "8 runs", "for the loss 8 runs"),
        ("", "", ""),
    ],
)
def test_what_would_tell_is_of_both_claims(
    plan: Plan, claims: tuple[pd.DataFrame, pd.DataFrame], accuracy: str | float, loss: str, needed: str
) -> None:
    """No barrier takes both claims, so each is named with what it needs where that differs, in the last sentence too."""
    card = answers_of_study(plan, open_barriers(claims[0], "no_barrier_pt", [0.01, 0.02], [accuracy, loss]))
    assert card["no_barrier_pt"].would_tell == needed
    assert (f"two P-T lie in one basin ({needed})" if needed else "two P-T lie in one basin") in card["open"].answer


@pytest.mark.parametrize("claim", ["no_barrier_pt", "barrier_rit"])
@pytest.mark.parametrize(
    ("effects", "needed"),
    [
        ([0.09, 0.01], "5 runs"),
        ([0.01, 0.09], "for the loss 8 runs"),
        ([0.09, 0.09], "5 runs, or for the loss 8 runs"),
        ([0.01, 0.01], "5 runs, and for the loss 8 runs"),
    ],
)
def test_a_barrier_in_either_would_tell(
    plan: Plan, claims: tuple[pd.DataFrame, pd.DataFrame], claim: str, effects: list[float], needed: str
) -> None:
    """A barrier takes one claim, so that which has measured one above the margin of 5 % is named alone."""
    table = open_barriers(claims[0], claim, effects, ["5 runs", "8 runs"])
    assert answers_of_study(plan, table)[claim].would_tell == needed


@pytest.mark.parametrize("claim", ["no_barrier_pt", "barrier_rit"])
def test_a_claim_that_is_decided_needs_nothing(
    plan: Plan, claims: tuple[pd.DataFrame, pd.DataFrame], claim: str
) -> None:
    """Where accuracy shows no barrier only what the loss needs is named."""
    table = open_barriers(claims[0], claim, [0.09, 0.01], ["5 runs", "8 runs"]).set_index("id")
    table.loc[claim, "verdict"] = "holds" if claim.startswith("no") else "does not hold"
    assert answers_of_study(plan, table.reset_index())[claim].would_tell == "for the loss 8 runs"


def open_barriers(claims: pd.DataFrame, claim: str, effects: list[float], needed: list[str | float]) -> pd.DataFrame:
    """The claims with one on a barrier and its twin in the loss undecided."""
    table = claims.set_index("id")
    both = [claim, f"{claim}_loss"]
    table.loc[both, "verdict"], table.loc[both, "effect"] = "cannot tell", effects
    table.loc[both, "would_tell"] = needed
    return table.reset_index()


def test_the_loss_has_its_own_number_of_comparisons(plan: Plan, claims: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Where it has fewer that is said, and where it has no number it was not compared."""
    table = claims[0].set_index("id")
    table.loc["no_barrier_pt", "verdict"] = "holds"
    table.loc["no_barrier_pt_loss", ["verdict", "effect", "low", "high", "num_comparisons"]] = "holds", 0.01, 0, 0.02, 1
    said = answers_of_study(plan, table.reset_index())["no_barrier_pt"].answer
    assert "in the loss on training images 1.0 % (0 % to 2.0 %) over 1" in said
    table.loc["no_barrier_pt_loss", ["verdict", "effect"]] = "cannot tell", float("nan")
    said = answers_of_study(plan, table.reset_index())["no_barrier_pt"].answer
    assert ", and the loss was not compared" in said
    assert "in the loss on training images" not in said


def test_an_average_is_held_against_the_union_on_each_domain(
    plan: Plan, drawn: Draw, claims: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    """Beside the mean stands what the averages of P-T lack on each domain, unless the claim leaves one out."""
    table = drawn()["cross_domain"].tables["merging"]
    answer = answers_of_study(plan, claims[0], merges=table)["merge_near_union"]
    chosen = table[(table["model"] == "uniform") & table["merge"].str.startswith("pt_soup")]
    for task in ("real", "clipart"):
        behind = chosen.loc[chosen["task"] == task, "behind_union"].mean()
        assert f"{100 * behind:.1f} points ({task})" in answer.answer
    assert [part.task for part in answer.parts] == ["real", "clipart"]
    fewer = claims[0].copy()
    fewer.loc[fewer["id"] == "merge_near_union", "num_comparisons"] -= 1
    assert not answers_of_study(plan, fewer, merges=table)["merge_near_union"].parts


def test_a_study_without_these_claims_has_no_summary(plan: Plan, claims: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Nothing is said where nothing was run."""
    assert answers_of_study(plan, claims[0].assign(num_comparisons=0)) is None


def test_the_report_opens_with_it(plan: Plan, drawn: Draw, claims: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """The answers stand before the table of claims, with links into the page."""
    card = answers_of_study(plan, claims[0], {"clipart": frozenset({"learning_curves", "cka"})})
    assert card["final_score"].figure == "clipart.learning_curves.figure"
    page = write_page(plan, *claims, drawn(), provenance={}, answers=card)
    assert page.index('<ol class="answers">') < page.index('<h2 id="claims">')
    answers = page[page.index('<ol class="answers">') : page.index("</ol>")]
    assert '<a href="#figure_2">Figure</a>' in answers
    assert '<a href="#claims">' in answers
