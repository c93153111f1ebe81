"""Say which models have not learned the images, of which relative measures then say nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable

from transferscope.answers.answer import NO, UNKNOWN, Answer, PartialAnswer
from transferscope.answers.compared import Compared, Pair
from transferscope.answers.findings import MOST_NAMED
from transferscope.answers.rule import images_that_decide
from transferscope.answers.score import Score
from transferscope.answers.wording import about, count, either, listed, percent, percent_range, sentence
from transferscope.experiment.names import RunName
from transferscope.tables import formats

WOULD_TELL = "weights that have learned these images, or classes and normalisation as the model was trained with,"
"""The remedies; a trained model whose outputs stand for other classes looks as one that has learned nothing."""

Scores = dict[str, Score]
"""By run."""


def learned(compared: Compared) -> Answer | None:
    """Name the models that are not known to have learned the images; None where all have."""
    missing, unclear = (_of_verdict(compared, verdict) for verdict in (NO, UNKNOWN))
    doubted = missing | unclear
    if not doubted:
        return None
    deciding = missing or unclear
    worst = min(deciding, key=lambda run: deciding[run].value - deciding[run].chance)
    one = deciding[worst]
    return Answer(
        id="learned",
        question="Have the models learned these images?",
        answer=sentence([_not_learned(compared, missing), _not_known(compared, unclear)]),
        verdict=one.has_learned,
        value=one.value,
        low=one.low,
        high=one.high,
        unit="score",
        measure=f"test {_metric(one)} of the model that is least above guessing ({_shown(one, one.chance)})",
        models=(compared.label(worst),),
        section="replacement" if compared.figure("flips") else "",
        would_tell="" if missing else _more_images(unclear),
        parts=tuple(_part(compared, run, score) for run, score in doubted.items()) if len(doubted) > 1 else (),
    )


def why_not(compared: Compared, pair: Pair) -> str:
    """`A has not learned these images`, where that leaves no meaning to a comparison of the two; else empty."""
    missing = [run for run in (pair.first, pair.second) if _is_unlearned(compared, run)]
    return _clause(compared, missing) if missing else ""


def none_learned(compared: Compared, labels: Iterable[str]) -> bool:
    """True where it is known of each of some models that it has learned the images of no task."""
    runs = {label: [run for run, model in compared.models.items() if model.label == label] for label in labels}
    return bool(runs) and all(
        of_label and all(_is_unlearned(compared, run) for run in of_label) for of_label in runs.values()
    )


def neither_learned(compared: Compared, pair: Pair) -> bool:
    """True where both are known to be no better than guessing on the images of the pair's task."""
    return all(_is_unlearned(compared, run) for run in (pair.first, pair.second))


def _is_unlearned(compared: Compared, run: str) -> bool:
    return run in compared.scores and compared.scores[run].has_learned == NO


def _of_verdict(compared: Compared, verdict: str) -> Scores:
    known = {run: compared.scores[run] for run in compared.models if run in compared.scores}
    return {run: score for run, score in known.items() if score.has_learned == verdict}


def _part(compared: Compared, run: str, score: Score) -> PartialAnswer:
    would = _more_images({run: score}) if score.has_learned == UNKNOWN else ""
    models = (compared.label(run),)
    return PartialAnswer(RunName.parse(run).task, models, score.has_learned, score.value, score.low, score.high, would)


def _more_images(unclear: Scores) -> str:
    """Of a single model how many, if that is known: `about 200 test images`."""
    if len(unclear) == 1:
        one = next(iter(unclear.values()))
        needed = images_that_decide(one.value, one.low, one.high, one.chance, one.num_examples)
        if one.value > one.chance and math.isfinite(needed):
            return f"about {about(needed)} test images"
    return "more test images"


def _clause(compared: Compared, runs: list[str]) -> str:
    """Subject and verb of models on one task."""
    hardly = all(not compared.scores[run].is_like_guessing for run in runs)
    images = _images(compared, [RunName.parse(run).task for run in runs[:1]])
    who = listed([compared.label(run) for run in runs])
    return f"{who} {_has(runs)} {'hardly' if hardly else 'not'} learned {images}"


def _not_learned(compared: Compared, missing: Scores) -> str:
    """At most three with their numbers; all are parts of the answer."""
    if len(missing) < 2:
        return "".join(f"no, {_clause(compared, [run])}: {_of_one(score)}" for run, score in missing.items())
    models = {compared.models[run] for run in missing}
    hardly = any(not score.is_like_guessing for score in missing.values())
    who = f"{len(models)} of the {len(compared.distinct)} models {_has(models)}"
    who += " not, or hardly, learned" if hardly else " not learned"
    tasks = list(dict.fromkeys(RunName.parse(run).task for run in missing))
    on_these = [run for run in compared.models if RunName.parse(run).task in tasks]
    images = _images(compared, tasks)
    if len(missing) == len(on_these) and not hardly:
        who = "none of the models has learned"
        images = "the images of any task" if len(tasks) == len(compared.tasks) > 1 else images
    return f"no, {who} {images}: {_of_several(compared, missing)}"


def _not_known(compared: Compared, unclear: Scores) -> str:
    """Models of which guessing lies in the interval, without being known to guess."""
    if not unclear:
        return ""
    models = {compared.label(run): run for run in unclear}
    who = listed(list(models)) if len(models) <= MOST_NAMED else f"{len(models)} of the models"
    images = _images(compared, list(dict.fromkeys(RunName.parse(run).task for run in unclear)))
    numbers = _of_one(next(iter(unclear.values()))) if len(unclear) == 1 else _of_several(compared, unclear)
    return f"it cannot be told from guessing whether {who} {_has(models)} learned {images}: {numbers}"


def _has(models: Iterable[object]) -> str:
    return "has" if len(list(models)) == 1 else "have"


def _images(compared: Compared, tasks: list[str]) -> str:
    if len(compared.tasks) == 1:
        return "these images"
    if len(tasks) > MOST_NAMED:
        return f"the images of some of {count(len(tasks), 'task')}"
    return f"the images {either([f'of {task}' for task in tasks])}"


def _of_one(score: Score) -> str:
    images = count(score.num_examples, "test image")
    return f"its {_metric(score)} is {_ranged(score)} on {images}, and {_guessing(score)}"


def _of_several(compared: Compared, scores: Scores) -> str:
    """`the test accuracy of A is 12.0 %, that of B is 11.0 %, and guessing does about as well`."""
    named: list[str] = []
    before = ""
    for run, score in list(scores.items())[:MOST_NAMED]:
        subject = "that" if before == score.metric else f"the test {_metric(score)}"
        on = f" on {RunName.parse(run).task}" if len(compared.tasks) > 1 else ""
        named.append(f"{subject} of {compared.label(run)}{on} is {_ranged(score)}")
        before = score.metric
    more = len(scores) - len(named)
    guessed = {_guessing(score) for score in scores.values()}
    ends = guessed.pop() if len(guessed) == 1 else "guessing does about as well"
    return f"{', '.join(named)}{f', and {more} more; ' if more else ', and '}{ends}"


def _guessing(score: Score) -> str:
    if score.metric == "auc":
        return "guessing gives 0.5"
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
