"""Tables of one model replaced by another: flips and the answer, agreement, groups, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.report.chapters.chapter import Section, Words, with_intervals, without_task
from transferscope.tables.formats import plain, points
from transferscope.tables.grid import Grid, from_table

NAMES = ("pair_kind", "checkpoint_a", "checkpoint_b", "class_name")
RATES = ("negative_flip_rate", "positive_flip_rate", "accuracy_gain")
FLIPS = ("num_examples", *RATES, "p_value", "images_needed", "detectable_difference")
AGREEMENT = ("changed", "same_wrong", "kappa", "kappa_max", "excess_overlap", "kappa_p", "brier_rise")
CALIBRATION = ("num_examples", "accuracy", "brier", "overconfidence", "ece", "ece_if_calibrated", "rms_error")
IN_BRACKETS = "In brackets 95 % intervals over test images."


def flips_and_answers(evidence: Evidence) -> list[Grid]:
    """A grid of flips with the answer, and one of agreement, per task."""
    grids = []
    for task, table in evidence.each("replacement"):
        margin = _margin(evidence)
        answers = [_answer(row, margin) for row in table.to_dict("records")]
        note = (
            f"{IN_BRACKETS} Needed: images with which McNemar's test finds such a difference in 80 % of test sets; "
            "detectable: the difference that so many images as these find so."
        )
        grids.append(_pairs(f"Ours: {task}, flips", task, table, FLIPS, "replacement", note, answers))
        note = f"{IN_BRACKETS} A dash: too few mistakes, or not defined."
        grids.append(_pairs(f"Ours: {task}, agreement", task, table, AGREEMENT, "replacement", note))
    return grids


def flips_of_groups(evidence: Evidence) -> list[Grid]:
    """Flips by class and by the columns asked for, and the calibration of each run."""
    grids = []
    for task, table in evidence.each("flips"):
        rows = table[table["group"] != "all"]
        if len(rows):
            measures = ("num_examples", *RATES, "p_value", "p_holm")
            note = f"{IN_BRACKETS} Holm: p-value for the many rows of a group."
            caption = f"{task}, flips by group"
            grids.append(_pairs(caption, task, rows, measures, "flips", note, names=(*NAMES, "group", "value")))
    for task, table in evidence.each("calibration"):
        note = (
            f"{IN_BRACKETS} ECE is biased upwards, by about what a calibrated model would show; the root mean square "
            "error is not."
        )
        caption, names = f"{task}, calibration", ("run", "label", "class_name")
        grids.append(_pairs(caption, task, table, CALIBRATION, "calibration", note, names=names))
    return grids


def _pairs(
    caption: str,
    task: str,
    table: pd.DataFrame,
    measures: Sequence[str],
    name: str,
    note: str,
    answers: Sequence[str] | None = None,
    names: Sequence[str] = NAMES,
) -> Grid:
    """Rows of a table, the measures with their intervals where there are such."""
    shown: dict[str, Any] = {
        one: without_task(table[one], task) for one in names if one.startswith("checkpoint") or one == "run"
    } | with_intervals(table, measures)
    columns = [*names, *measures]
    if answers is not None:
        shown["answer"] = list(answers)
        columns.insert(len(names), "answer")
    single = table["class_name"].eq("all").all()
    columns = [one for one in columns if one in table or one in shown if not (single and one == "class_name")]
    grid = from_table(caption, table.assign(**shown), columns, entry=f"{task}.{name}.table", note=note)
    return replace(grid, text_columns=sum(one in names or one == "answer" for one in columns))


def _margin(evidence: Evidence) -> float:
    """The loss of accuracy that the study accepts."""
    mistakes = evidence.plan.study.analyses.mistakes
    return mistakes.replace.margin if mistakes is not None and mistakes.replace is not None else 0.0


def _answer(row: Mapping[Any, Any], margin: float) -> str:
    """`cannot tell: -3.4 to +0.6 points, margin -2`."""
    low, high = (points(row[f"accuracy_gain_{end}"], sign=True) for end in ("low", "high"))
    if row["answer"] == "yes":
        return f"yes: loses at most {_at_least_zero(-row['accuracy_gain_low'])} points"
    if row["answer"] == "no":
        return f"no: loses at least {_at_least_zero(-row['accuracy_gain_high'])} points"
    if math.isnan(row["accuracy_gain_low"]):
        return "cannot tell: no image has a label"
    return f"cannot tell: {low} to {high} points, margin {plain(-100 * margin)}"


def _at_least_zero(loss: float) -> str:
    return points(max(loss, 0.0))


SECTION = Section(
    id="replacement",
    numbers="Beyond the paper",
    title="Can the second model replace the first?",
    see="Two models of equal accuracy may differ in many images: those that turn wrong (negative flips) are what a "
    "user of the first model notices. Two P-T should flip few images, a P-T and an RI-T many.",
    analysis="mistakes",
    option="replace",
    figures=("flips", "flip_gallery", "reliability"),
    tables=flips_and_answers,
    folded=flips_of_groups,
    note="Yes: the whole interval of the change of accuracy lies above minus the accepted loss (replace.margin); no: "
    "all of it lies below; cannot tell: neither. κ is the agreement on which images are right, beyond chance, κ max "
    "the largest that the two accuracies allow, and the excess overlap their ratio: 1 if every mistake of the better "
    "model is shared, 0 as by chance. κ p also counts which wrong answer is given, and how surely. An AUC ranks images "
    "and calls none of them right or wrong, so it has no flips; a finding is predicted where its probability is above "
    "replace.threshold (.5 by default).",
    of_files=Words(
        "Two models of equal accuracy may differ in many images: those that turn wrong (negative flips) are what a "
        "user of the first model notices.",
        "Yes: the whole interval of the change of accuracy lies above minus the accepted loss (replace.margin); no: "
        "all of it lies below; cannot tell: neither. κ is the agreement on which images are right, beyond chance, κ "
        "max the largest that the two accuracies allow, and the excess overlap their ratio: 1 if every mistake of the "
        "better model is shared, 0 as by chance. κ p also counts which wrong answer is given, and how surely.",
    ),
)
