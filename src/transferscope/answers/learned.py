"""Say which models have not learned the images, of which relative measures then say nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable

from transferscope.answers.answer import NO, Answer, PartialAnswer
from transferscope.answers.compared import Compared, Pair
from transferscope.answers.findings import MOST_NAMED
from transferscope.answers.score import Score
from transferscope.answers.wording import count, listed, percent, percent_range, sentence
from transferscope.experiment.names import RunName
from transferscope.tables import formats

WOULD_TELL = "weights that have learned these images, or classes and normalisation as the model was trained with,"
"""The remedies; a trained model whose outputs stand for other classes looks as one that has learned nothing."""


def learned(compared: Compared) -> Answer | None:
    """Name the models that are no better, or hardly better, than guessing; None where there are none."""
    missing = {run: score for run in compared.models if (score := _unlearned(compared, run)) is not None}
    if not missing:
        return None
    worst = min(missing, key=lambda run: missing[run].value - missing[run].chance)
    only = next(iter(missing.values())) if len(missing) == 1 else None
    one = missing[worst]
    return Answer(
        id="learned",
        question="Have the models learned these images?",
        answer=sentence([_of_one(compared, worst, only) if only is not None else _of_many(compared, missing)]),
        verdict=NO,
        value=one.value,
        low=one.low,
        high=one.high,
        unit="score",
        measure=f"test {_metric(one)} of the model that is least above guessing ({_shown(one, one.chance)})",
        models=(compared.label(worst),),
        section="replacement" if compared.figure("flips") else "",
        parts=tuple(
            PartialAnswer(RunName.parse(run).task, (compared.label(run),), NO, score.value, score.low, score.high)
            for run, score in missing.items()
        )
        if only is None
        else (),
    )


def why_not(compared: Compared, pair: Pair) -> str:
    """`A has not learned these images`, where that leaves no meaning to a comparison of the two; else empty."""
    missing = [run for run in (pair.first, pair.second) if _unlearned(compared, run) is not None]
    return _clause(compared, missing) if missing else ""


def none_learned(compared: Compared, labels: Iterable[str]) -> bool:
    """True where it is known of each of some models that it has learned the images of no task."""
    runs = {label: [run for run, model in compared.models.items() if model.label == label] for label in labels}
    return bool(runs) and all(
        of_label and all(_unlearned(compared, run) is not None for run in of_label) for of_label in runs.values()
    )


def neither_learned(compared: Compared, pair: Pair) -> bool:
    """True where both are no better than guessing on the images of the pair's task."""
    return all(_unlearned(compared, run) is not None for run in (pair.first, pair.second))


def _unlearned(compared: Compared, run: str) -> Score | None:
    score = compared.scores.get(run)
    return score if score is not None and not score.has_learned else None


def _clause(compared: Compared, runs: list[str]) -> str:
    """Subject and verb of models on one task."""
    hardly = all(not compared.scores[run].is_like_guessing for run in runs)
    images = f"the images of {RunName.parse(runs[0]).task}" if len(compared.tasks) > 1 else "these images"
    has = "has" if len(runs) == 1 else "have"
    return f"{listed([compared.label(run) for run in runs])} {has} {'hardly' if hardly else 'not'} learned {images}"


def _of_one(compared: Compared, run: str, score: Score) -> str:
    return (
        f"no, {_clause(compared, [run])}: its {_metric(score)} is {_ranged(score)} on "
        f"{count(score.num_examples, 'test image')}, and {_guessing(score)}"
    )


def _of_many(compared: Compared, missing: dict[str, Score]) -> str:
    """At most three with their numbers; all are parts of the answer."""
    several = len(compared.tasks) > 1
    named: list[str] = []
    for run, score in list(missing.items())[:MOST_NAMED]:
        of = f"{compared.label(run)}{f' on {RunName.parse(run).task}' if several else ''} is {_ranged(score)}"
        named.append(f"{'that' if named else f'the test {_metric(score)}'} of {of}")
    if more := len(missing) - len(named):
        named.append(f"{more} more {'is' if more == 1 else 'are'} as low")
    models = {compared.models[run] for run in missing}
    hardly = any(not score.is_like_guessing for score in missing.values())
    who = f"{len(models)} of the {len(compared.distinct)} models {'has' if len(models) == 1 else 'have'}"
    who += " not, or hardly, learned" if hardly else " not learned"
    if len(models) == len(compared.distinct) > 1 and not hardly:
        who = "none of the models has learned"
    guessed = {_guessing(score) for score in missing.values()}
    ends = guessed.pop() if len(guessed) == 1 else "guessing does about as well"
    return f"no, {who} {'images of some task' if several else 'these images'}: {', '.join(named)}, and {ends}"


def _guessing(score: Score) -> str:
    if score.metric == "auc":
        return "guessing gives .5"
    return f"always naming the most frequent class gives {percent(score.chance)}"


def _metric(score: Score) -> str:
    return "AUC" if score.metric == "auc" else "accuracy"


def _ranged(score: Score) -> str:
    if score.metric == "accuracy":
        return f"{percent(score.value)}{percent_range(score.low, score.high)}"
    ends = "" if math.isnan(score.low) else f" ({formats.decimals(score.low)} to {formats.decimals(score.high)})"
    return f"{formats.decimals(score.value)}{ends}"


def _shown(score: Score, value: float) -> str:
    return percent(value) if score.metric == "accuracy" else formats.decimals(value)
