"""Final metrics and the runs."""

from __future__ import annotations

import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.report.grids.common import Results, each, if_any, score, spread
from transferscope.tables import formats
from transferscope.tables.grid import Grid, from_table


def final_metrics(results: Results) -> list[Grid]:
    """Final test metric and optimization speed by task and kind."""
    runs = Evidence({}, results).runs
    rows = []
    for (task, label), part in runs.groupby(["task", "label"], sort=False):
        metric = str(part["metric"].iloc[0])
        say = score(metric)
        rates = ", ".join(f"{rate:g}" for rate in sorted(part["lr"].dropna().unique())) or formats.MISSING
        whole = part[~part["diverged"].astype(bool)]
        number = f"{len(part)}" if len(whole) == len(part) else f"{len(part)}, {len(part) - len(whole)} diverged"
        shown = (spread(whole[name], say) for name in ("score", "speed"))
        rows.append((str(task), str(label), rates, number, formats.metric_name(metric), *shown))
    columns = ("task", "kind", "lr", "runs", "metric", "final, test", "optimization speed")
    note = (
        "Mean (smallest to largest run), without runs that diverged. Optimization speed: train metric averaged over "
        "the measured epochs."
    )
    return if_any("Ours: final test metric and speed", columns, rows, note, "<task>.runs.table")


def runs(results: Results) -> list[Grid]:
    """Every run with its status; those that diverged or did not learn are set apart."""
    found = []
    for task, table in each(results, "runs"):
        table = _in_its_metric(table)
        leading = [name for name in ("run", "label", "status", "learned", "best_epoch") if name in table.columns]
        skipped = {"task", "kind", *leading}
        rest = [name for name in table.columns if name not in skipped and table[name].notna().any() and "/" not in name]
        grid = from_table(f"Runs on {task}", table, [*leading, *rest], entry=f"{task}.runs.table")
        marks = {
            index: "bad"
            for index, (_, row) in enumerate(table.iterrows())
            if row.get("status") == "diverged" or row.get("learned") in (False, "False")
        }
        found.append(Grid(grid.caption, grid.columns, grid.rows, grid.note, grid.entry, 4, marks))
    return found


def _in_its_metric(table: pd.DataFrame) -> pd.DataFrame:
    """Runs with `final_test` and the like as text: percent or AUC, as the task is judged."""
    if "metric" not in table.columns:
        return table
    names = [
        name for name in ("final_train", "final_test", "best_test", "optimization_speed", "chance") if name in table
    ]
    say = score(str(table["metric"].iloc[0]))
    return table.assign(**{name: [say(float(value)) for value in table[name]] for name in names})
