"""The summary of a study: its main questions, answered by its claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from transferscope.answers.answer import MOST, NO, UNKNOWN, YES, Answer, AnswerCard, PartialAnswer, card
from transferscope.answers.wording import count, listed, percent, sentence
from transferscope.claims.evidence import CROSS_DOMAIN
from transferscope.claims.registry import registered
from transferscope.claims.verdict import FAILS, HOLDS
from transferscope.experiment.options import BARRIER_MARGIN
from transferscope.experiment.plan import Plan
from transferscope.measure.merge_table import ALL_TASKS
from transferscope.tables import formats

NEAR_UNION = "merge_near_union"
"""The claim whose mean over domains is also given domain by domain."""
VERDICTS = {HOLDS: YES, FAILS: NO}


@dataclass(frozen=True)
class Headline:
    """A claim whose verdict answers a main question."""

    claim: str
    question: str
    yes: str
    """The answer where the claim holds."""
    no: str
    measure: str
    """The quantity that the effect is, in words."""
    unit: str
    figure: str = ""
    loss: str = ""
    """The claim on the same lines in the loss: that there is no barrier takes both, that there is one takes either."""

    @property
    def none(self) -> str:
        """The verdict of this question and of its claims where there is no barrier."""
        return YES if self.claim.startswith("no_barrier") else NO


HEADLINES = (
    Headline(
        "final_score",
        "Does pre-training give a better model in the end?",
        "P-T ends better than RI-T",
        "P-T does not end better than RI-T",
        "the difference in the final test metric",
        "score",
        "learning_curves",
    ),
    Headline(
        "shared_mistakes_mixed",
        "Do two P-T share more of their mistakes than a P-T and an RI-T?",
        "two P-T share more of their mistakes than a P-T and an RI-T",
        "two P-T do not share more of their mistakes than a P-T and an RI-T",
        "the difference of the overlap beyond chance, as a part of the largest possible one,",
        "share",
        "mistakes",
    ),
    Headline(
        "cka_mixed",
        "Are the features of two P-T more alike than those of a P-T and an RI-T?",
        "the features of two P-T are more alike than those of a P-T and an RI-T",
        "the features of two P-T are not more alike than those of a P-T and an RI-T",
        "the difference of CKA",
        "coefficient",
        "cka",
    ),
    Headline(
        "no_barrier_pt",
        "Do two P-T lie in one basin?",
        "two P-T lie in one basin",
        "a barrier lies between two P-T",
        "the barrier as a part of what both have learned",
        "share",
        "barrier",
        loss="no_barrier_pt_loss",
    ),
    Headline(
        "barrier_rit",
        "Is there a barrier between two RI-T?",
        "a barrier lies between two RI-T",
        "no barrier lies between two RI-T",
        "the barrier as a part of what both have learned",
        "share",
        "barrier",
        loss="barrier_rit_loss",
    ),
    Headline(
        "barrier_is_permutation",
        "Is that barrier mostly permutation and scale?",
        "the barrier between two RI-T is mostly permutation and scale",
        "permutation and scale do not explain most of the barrier between two RI-T",
        "the part of it that is left once channels are matched and rescaled",
        "share",
        "connection_",
    ),
    Headline(
        NEAR_UNION,
        "Does the average of P-T of two domains replace a P-T trained on both?",
        "the average of P-T of two domains comes within 3 points of a P-T trained on both",
        "the average of P-T of two domains stays more than 3 points behind a P-T trained on both",
        "the distance behind",
        "score",
        "merging",
    ),
)  # fmt: skip
"""In the order of the report; a claim that was not run has no answer."""


def answers_of_study(
    plan: Plan,
    claims: pd.DataFrame,
    figures: Mapping[str, frozenset[str]] | None = None,
    merges: pd.DataFrame | None = None,
) -> AnswerCard | None:
    """Answer the study's main questions by its claims, in at most eight sentences; None where none of them was run.

    claims: of `decide_claims`. figures: names of the figures that were drawn, by task and `cross_domain`. merges: the
    table of merges across tasks, for what an average lacks on each.
    """
    rows = {str(row["id"]): row for row in claims.to_dict("records")}
    run = {name: row for name, row in rows.items() if int(row["num_comparisons"]) > 0}
    parts = {NEAR_UNION: _behind_by_task(plan, merges, run.get(NEAR_UNION))}
    answers = [
        _answer(one, run[one.claim], run.get(one.loss), figures or {}, parts.get(one.claim, ()))
        for one in HEADLINES
        if one.claim in run
    ]
    if not answers:
        return None
    return card(plan.study.report.title, (), [*answers[: MOST - 1], _open(run)])


def _behind_by_task(
    plan: Plan, merges: pd.DataFrame | None, claim: Mapping[Any, Any] | None
) -> tuple[PartialAnswer, ...]:
    """Distances of plain averages of fine-tuned runs behind the model of all images, task by task.

    None where the claim left one of these merges out, so that both numbers are of the same merges.
    """
    if merges is None or merges.empty or claim is None:
        return ()
    tuned = [
        spec
        for spec in plan.merges()
        if {plan.runs[name].role for name in spec.candidates} == {"fine_tuned"}
        and spec.scope == CROSS_DOMAIN
        and spec.union is not None
    ]
    if len(tuned) != int(claim["num_comparisons"]):
        return ()
    rows = merges[merges["merge"].isin([spec.name for spec in tuned]) & (merges["model"] == "uniform")]
    means = rows[rows["task"] != ALL_TASKS].groupby("task", sort=False)["behind_union"].mean().dropna()
    labels = tuple(dict.fromkeys(spec.label for spec in tuned))
    return tuple(PartialAnswer(str(task), labels, value=float(value)) for task, value in means.items())


def _verdict(one: Headline, row: Mapping[Any, Any], loss: Mapping[Any, Any] | None) -> str:
    """That of the claim; of a barrier together with the claim on the loss, so that no barrier takes both."""
    verdict = VERDICTS.get(str(row["verdict"]), UNKNOWN)
    if not one.loss:
        return verdict
    both = (verdict, VERDICTS.get(str(loss["verdict"]), UNKNOWN) if loss is not None else UNKNOWN)
    some = NO if one.none == YES else YES
    return some if some in both else one.none if set(both) == {one.none} else UNKNOWN


def _number(one: Headline, row: Mapping[Any, Any]) -> str:
    """The effect of a claim with its interval."""
    effect, low, high = (float(row[name]) for name in ("effect", "low", "high"))
    show = SHOWN[one.unit]
    if not (math.isfinite(low) and math.isfinite(high)):
        return show(effect)
    ends = [show(end).removesuffix(" points") for end in (low, high)]
    return f"{show(effect)} ({ends[0]} to {ends[1]})"


def _answer(
    one: Headline,
    row: Mapping[Any, Any],
    loss: Mapping[Any, Any] | None,
    figures: Mapping[str, frozenset[str]],
    parts: tuple[PartialAnswer, ...],
) -> Answer:
    """loss: the claim on the same lines in the loss; None where it was not run, or the question is not of barriers."""
    verdict = _verdict(one, row, loss)
    show, number = SHOWN[one.unit], _number(one, row)
    said = one.yes if verdict == YES else one.no
    if verdict == UNKNOWN:
        said = f"it cannot be told whether {one.yes}"
    said += f": {one.measure} is {number} over {count(int(row['num_comparisons']), 'comparison')}"
    if loss is not None and math.isfinite(float(loss["effect"])):
        said += f", and in the loss on training images {_number(one, loss)}"
        if loss["num_comparisons"] != row["num_comparisons"]:
            said += f" over {int(loss['num_comparisons']):,}"
    elif one.loss and verdict == UNKNOWN:
        said += ", and the loss was not compared"
    if parts:
        said += f", by domain {listed([f'{show(part.value)} ({part.task})' for part in parts])}"
    covers = f"the interval covers {row['covers']}" if isinstance(row["covers"], str) and row["covers"] else ""
    would = _would(row, loss) if verdict == UNKNOWN else ""
    return Answer(
        id=one.claim,
        question=one.question,
        answer=sentence([said, covers]),
        verdict=verdict,
        value=float(row["effect"]),
        low=float(row["low"]),
        high=float(row["high"]),
        unit=one.unit,
        measure=one.measure.removeprefix("the ").rstrip(","),
        figure=_figure(one.figure, figures),
        section=registered()[one.claim].section,
        would_tell=would,
        parts=parts,
    )


SHOWN: Mapping[str, Callable[[float], str]] = {
    "score": lambda value: f"{formats.points(value)} points",
    "share": percent,
    "coefficient": lambda value: formats.decimals(value, 2),
}


def _would(row: Mapping[Any, Any], loss: Mapping[Any, Any] | None) -> str:
    """The studies that would tell, of the claim and of that on the loss; empty where none is known.

    That there is no barrier takes both claims, so each open one is named, once where both need the same. That there is
    one takes either: where a measured barrier is above the margin, showing it settles the question, and what the other
    claim needs is not asked for.
    """
    if loss is None:
        return _text(row["would_tell"])
    open_ = [claim for claim in (row, loss) if VERDICTS.get(str(claim["verdict"]), UNKNOWN) == UNKNOWN]
    higher = [claim for claim in open_ if float(claim["effect"]) > BARRIER_MARGIN and _text(claim["would_tell"])]
    asked = higher or open_
    first, second = (_text(claim["would_tell"]) if claim in asked else "" for claim in (row, loss))
    if second in ("", first):
        return first
    joined = "or" if higher else "and"
    return f"{first}, {joined} for the loss {second}" if first else f"for the loss {second}"


def _text(cell: object) -> str:
    """A cell of text, which is missing where a table was read without it."""
    return cell if isinstance(cell, str) else ""


def _figure(name: str, figures: Mapping[str, frozenset[str]]) -> str:
    for task, names in figures.items():
        for drawn in sorted(names):
            if drawn == name or (name.endswith("_") and drawn.startswith(name)):
                return f"{task}.{drawn}.figure"
    return ""


def _open(run: Mapping[str, Mapping[Any, Any]]) -> Answer:
    """Count the claims that are decided, and name which of the main ones are not, and what would tell."""
    verdicts = [str(row["verdict"]) for row in run.values()]
    held, failed = verdicts.count(HOLDS), verdicts.count(FAILS)
    undecided = len(run) - held - failed
    open_ = [
        one for one in HEADLINES if one.claim in run and _verdict(one, run[one.claim], run.get(one.loss)) == UNKNOWN
    ]
    counts = f"of {count(len(run), 'claim')} that were run {held} hold, {failed} do not, and {undecided} cannot be told"
    needed = [_would(run[one.claim], run.get(one.loss)) for one in open_]
    left = [f"{one.yes} ({would})" if would else one.yes for one, would in zip(open_, needed, strict=True)]
    parts = [counts, f"of the questions above it cannot be told whether {listed(left)}" if left else ""]
    return Answer(
        id="open",
        question="What could not be told, and what would tell?",
        answer=sentence(parts),
        verdict=UNKNOWN if undecided else "",
        value=float(undecided),
        unit="count",
        measure="claims that cannot be told",
        section="claims",
    )
