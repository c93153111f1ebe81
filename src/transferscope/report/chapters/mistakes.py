"""Common and uncommon mistakes, beside the paper's Tables 3 to 6 and Figure 8 (appendix B.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.report import published
from transferscope.report.chapters import replacement
from transferscope.report.chapters.chapter import (
    Chapter,
    Section,
    Words,
    interval,
    joined,
    per_task,
    with_intervals,
    without_task,
)
from transferscope.tables.columns import column
from transferscope.tables.formats import cell
from transferscope.tables.grid import Grid, from_table

PAIR = ("pair_kind", "checkpoint_a", "checkpoint_b")
HOW = {
    "accuracy_a": "mean", "accuracy_b": "mean", "only_a_correct": "sum", "only_b_correct": "sum",
    "common_mistakes": "sum", "uncommon_ratio_a": "mean", "uncommon_ratio_b": "mean", "kappa": "mean",
}  # fmt: skip
"""Text between the measures of several classes."""
MEASURES = (*HOW, "mcnemar_p")
SPREAD = ("accuracy_a", "accuracy_b", "uncommon_ratio_a", "uncommon_ratio_b", "uncommon_ratio_difference", "kappa")
INTERVAL = "In brackets 95 % intervals over examples."
CONVENTION = "g1 is “only first right”, g2 is “only second right”, r1 and r2 are “uncommon”."


def mistakes(evidence: Evidence) -> list[Grid]:
    """One grid per task: every pair; for multi-label tasks the sum over classes, with the mean of the ratios."""
    grids = []
    for task, table in evidence.each("mistakes"):
        rows, note = table[table["class_name"] == "all"], INTERVAL
        if rows.empty:
            rows = table.groupby(list(PAIR), sort=False).agg(HOW).reset_index()
            note = (
                "Counts are summed over the classes, ratios are means over them. Of several labels an image each is "
                "predicted where its probability is above .5."
            )
        convention = "" if evidence.plan.compares_files else f"{CONVENTION} "
        grids.append(_pairs(f"Ours: {task}", task, rows, PAIR, f"{convention}{note}"))
    return grids + spread_over_pairs(evidence)


def mistakes_per_class(evidence: Evidence) -> list[Grid]:
    """Tables 3 to 5 and ours: every class of every pair, where classes are judged one by one."""
    paper = [published.TABLE_3, published.TABLE_4, published.TABLE_5]
    grids = [] if evidence.plan.compares_files else paper
    for task, table in evidence.each("mistakes"):
        rows = table[table["class_name"] != "all"]
        if not rows.empty:
            grids.append(_pairs(f"{task}, class by class", task, rows, (*PAIR, "class_name"), INTERVAL))
    return grids


def spread_over_pairs(evidence: Evidence) -> list[Grid]:
    """Mean over the pairs of a kind, with their range and the interval over examples."""
    grids = []
    for task, table in evidence.each("mistakes_spread"):
        if evidence.plan.compares_files and (table["num_pairs"] == 1).all():
            continue  # the table of pairs says it
        rows = []
        for (kind, name), part in table.groupby(["pair_kind", "class_name"], sort=False):
            by_statistic = {row["statistic"]: row for row in part.to_dict("records")}
            cells = (_with_spread(statistic, by_statistic[statistic]) for statistic in SPREAD)
            rows.append((str(kind), str(name), str(int(part["num_pairs"].iloc[0])), *cells))
        columns = ("pair", "class", "pairs", *(column(name).heading for name in SPREAD))
        several = (table["num_pairs"] > 1).any()
        note = f"Mean (smallest to largest pair). {INTERVAL} They are means of the pairs' intervals."
        note = note if several else INTERVAL
        caption, entry = f"Ours: {task}, spread over the pairs of a kind", f"{task}.mistakes_spread.table"
        grids.append(Grid(caption, columns, tuple(rows), note=note, entry=entry, text_columns=2))
    return grids


def class_size_correlation(evidence: Evidence) -> list[Grid]:
    """Pearson correlation of each run, and of the accuracies averaged over the runs of a kind (run "mean")."""
    columns = ("task", "label", "run", "pearson_r", "p_value", "num_classes")
    return joined(evidence, "class_size_correlation", "Ours: correlation with class size", columns)


def class_accuracy(evidence: Evidence) -> list[Grid]:
    """Accuracy of every class and run."""
    columns = ("run", "class_name", "class_size", "num_test", "accuracy")
    return per_task(evidence, "class_accuracy", ", class by class", columns)


def _pairs(caption: str, task: str, rows: pd.DataFrame, names: tuple[str, ...], note: str) -> Grid:
    """Rows of the table of mistakes, the ratios and kappa with their intervals where the rows have them."""
    texts = with_intervals(rows, (name for name in MEASURES if not name.startswith("accuracy")))
    shown = {name: without_task(rows[name], task) for name in ("checkpoint_a", "checkpoint_b")}
    table = rows.assign(**texts, **shown)
    grid = from_table(caption, table, [*names, *MEASURES], entry=f"{task}.mistakes.table", note=note)
    return replace(grid, text_columns=len(names))


def _with_spread(statistic: str, row: Mapping[Any, Any]) -> str:
    """`18.2 % (17.9 % to 18.5 %) [15.1 %, 21.0 %]`; the range only where there are several pairs."""
    mean, low, high = (cell(row[name], column(statistic).show) for name in ("mean", "min", "max"))
    spread = f" ({low} to {high})" if low != high else ""
    return mean + spread + interval(row["low"], row["high"], column(statistic).show)


CHAPTER = Chapter(
    title="Mistakes",
    appendix="B.2",
    sections=(
        Section(
            id="tables_3_6",
            numbers="Tables 3, 4, 5, 6",
            title="Common and uncommon mistakes",
            see="Of a P-T and an RI-T, the RI-T should make far more mistakes that are only its own; two P-T should "
            "share most of theirs.",
            analysis="mistakes",
            figures=("mistakes", "disagreement_matrix"),
            paper=(published.TABLE_6,),
            tables=mistakes,
            folded=mistakes_per_class,
            note="Uncommon, first: mistakes that only the first model makes / all mistakes of the first model. "
            "g1 counts what only the first model gets right; the paper's Table 6 prints the other convention "
            "(g1: only the first is wrong), so its two counts are exchanged here. "
            "The accuracies printed in Tables 3 to 5 do not follow from their counts and are left out.",
            of_files=Words(
                "Test images that one model alone gets right, and those that neither does.",
                "Uncommon, first: mistakes that only the first model makes / all mistakes of the first model. κ: "
                "agreement on which images are right, beyond chance.",
            ),
        ),
        Section(
            id="figure_8",
            numbers="Figure 8",
            title="Accuracy and class size",
            see="P-T should lie above RI-T for most classes, and its accuracy should follow the class size more "
            "closely.",
            analysis="mistakes",
            figures=("accuracy_by_class_size",),
            paper=(published.FIGURE_8,),
            tables=class_size_correlation,
            folded=class_accuracy,
            note="Pearson's r with its two-sided p-value; with few classes r is a rough number.",
        ),
        Section(
            id="figure_9",
            numbers="Figure 9",
            title="Uncommon mistakes",
            see="Images that only one of the two models classifies correctly: are RI-T's mistakes the easier images?",
            analysis="mistakes",
            figures=("uncommon_mistakes",),
            of_files=Words("Images that only one of the two models classifies correctly."),
        ),
        replacement.SECTION,
    ),
)
