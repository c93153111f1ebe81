"""Module criticality and rewinding (appendix B.9, Figure 5 of the main text)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from transferscope.analysis.module_criticality import network_criticality
from transferscope.claims.criticality import UNTOUCHED
from transferscope.claims.evidence import Evidence
from transferscope.claims.run_facts import main_metric
from transferscope.report import published
from transferscope.report.chapters.chapter import Chapter, Section, pivot
from transferscope.tables import formats
from transferscope.tables.grid import Grid


def module_criticality(evidence: Evidence) -> list[Grid]:
    """Criticality of every module with its interval and of the network, a column for each run and path."""
    grids = []
    for task, table in evidence.each("module_criticality"):
        rows = table[table["epsilon"] == table["epsilon"].min()].astype({"run": str, "path": str, "end": str})
        rows = rows.assign(column=rows["run"] + ", " + rows["path"] + " path to " + rows["end"])
        heads, modules = list(dict.fromkeys(rows["column"])), list(dict.fromkeys(rows["module"]))
        cells = {(row["module"], row["column"]): _mu(row) for row in rows.to_dict("records")}
        total = network_criticality(rows[["column", "module", "epsilon", "mu"]]).set_index("column")["mu"]
        body = [(module, *(cells.get((module, head), formats.MISSING) for head in heads)) for module in modules]
        body.append(("network, the sum", *(formats.significant(float(total[head])) for head in heads)))
        empty = [head for head, part in rows.groupby("column", sort=False) if (part["mu"] == 0).all()]
        note = NOTE.format(share=float(rows["epsilon"].iloc[0]))
        if empty:
            note += f" μ is no measure at this ε where each module can be set back: {'; '.join(map(str, empty))}."
        entry = f"{task}.module_criticality.table"
        grids.append(Grid(f"Ours: {task}, criticality μ", ("module", *heads), tuple(body), note=note, entry=entry))
    return grids


NOTE = (
    "In brackets the 95 % interval over draws of the noise, where the draws leave μ open. ε is {share:g} of what the "
    "model has learned, the train loss of the class frequencies minus its own."
)


def _mu(row: Mapping[Any, Any]) -> str:
    value, low, high = (float(row[name]) for name in ("mu", "mu_low", "mu_high"))
    ends = "" if low == high or math.isnan(low) else f" ({formats.significant(low)} to {formats.significant(high)})"
    return f"{formats.significant(value)}{ends}"


def rewinding(evidence: Evidence) -> list[Grid]:
    """Test metric with each module set back to each epoch that was asked for, a column for each run and epoch."""
    grids = []
    for task, table in evidence.each("rewinding"):
        metric = main_metric(table)
        rows = table[(table["split"] == "test") & (table["metric"] == metric)]
        caption, entry = f"Ours: {task}, test {formats.metric_name(metric)}", f"{task}.rewinding.table"
        grids.append(pivot(caption, _by_epoch(rows), "module", "column", "value", entry, formats.score(metric)))
    return grids


def _by_epoch(rows: pd.DataFrame) -> pd.DataFrame:
    """`column` names run and epoch, the run alone where there is one epoch; the untouched model is in all of them."""
    moved = rows[rows["module"] != UNTOUCHED]
    whole = rows[rows["module"] == UNTOUCHED].assign(module="nothing set back")
    epochs = sorted(moved["epoch"].unique())
    parts = [
        part.assign(column=part["run"].astype(str) + (f", epoch {epoch}" if len(epochs) > 1 else ""))
        for epoch in epochs
        for part in (whole, moved[moved["epoch"] == epoch])
    ]
    return pd.concat(parts)


CHAPTER = Chapter(
    title="Criticality of modules",
    appendix="B.9",
    sections=(
        Section(
            id="figure_30",
            numbers="Figure 30",
            title="Module criticality",
            see="The darker the maps of train and test stay towards the left and the top, the less critical the "
            "module: it tolerates its initial value, and noise.",
            analysis="landscape",
            option="criticality",
            figures=("criticality_heat_maps", "module_criticality"),
            tables=module_criticality,
            note="Criticality μ is the smallest distance² / σ² at which the training loss stays within ε on "
            "the grid: 0 where the module can be set back, ∞ where no measured point stays within ε. The figure "
            "shows the first module. With analyses.landscape.criticality.pages all modules of a run are drawn, one "
            "on each page of criticality_<run>.pdf in the task's folder (<task>.criticality_<run>.pages in the "
            "catalog).",
        ),
        Section(
            id="figure_5",
            numbers="Figure 5 of the main text",
            title="Each module set back to its initial value",
            see="The test metric of P-T should hardly fall with any module set back; that of RI-T should fall, most "
            "with the first module.",
            analysis="landscape",
            option="criticality",
            figures=("rewinding",),
            paper=(published.FIGURE_5,),
            tables=rewinding,
        ),
    ),
)
