"""Tables of module criticality and rewinding."""

from __future__ import annotations

import pandas as pd

from transferscope.claims.evidence import main_metric
from transferscope.report.grids.common import Results, each, pivot, score
from transferscope.tables import formats
from transferscope.tables.grid import Grid


def module_criticality(results: Results) -> list[Grid]:
    """Criticality of every module, a column a run and path."""
    found = []
    for task, table in each(results, "module_criticality"):
        rows = table[table["epsilon"] == table["epsilon"].min()].assign(
            column=lambda rows: (
                rows["run"].astype(str) + ", " + rows["path"].astype(str) + " path to " + rows["end"].astype(str)
            )
        )
        grid = pivot(f"Ours: {task}, criticality μ", rows, "module", "column", "mu", f"{task}.module_criticality.table")
        found.append(grid)
    return found


def rewinding(results: Results) -> list[Grid]:
    """Test metric with each module set back to each epoch that was asked for, a column a run and epoch."""
    found = []
    for task, table in each(results, "rewinding"):
        metric = main_metric(table)
        rows = table[(table["split"] == "test") & (table["metric"] == metric)]
        caption = f"Ours: {task}, test {formats.metric_name(metric)}"
        entry = f"{task}.rewinding.table"
        found.append(pivot(caption, _by_epoch(rows), "module", "column", "value", entry, score(metric)))
    return found


def _by_epoch(rows: pd.DataFrame) -> pd.DataFrame:
    """`column` names run and epoch, the run alone where there is one epoch; the untouched model is in all of them."""
    whole = rows[rows["module"] == "none"].assign(module="nothing set back")
    epochs = sorted(rows.loc[rows["module"] != "none", "epoch"].unique())
    parts = [
        part.assign(column=part["run"].astype(str) + (f", epoch {epoch}" if len(epochs) > 1 else ""))
        for epoch in epochs
        for part in (whole, rows[(rows["module"] != "none") & (rows["epoch"] == epoch)])
    ]
    return pd.concat(parts)
