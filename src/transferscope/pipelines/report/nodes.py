"""Nodes of report."""

from __future__ import annotations

import pandas as pd

from transferscope.claims.evidence import TaskResults
from transferscope.experiment.names import EntryName
from transferscope.experiment.plan import make_plan
from transferscope.experiment.study import Study
from transferscope.pipelines.types import PackedSplit
from transferscope.plots.rendered import SavedFigure


def gather_results(
    train_split: PackedSplit | None = None,
    test_split: PackedSplit | None = None,
    **inputs: pd.DataFrame | SavedFigure,
) -> TaskResults:
    """Gather all tables and figures of one task, by name.

    The keys of the inputs are `task.name.table` or `task.name.figure`.
    """
    tables, figures = {}, {}
    entries = [EntryName.parse(key) for key in inputs]
    for entry, value in zip(entries, inputs.values(), strict=True):
        if isinstance(value, SavedFigure):
            figures[str(entry.of)] = value
        else:
            tables[str(entry.of)] = value
    return TaskResults(str(entries[0].task), _facts(train_split, test_split), tables, figures)


def _facts(split: PackedSplit | None, test_split: PackedSplit | None) -> dict[str, object]:
    """Facts about a task's images; none about results that lie across tasks."""
    if split is None or test_split is None:
        return {}
    return {
        "class_names": list(split.class_names),
        "multi_label": split.multi_label,
        "generated": split.generated,
        "num_train": len(split),
        "num_test": len(test_split),
        "image_shape": list(split.images.shape[1:]),
    }


def decide_claims(study: Study, **results: TaskResults) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decide every claim; a row per claim, and a row per comparison behind them."""
    from transferscope.claims.decide import decide_claims as decide

    return decide(make_plan(study), results)


def write_summary(study: Study, claims: pd.DataFrame, claim_effects: pd.DataFrame, **results: TaskResults) -> str:
    """Write the claims and the key tables as Markdown."""
    from transferscope.report.page import write_markdown
    from transferscope.report.provenance import provenance

    plan = make_plan(study)
    return write_markdown(plan, claims, claim_effects, results, provenance=provenance(plan, results))


def write_report(study: Study, claims: pd.DataFrame, claim_effects: pd.DataFrame, **results: TaskResults) -> str:
    """Write the page that shows everything."""
    from transferscope.report.page import write_page
    from transferscope.report.provenance import provenance

    plan = make_plan(study)
    return write_page(plan, claims, claim_effects, results, provenance=provenance(plan, results))
