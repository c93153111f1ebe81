"""Tables of common and uncommon mistakes, beside the paper's Tables 3 to 6 and Figure 8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from transferscope.report.grids.common import Results, each
from transferscope.report.published import TABLE_3, TABLE_4, TABLE_5
from transferscope.tables import formats
from transferscope.tables.grid import HEADINGS, Grid, from_table

PAIR = ("pair_kind", "checkpoint_a", "checkpoint_b")
MEASURES = (
    "accuracy_a", "accuracy_b", "only_a_correct", "only_b_correct", "common_mistakes", "uncommon_ratio_a",
    "uncommon_ratio_b", "kappa", "mcnemar_p",
)  # fmt: skip
SPREAD = ("accuracy_a", "accuracy_b", "uncommon_ratio_a", "uncommon_ratio_b", "uncommon_ratio_difference", "kappa")
INTERVAL = "In brackets 95 % bootstrap intervals over examples."
CONVENTION = "g1 is “only first right”, g2 is “only second right”, r1 and r2 are “uncommon”."


def mistakes(results: Results) -> list[Grid]:
    """One grid a task: every pair; for multi-label tasks the sum over classes, with the mean of the ratios."""
    found = []
    for task, table in each(results, "mistakes"):
        rows, note = table[table["class_name"] == "all"], INTERVAL
        if rows.empty:
            how = {name: "sum" if name.startswith(("only", "common")) else "mean" for name in MEASURES[:-1]}
            rows = table.groupby(list(PAIR), sort=False).agg(how).reset_index()
            note = "Counts are summed over the classes, ratios are means over them."
        found.append(_pairs(f"Ours: {task}", task, rows, PAIR, f"{CONVENTION} {note}"))
    return found + spread_over_pairs(results)


def mistakes_per_class(results: Results) -> list[Grid]:
    """Tables 3 to 5 and ours: every class of every pair, where classes are judged one by one."""
    found = [TABLE_3, TABLE_4, TABLE_5]
    for task, table in each(results, "mistakes"):
        rows = table[table["class_name"] != "all"]
        if not rows.empty:
            found.append(_pairs(f"{task}, class by class", task, rows, (*PAIR, "class_name"), INTERVAL))
    return found


def spread_over_pairs(results: Results) -> list[Grid]:
    """Mean over the pairs of a kind, with their range and the interval over examples."""
    found = []
    for task, table in each(results, "mistakes_spread"):
        rows = []
        for (kind, name), part in table.groupby(["pair_kind", "class_name"], sort=False):
            by_statistic = {row["statistic"]: row for row in part.to_dict("records")}
            cells = (_with_spread(statistic, by_statistic[statistic]) for statistic in SPREAD)
            rows.append((str(kind), str(name), str(int(part["num_pairs"].iloc[0])), *cells))
        columns = ("pair", "class", "pairs", *(HEADINGS.get(name, name.replace("_", " ")) for name in SPREAD))
        note = f"Mean (smallest to largest pair). {INTERVAL} They are means of the pairs' intervals."
        found.append(
            Grid(f"Ours: {task}, spread over the pairs of a kind", columns, tuple(rows), note,
                 f"{task}.mistakes_spread.table", 2)
        )  # fmt: skip
    return found


def class_size_correlation(results: Results) -> list[Grid]:
    """Pearson correlation of each run, and of the accuracies averaged over the runs of a kind (run "mean")."""
    tables = [table.assign(task=task) for task, table in each(results, "class_size_correlation")]
    if not tables:
        return []
    columns = ("task", "label", "run", "pearson_r", "p_value", "num_classes")
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


def _pairs(caption: str, task: str, rows: pd.DataFrame, names: tuple[str, ...], note: str) -> Grid:
    """Rows of the table of mistakes, the ratios and kappa with their intervals where the rows have them."""
    ranged = [name for name in MEASURES if f"{name}_low" in rows.columns and not name.startswith("accuracy")]
    texts = {
        name: [
            formats.cell(name, value) + _interval(name, low, high)
            for value, low, high in rows[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False, name=None)
        ]
        for name in ranged
    }
    columns = [*names, *MEASURES]
    shown = {name: rows[name].str.removeprefix(f"{task}.") for name in ("checkpoint_a", "checkpoint_b")}
    grid = from_table(caption, rows.assign(**texts, **shown), columns, entry=f"{task}.mistakes.table", note=note)
    return replace(grid, text_columns=len(names))


def _with_spread(statistic: str, row: Mapping[Any, Any]) -> str:
    """`18.2 % (17.9 % to 18.5 %) [15.1 %, 21.0 %]`; the range only where there are several pairs."""
    mean, low, high = (formats.cell(statistic, row[name]) for name in ("mean", "min", "max"))
    spread = f" ({low} to {high})" if low != high else ""
    return mean + spread + _interval(statistic, row["low"], row["high"])


def _interval(name: str, low: float, high: float) -> str:
    return f" [{formats.cell(name, low)}, {formats.cell(name, high)}]" if low == low and high == high else ""
