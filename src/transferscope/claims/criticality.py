"""Claims on the criticality of modules (main text, appendix B.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter

import numpy as np
import pandas as pd

from transferscope.claims.comparisons import Comparison, Measured, against, compare
from transferscope.claims.evidence import Evidence
from transferscope.claims.registry import BETWEEN_RUNS, claim
from transferscope.claims.run_facts import main_metric

INTERCHANGEABLE = 0.9
"""Maps whose ranks correlate more than this show the same."""
UNTOUCHED = "none"
"""Module of the rows of `rewinding` that belong to the whole model, nothing set back."""


@claim(
    "Setting one module back to its initial value hurts RI-T more than P-T.",
    source="Main text, Figure 5",
    paper=(
        "CheXpert AUC: P-T .735, with any module but the classifier set back still .71 or more",
        "RI-T falls to .507 (conv1), .64 (layer3.0)",
    ),
    compares=f"mean fall of the test metric over modules but the last, {BETWEEN_RUNS}",
    unit="points",
    sides=("RI-T", "P-T"),
    needs="criticality of fine-tuned runs and of runs from scratch",
    section="figure_5",
)
def rewinding(evidence: Evidence) -> Iterator[Comparison]:
    yield from _rewinding(evidence, lambda falls: falls.iloc[:-1].mean())


@claim(
    "RI-T's first module is more critical than P-T's.",
    source="Main text, Figure 5; Section B.9, Figure 30",
    paper=("CheXpert AUC with conv1 set back: P-T .71 or more, RI-T .507",),
    compares=f"fall of the test metric with the first module set back, {BETWEEN_RUNS}",
    unit="points",
    sides=("RI-T", "P-T"),
    needs="criticality of fine-tuned runs and of runs from scratch",
    section="figure_5",
)
def first_module(evidence: Evidence) -> Iterator[Comparison]:
    yield from _rewinding(evidence, itemgetter(0))


@claim(
    "In P-T, modules near the output are more critical than those near the input.",
    source="Main text, on module criticality; Section B.9",
    paper=("criticality grows from lower to higher layers (heat maps, no number)",),
    compares="Spearman correlation of criticality and depth over modules but the last, every P-T; claimed: above 0",
    unit="coefficient",
    sides=("Spearman",),
    needs="criticality of fine-tuned runs",
    section="figure_30",
    limits=(-1.0, 1.0),
)
def criticality_depth(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each_compared("module_criticality"):
        mu = _mu(table)
        alike = {run: values for run, values in mu.items() if values.nunique() == 1}
        # Ranks, because mu may be infinite; floats cannot be ranked past infinity by subtraction.
        depth = {
            run: float(np.corrcoef(np.arange(len(values)), values.rank())[0, 1])
            for run, values in mu.items()
            if run not in alike and len(values) > 2
        }
        measured = evidence.by_run(task, "fine_tuned", depth)
        flat = evidence.by_run(task, "fine_tuned", dict.fromkeys(alike, 0.0)).values
        why = {str(run): "the same criticality in all modules" for run in flat}
        yield from against(task, Measured(measured.values, {**measured.left_out, **why}), 0.0, above=True)


@claim(
    "Train, test and gap maps of a module's criticality are interchangeable.",
    source="Section B.9, Figure 30",
    paper=("alike (heat maps, no number)",),
    compares="Spearman correlation over the cells of a module's map between the error on train images and the gap of "
    f"test and train, mean over modules but the last, of every run; claimed: above {INTERCHANGEABLE:g}",
    unit="coefficient",
    sides=("train & gap",),
    needs="criticality of runs",
    section="figure_30",
    limits=(-1.0, 1.0),
)
def maps_interchangeable(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each_compared("criticality"):
        correlations = map_correlations(table)
        values = {run: float(part["train_gap"].mean()) for run, part in correlations.groupby("run", sort=False)}
        for role in ("fine_tuned", "from_scratch"):
            yield from against(task, evidence.by_run(task, role, values), INTERCHANGEABLE, above=True)


def map_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlations between the train, test and gap maps of each module but the last.

    table: error of the model by run, module, path, end, split and cell (position, sigma), over draws. Returns a row per
    run, module, path and end: train_test, train_gap, test_gap; NaN where a map is the same in all cells.
    """
    keys = ["run", "module", "path", "end"]
    cells = table.pivot_table(index=[*keys, "position", "sigma"], columns="split", values="error", sort=False)
    cells = cells.reset_index()
    cells["gap"] = cells["test"] - cells["train"]
    rows: list[dict[str, object]] = []
    last = {run: part["module"].iloc[-1] for run, part in table.groupby("run", sort=False)}
    for names, part in cells[cells["module"] != cells["run"].map(last)].groupby(keys, sort=False):
        ranks = part[["train", "test", "gap"]].rank()
        correlations = ranks.corr()
        pairs = {f"{a}_{b}": correlations.loc[a, b] for a, b in (("train", "test"), ("train", "gap"), ("test", "gap"))}
        rows.append({**dict(zip(keys, names, strict=True)), **pairs})
    return pd.DataFrame(rows, columns=[*keys, "train_test", "train_gap", "test_gap"])


def _rewinding(evidence: Evidence, summary: Callable[[pd.Series], float]) -> Iterator[Comparison]:
    for task, table in evidence.each_compared("rewinding"):
        falls = {run: summary(values) for run, values in _falls(table).items() if len(values) > 1}
        yield from compare(
            task, evidence.by_run(task, "from_scratch", falls), evidence.by_run(task, "fine_tuned", falls)
        )


def _falls(table: pd.DataFrame) -> dict[str, pd.Series]:
    """For each run the fall of the test metric by module, in order of the forward pass, set back to the first epoch."""
    rows = table[(table["split"] == "test") & (table["metric"] == main_metric(table))]
    falls: dict[str, pd.Series] = {}
    for run, part in rows.groupby("run", sort=False):
        whole, moved = part[part["module"] == UNTOUCHED]["value"], part[part["module"] != UNTOUCHED]
        moved = moved[moved["epoch"] == moved["epoch"].min()]
        if len(whole) and len(moved):
            falls[str(run)] = (float(whole.iloc[0]) - moved["value"].astype(float)).reset_index(drop=True)
    return falls


def _mu(table: pd.DataFrame) -> dict[str, pd.Series]:
    """mu by module without the last, in order of the forward pass, for each run: direct path, smallest epsilon.

    To the final weights where the table has them. Without the classifier, which is new in a fine-tuned model, so that
    its initial value says nothing about transfer.
    """
    rows = table[table["epsilon"] == table["epsilon"].min()]
    for column, preferred in (("path", "direct"), ("end", "final")):
        rows = rows[rows[column] == preferred] if (rows[column] == preferred).any() else rows
    return {str(run): part["mu"].astype(float).iloc[:-1] for run, part in rows.groupby("run", sort=False)}
