"""Answer whether averaging pays, and where the merged model lies."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd

from transferscope.answers.answer import NO, UNKNOWN, YES, Answer
from transferscope.answers.compared import Compared, run_of
from transferscope.answers.rule import images_that_decide, ranged
from transferscope.answers.same_function import Relation, relation
from transferscope.answers.wording import about, count, listed, percent, percent_range, point_range, points, sentence
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
VERDICTS = {"pays": YES, "does not pay": NO, "cannot tell": UNKNOWN}


def averaging(compared: Compared) -> Answer | None:
    """Answer by the verdict of the merge that was chosen; None where nothing was merged."""
    table = compared.tables.get("merging")
    if table is None or table.empty:
        return _of_one_function(compared)
    (name, rows), *others = table.groupby("merge", sort=False)
    rows = rows[rows["task"] == "all"] if (rows["task"] == "all").any() else rows
    merged = rows[(rows["kind"] == "merge") & rows["chosen"].astype(bool)]
    single = rows[(rows["kind"] == "candidate") & rows["chosen"].astype(bool)]
    if merged.empty or single.empty:
        return None
    answer = _answer(compared, str(name), merged.to_dict("records")[0], single.to_dict("records")[0], rows)
    if others:
        more = f"{count(len(others), 'further merge')} in the section on averaging"
        return replace(answer, answer=f"{answer.answer[:-1]}; {more}.")
    return answer


def _of_one_function(compared: Compared) -> Answer | None:
    """Equal weights need no average."""
    if len(compared.pairs) != 1 or relation(compared, compared.pairs[0]) not in (Relation.EQUAL, Relation.ROUNDED):
        return None
    pair = compared.pairs[0]
    return Answer("averaging", _question(compared), sentence([_same_again(compared)]), NO, models=compared.labels(pair))


def _same_again(compared: Compared) -> str:
    pair = compared.pairs[0]
    if relation(compared, pair) is Relation.PERMUTED:
        return f"no, {compared.both(pair)} are one function, which their average with matched channels is again"
    return f"no, the average of {compared.both(pair)} is the same model again"


def _question(compared: Compared) -> str:
    names = [model.label for model in compared.models.values()]
    if len(names) == 1:
        return f"Does merging {names[0]} with its parent pay?"
    return f"Does averaging {listed(names)} pay?" if len(names) <= 4 else f"Does averaging the {len(names)} models pay?"


def _answer(compared: Compared, name: str, row: dict[Any, Any], single: dict[Any, Any], rows: pd.DataFrame) -> Answer:
    verdict = VERDICTS[str(row["verdict"])]
    gain, low, high = ranged(row, "gain")
    best, method = _label(compared, str(single["model"])), METHODS.get(str(row["model"]), str(row["model"]))
    images = count(int(row["num_examples"]), "test image")
    file = compared.merged.get(name, "")
    where = f"the merged weights lie in {file}" if file else ""
    tried = int(((rows["kind"] == "merge") & (rows["task"] == row["task"])).sum())
    one = method if tried == 1 else f"{method}, chosen from {tried} merges on other images,"
    would = ""
    kept = _kept_one(row)
    alone = len(compared.pairs) == 1 and relation(compared, compared.pairs[0]).by_weights
    if alone:
        verdict = NO
        parts = [_same_again(compared)]
    elif kept:
        verdict = NO
        parts = [f"no, {method} kept one model alone, so no average of several was better on the images that choose"]
    elif verdict == YES:
        rise = f"{points(gain)}{point_range(low, high)} more than {best}, the best single model"
        parts = [f"yes, {one} scores {_score(row)} on {images}, {rise}"]
    elif verdict == NO:
        fall = f"{points(-gain)}{point_range(-high, -low)} less than {best}, the best single model"
        parts = [f"no, {one} scores {_score(row)} on {images}, {fall}"]
    else:
        needed = images_that_decide(gain, low, high, 0.0, float(row["num_examples"]))
        would = f"about {about(needed)} test images that judge" if math.isfinite(needed) else "more test images"
        parts = [
            f"it cannot be told: {one} scores {_score(row)} on {images}, {formats.points(gain, sign=True)} points"
            f"{point_range(low, high, sign=True)} against {best}, the best single model"
        ]
    return Answer(
        id="averaging",
        question=_question(compared),
        answer=sentence([*parts, where]),
        verdict=verdict,
        value=gain,
        low=low,
        high=high,
        unit="score",
        measure=f"{row['metric']} of the merge less that of the best single model",
        models=tuple(_candidates(compared, rows)),
        figure=compared.figure("merging"),
        section="merging",
        file=file,
        would_tell=would,
    )


def _kept_one(row: dict[Any, Any]) -> bool:
    """True of a greedy average of one model."""
    return row["model"] == "greedy" and str(row["setting"]).startswith("1 of ")


def _label(compared: Compared, name: str) -> str:
    run = run_of(name)
    return compared.models[run].label if run in compared.models else name


def _candidates(compared: Compared, rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(_label(compared, str(one)) for one in rows.loc[rows["kind"] == "candidate", "model"]))


def _score(row: dict[Any, Any]) -> str:
    value, low, high = ranged(row, "value")
    if row["metric"] == "accuracy":
        return f"{percent(value)}{percent_range(low, high)}"
    return f"an AUC of {formats.decimals(value)} ({formats.decimals(low)} to {formats.decimals(high)})"
