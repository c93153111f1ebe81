"""Answer whether averaging pays, and where the merged model lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from transferscope.answers.answer import NO, UNKNOWN, YES, Answer, PartialAnswer
from transferscope.answers.compared import Compared, Row, run_of
from transferscope.answers.findings import MOST_NAMED
from transferscope.answers.learned import WOULD_TELL, none_learned
from transferscope.answers.rule import images_that_decide, ranged
from transferscope.answers.same_function import Relation, is_rounded_copy, relation
from transferscope.answers.wording import (
    count,
    listed,
    more_images,
    percent,
    percent_range,
    point_range,
    sentence,
    signed,
)
from transferscope.measure.merge_table import ALL_TASKS
from transferscope.tables import formats

METHODS = {
    "uniform": "the plain average",
    "greedy": "the greedy average",
    "wise_ft": "the interpolation with the parent (WiSE-FT)",
    "task_arithmetic": "task arithmetic",
    "ties": "TIES",
    "fisher": "the average weighted by Fisher information",
    "regmean": "RegMean",
    "aligned": "the average with matched channels",
    "aligned_rescaled": "the average with matched and rescaled channels",
}
FROM_PARENT = ("wise_ft", "task_arithmetic", "ties")
"""Methods that need the parent, which is no candidate."""
VERDICTS = {"pays": YES, "does not pay": NO, "cannot tell": UNKNOWN}


def averaging(compared: Compared) -> Answer | None:
    """Answer by the verdict of the merge that was chosen; None where nothing was merged.

    Of several tasks the mean over them decides; of several merges the one that gains most among those that pay, else
    among those of which it cannot be told.
    """
    table = compared.tables.get("merging")
    if table is None or table.empty:
        return _of_one_function(compared)
    merges = table.groupby("merge", sort=False)
    answers = [one for name, rows in merges if (one := _of_merge(compared, str(name), rows)) is not None]
    if len(answers) < 2:
        return answers[0] if answers else None
    by_verdict = {verdict: [one for one in answers if one.verdict == verdict] for verdict in (YES, UNKNOWN, NO)}
    shown = max(next(filter(None, by_verdict.values())), key=lambda one: one.value)
    numbers = {verdict: len(of_verdict) for verdict, of_verdict in by_verdict.items()}
    said = [f"{numbers[YES]} of {len(answers)} merges pay{'s' if numbers[YES] == 1 else ''}"]
    said += [f"of {numbers[UNKNOWN]} it cannot be told"] if numbers[UNKNOWN] else []
    first = f"{shown.answer[:1].lower()}{shown.answer[1:-1]}"
    text = sentence([*said, f"of {listed(shown.models)} the answer is {first}"])
    return replace(shown, question="Does averaging pay?", answer=text, parts=sum((one.parts for one in answers), ()))


def _of_merge(compared: Compared, name: str, rows: pd.DataFrame) -> Answer | None:
    """The answer of one merge, with a part for each task where it was judged on several."""
    mean = rows["task"] == ALL_TASKS
    whole = rows[mean] if mean.any() else rows
    chosen = whole["chosen"].astype(bool)
    merged, single = (whole[(whole["kind"] == kind) & chosen].to_dict("records") for kind in ("merge", "candidate"))
    if not merged or not single:
        return None
    by_task = rows[~mean & (rows["kind"] == "merge") & rows["chosen"].astype(bool)] if mean.any() else rows[:0]
    return _answer(compared, name, merged[0], single[0], whole, by_task.to_dict("records"))


def _of_one_function(compared: Compared) -> Answer | None:
    """Equal weights need no average."""
    pairs = compared.pairs_of_weights
    if len(pairs) != 1 or relation(compared, pairs[0]) not in (Relation.EQUAL, Relation.ROUNDED):
        return None
    models = compared.labels(pairs[0])
    return Answer("averaging", _question(models), sentence([_same_again(compared)]), NO, models=models)


def _same_again(compared: Compared) -> str:
    pair = compared.pairs_of_weights[0]
    if relation(compared, pair) is Relation.PERMUTED:
        both, first = compared.both(pair), compared.label(pair.first)
        return (
            f"no, {both} are one function, and their average with matched channels gives the weights of {first} again"
        )
    rounded = ", but for rounding" if is_rounded_copy(compared, pair) else ""
    return f"no, the average of {compared.both(pair)} gives the same weights again{rounded}"


def _file_of_one_function(compared: Compared, row: Row, single: Row, file: str) -> str:
    """Say what the file holds: a merge has other statistics of BatchNorm, and may have matched no channels."""
    if not file:
        return ""
    gain, low, high = ranged(row, "gain")
    change, best = _change(row), _label(compared, str(single["model"]))
    if relation(compared, compared.pairs_of_weights[0]) is Relation.PERMUTED and "aligned" not in str(row["model"]):
        method = METHODS.get(str(row["model"]), str(row["model"]))
        return f"{file} holds another merge ({method}), which scores {change} against {best}"
    where = f"the merged weights lie in {file}"
    if gain == 0:
        return where
    images = count(int(row["num_examples"]), "test image")
    change = f"{change} of test {formats.metric_name(row['metric'])} on {images} against {best} as it is"
    if not compared.has_batchnorm(compared.pairs_of_weights[0]):
        return f"{where}, which by rounding scores {change}"
    statistics = "other statistics of BatchNorm (from images that do not judge), which make it another model"
    use = "" if low > 0 else f"; {best} is better" if high < 0 else "; nothing measured speaks for that file"
    return f"{where}, with {statistics}: {change}{use}"


def _question(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"Does merging {names[0]} with its parent pay?"
    return f"Does averaging {listed(names)} pay?" if len(names) <= 4 else f"Does averaging the {len(names)} models pay?"


def _answer(compared: Compared, name: str, row: Row, single: Row, rows: pd.DataFrame, by_task: Sequence[Row]) -> Answer:
    verdict = VERDICTS[str(row["verdict"])]
    rival = _rival(row, single, rows) if verdict == YES else None
    verdict = UNKNOWN if rival is not None else verdict
    gain, low, high = ranged(row, "gain")
    best, method = _label(compared, str(single["model"])), METHODS.get(str(row["model"]), str(row["model"]))
    candidates, with_batchnorm = _candidates(compared, rows), _with_batchnorm(compared, rows)
    if row["model"] == "wise_ft":
        end = "the average" if len(candidates) > 1 else candidates[0]
        method = f"the interpolation from the parent to {end} (WiSE-FT, {row['setting']})"
    if row["model"] == "aligned_rescaled" and with_batchnorm:
        method = METHODS["aligned"]  # recomputed statistics are the correction of the scale
    tried = int(((rows["kind"] == "merge") & (rows["task"] == row["task"])).sum())
    images = count(int(row["num_examples"]), "other test image" if tried > 1 else "test image")
    if by_task:
        images = f"{images} (mean over {_tasks([str(one['task']) for one in by_task])})"
    file = compared.merged.get(name, "")
    merged = "weights of the chosen merge" if tried > 1 else "merged weights"
    where = f"the {merged} lie in {file}" if file else ""
    choosing = f"{int(row['num_choice']):,}"
    one = method
    best_on = f"{choosing} others"
    if tried > 1:
        one = f"{method}, chosen from {tried} methods and their settings on {choosing} test images,"
        best_on = f"those {choosing}"
    against = f"{_change(row)} against {best}, {_best_of(candidates)} on {best_on}"
    if (rows["model"].isin(FROM_PARENT) & (rows["kind"] == "merge")).any():
        against += " (the parent itself was not scored)"
    would, left_open = "", ""
    pairs = compared.pairs_of_weights
    alone = len(pairs) == 1 and (relation(compared, pairs[0]).by_weights or is_rounded_copy(compared, pairs[0]))
    if alone:
        verdict = NO
        parts, where = [_same_again(compared)], _file_of_one_function(compared, row, single, file)
    elif _kept_one(row):
        verdict = NO
        parts = [f"no, {method} kept one model alone, so no average of several was better on the images that choose"]
    else:
        opening = "it cannot be told:" if verdict == UNKNOWN else f"{verdict},"
        parts = [f"{opening} {one} scores {_score(row)} on {images}, {against}", _gains(by_task)]
        if rival is not None:
            would = "more test images that judge"
            parts[0] += f", but {_label(compared, str(rival['model']))} scores {_score(rival)}"
        elif verdict == UNKNOWN:
            needed = images_that_decide(gain, low, high, 0.0, float(row["num_examples"]))
            judging = float(row["num_examples"]) / (float(row["num_examples"]) + float(row["num_choice"]))
            would = f"{more_images(needed / judging)}, of which {100 * judging:.0f} % judge,"
            left_open = "whether the chosen merge pays" if tried > 1 else ""
    if not alone and row["model"] != "uniform":
        parts.append(_plain_average(rows, row, best))
    if where and not alone and with_batchnorm:
        where += ", with statistics of BatchNorm from images that do not judge, where single models keep their own"
    if none_learned(compared, candidates) and not alone:
        return Answer(
            id="averaging",
            question=_question(candidates),
            answer=sentence(["it cannot be told, because none of the models has learned the images", where]),
            verdict=UNKNOWN,
            models=candidates,
            section="merging",
            file=file,
            would_tell=WOULD_TELL,
        )
    return Answer(
        id="averaging",
        question=_question(candidates),
        answer=sentence([*parts, where]),
        verdict=verdict,
        value=gain,
        low=low,
        high=high,
        unit="score",
        measure=f"{row['metric']} of the merge less that of the single model that other images chose",
        models=candidates,
        figure=compared.figure("merging"),
        section="merging",
        file=file,
        would_tell=would,
        left_open=left_open,
        parts=tuple(
            PartialAnswer(str(one["task"]), candidates, VERDICTS[str(one["verdict"])], *ranged(one, "gain"))
            for one in by_task
        ),
    )


def _with_batchnorm(compared: Compared, rows: pd.DataFrame) -> bool:
    """True where the candidates have BatchNorm, by their pairs, or by the distance of a single one from its parent."""
    runs = {run_of(str(name)) for name in rows.loc[rows["kind"] == "candidate", "model"]}
    distances = compared.tables.get("distances", pd.DataFrame())
    if "num_statistics" in distances.columns:
        own = distances["checkpoint_a"].map(run_of).isin(runs)
        if distances.loc[own, "num_statistics"].any():
            return True
    return any(compared.has_batchnorm(pair) for pair in compared.pairs_of_weights if {pair.first, pair.second} <= runs)


def _plain_average(rows: pd.DataFrame, row: Row, best: str) -> str:
    """The score of the plain average on the same images, where another merge was chosen.

    best: the single model that other images chose.
    """
    plain = rows[(rows["model"] == "uniform") & (rows["task"] == row["task"])].to_dict("records")
    if not plain:
        return ""
    images = f"the same {count(int(row['num_examples']), 'test image')}"
    return f"on {images} the plain average scores {_score(plain[0])}, {_change(plain[0])} against {best}"


def _change(row: Row) -> str:
    """`+1.2 points (-0.5 to +2.9)`: the gain over the best single model."""
    gain, low, high = ranged(row, "gain")
    return f"{signed(gain)} points{point_range(low, high, sign=True)}"


def _rival(row: Row, single: Row, rows: pd.DataFrame) -> Row | None:
    """The best candidate that the merge is not known to beat, though it beats the one that other images chose.

    The difference of two gains over one model is taken to vary as if they were independent, which is more than they do.
    """
    gain, low, _ = ranged(row, "gain")
    rivals = []
    for other in rows[rows["kind"] == "candidate"].to_dict("records"):
        theirs, _, high = ranged(other, "gain")
        beaten = gain - theirs > math.hypot(gain - low, high - theirs)
        if other["model"] != single["model"] and not beaten:
            rivals.append(other)
    return max(rivals, key=lambda other: float(other["value"]), default=None)


def _best_of(candidates: Sequence[str]) -> str:
    """`the better of A and B`; of one model that is merged with its parent nothing was chosen."""
    if len(candidates) < 2:
        return "the best single model"
    named = listed(candidates) if len(candidates) <= MOST_NAMED else f"the {len(candidates)} candidates"
    return f"the {'better' if len(candidates) == 2 else 'best'} of {named}"


def _tasks(names: list[str]) -> str:
    return listed(names) if len(names) <= MOST_NAMED else f"{len(names)} tasks"


def _gains(by_task: Sequence[Row]) -> str:
    """`by task from -0.3 points (photos) to +1.2 points (sketches)`."""
    ordered = sorted(by_task, key=lambda row: float(row["gain"]))
    ends = [f"{signed(float(row['gain']))} points ({row['task']})" for row in ordered]
    return f"by task from {ends[0]} to {ends[-1]}" if ends else ""


def _kept_one(row: Row) -> bool:
    """True of a greedy average of one model."""
    return row["model"] == "greedy" and str(row["setting"]).startswith("1 of ")


def _label(compared: Compared, name: str) -> str:
    run = run_of(name)
    return compared.models[run].label if run in compared.models else name


def _candidates(compared: Compared, rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_label(compared, str(one)) for one in rows.loc[rows["kind"] == "candidate", "model"]))


def _score(row: Row) -> str:
    value, low, high = ranged(row, "value")
    if row["metric"] == "accuracy":
        return f"{percent(value)}{percent_range(low, high)}"
    return f"an AUC of {formats.decimals(value)} ({formats.decimals(low)} to {formats.decimals(high)})"
