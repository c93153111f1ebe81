"""Tables of singular values and norms."""

from __future__ import annotations

import pandas as pd

from transferscope.report import formats
from transferscope.report.evidence import Evidence, full_name, last_epochs
from transferscope.report.grid import Grid
from transferscope.report.grids.common import Results, each, if_any, number, pivot, spread


def counts_below(results: Results) -> list[Grid]:
    """Share of the whole network's singular values below each threshold, mean over runs."""
    rows = []
    columns: list[str] = []
    for task, label, part in _spectra(results, "all"):
        columns = [name for name in part.columns if name.startswith("count_below_")]
        shares = [spread(part[name] / part["num_values"], formats.percent) for name in columns]
        rows.append((task, label, f"{part['num_values'].iloc[0]:,.0f}", *shares))
    heads = ("task", "kind", "values", *(f"below {name.removeprefix('count_below_')}" for name in columns))
    return if_any("Ours: share below a threshold", heads, rows, "Mean (range over runs).", "<task>.spectrum.table")


def norm_ratios(results: Results) -> list[Grid]:
    """The sum over layers, by task and kind."""
    rows = [(task, label, spread(part["ratio"], number)) for task, label, part in _spectra(results, "sum")]
    columns = ("task", "kind", "Σ ‖W‖_F / ‖W‖_2")
    return if_any("Ours: sum over layers", columns, rows, "Mean (range over runs).", "<task>.spectrum.table")


def norm_ratios_per_module(results: Results) -> list[Grid]:
    """The terms of the sum, mean over the runs of a kind."""
    found = []
    labels = Evidence({}, results).runs["label"]
    for task, table in each(results, "spectrum"):
        rows = last_epochs(table[~table["module"].isin(("all", "sum"))])
        rows = rows.assign(kind=[labels.get(full_name(task, run), run) for run in rows["run"]])
        found.append(pivot(f"{task}, layer by layer", rows, "module", "kind", "ratio", f"{task}.spectrum.table"))
    return found


def _spectra(results: Results, row: str) -> list[tuple[str, str, pd.DataFrame]]:
    """Task, label and rows of the whole network ("all") or of the sum over its layers, at the last epoch."""
    labels = Evidence({}, results).runs["label"]
    found = []
    for task, table in each(results, "spectrum"):
        rows = last_epochs(table[table["module"] == row])
        rows = rows.assign(kind=[labels.get(full_name(task, run), run) for run in rows["run"]])
        found += [(task, str(kind), part) for kind, part in rows.groupby("kind", sort=False)]
    return found
