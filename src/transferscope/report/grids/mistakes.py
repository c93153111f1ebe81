"""Tables of common and uncommon mistakes, beside the paper's Tables 3 to 6 and Figure 8."""

from __future__ import annotations

import pandas as pd

from transferscope.report.grid import Grid, from_table
from transferscope.report.grids.common import Results, each
from transferscope.report.published import TABLE_3, TABLE_4, TABLE_5

MISTAKES = (
    "pair_kind", "checkpoint_a", "checkpoint_b", "class_name", "accuracy_a", "accuracy_b", "only_a_correct",
    "only_b_correct", "common_mistakes", "uncommon_ratio_a", "uncommon_ratio_b", "kappa", "mcnemar_p",
)  # fmt: skip


def mistakes(results: Results) -> list[Grid]:
    """One grid a task: every pair; for multi-label tasks the sum over classes, with the mean of the ratios."""
    found = []
    for task, table in each(results, "mistakes"):
        rows = table[table["class_name"] == "all"]
        columns = [name for name in MISTAKES if name != "class_name"]
        note = ""
        if rows.empty:
            counts = ["only_a_correct", "only_b_correct", "common_mistakes"]
            means = ["accuracy_a", "accuracy_b", "uncommon_ratio_a", "uncommon_ratio_b", "kappa"]
            how = dict.fromkeys(counts, "sum") | {name: "mean" for name in means if name in table.columns}
            keys = ["pair_kind", "checkpoint_a", "checkpoint_b"]
            rows = table.groupby(keys, sort=False).agg(how).reset_index()
            note = "Counts are summed over the classes, ratios are means over them."
        found.append(from_table(f"Ours: {task}", rows, columns, entry=f"{task}.mistakes.table", note=note))
    return found


def mistakes_per_class(results: Results) -> list[Grid]:
    """Tables 3 to 5 and ours: every class of every pair, where classes are judged one by one."""
    found = [TABLE_3, TABLE_4, TABLE_5]
    for task, table in each(results, "mistakes"):
        rows = table[table["class_name"] != "all"]
        if not rows.empty:
            found.append(from_table(f"{task}, class by class", rows, MISTAKES, entry=f"{task}.mistakes.table"))
    return found


def class_size_correlation(results: Results) -> list[Grid]:
    """Pearson correlation of each run."""
    tables = [table.assign(task=task) for task, table in each(results, "class_size_correlation")]
    if not tables:
        return []
    columns = ("task", "run", "pearson_r", "p_value", "num_classes")
    table = pd.concat(tables, ignore_index=True)
    return [
        from_table("Ours: correlation with class size", table, columns, entry="<task>.class_size_correlation.table")
    ]


def class_accuracy(results: Results) -> list[Grid]:
    """Accuracy of every class and run."""
    columns = ("run", "class_name", "class_size", "num_test", "accuracy")
    return [
        from_table(f"{task}, class by class", table, columns, entry=f"{task}.class_accuracy.table")
        for task, table in each(results, "class_accuracy")
    ]
