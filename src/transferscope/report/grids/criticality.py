"""Tables of module criticality and rewinding."""

from __future__ import annotations

from transferscope.report.evidence import main_metric
from transferscope.report.grid import Grid
from transferscope.report.grids.common import Results, each, pivot, score


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
    """Test metric with each module set back to the first epoch, a column a run."""
    found = []
    for task, table in each(results, "rewinding"):
        metric = main_metric(table)
        rows = table[(table["split"] == "test") & (table["metric"] == metric)]
        earliest = rows[rows["module"] != "none"]["epoch"].min()
        rows = rows[(rows["module"] == "none") | (rows["epoch"] == earliest)].replace(
            {"module": {"none": "nothing set back"}}
        )
        entry = f"{task}.rewinding.table"
        found.append(
            pivot(
                f"Ours: {task}, test {metric.upper() if metric == 'auc' else metric}",
                rows,
                "module",
                "run",
                "value",
                entry,
                score(metric),
            )
        )
    return found
