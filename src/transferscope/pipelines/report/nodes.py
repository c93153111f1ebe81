"""Nodes of report."""

from __future__ import annotations

from typing import Any

import pandas as pd

from transferscope.claims.results import SavedFigure, TaskResults


def gather_results(
    train_split: Any = None, test_split: Any = None, **inputs: pd.DataFrame | SavedFigure
) -> TaskResults:
    """All tables and figures of one task, by name; the inputs' keys are `task.name.table` and `task.name.figure`."""
    tables, figures = {}, {}
    for key, value in inputs.items():
        name = key.split(".")[1]
        if isinstance(value, SavedFigure):
            figures[name] = value
        else:
            tables[name] = value
    return TaskResults(next(iter(inputs)).split(".")[0], _facts(train_split, test_split), tables, figures)


def _facts(split: Any, test_split: Any) -> dict[str, Any]:
    """What the report says of a task's images; nothing of what lies across tasks."""
    if split is None:
        return {}
    return {
        "class_names": list(split.class_names),
        "multi_label": split.multi_label,
        "generated": split.generated,
        "num_train": len(split),
        "num_test": len(test_split),
        "image_shape": list(split.images.shape[1:]),
    }


def decide_claims(study: dict[str, Any], **results: TaskResults) -> pd.DataFrame:
    """Every claim of the study with our figures and a verdict by a stated rule."""
    from transferscope.claims.decide import decide_claims as decide

    return decide(study, results)


def write_summary(study: dict[str, Any], claims: pd.DataFrame, **results: TaskResults) -> str:
    """The claims and the key tables as Markdown."""
    from transferscope.report.provenance import provenance
    from transferscope.report.summary import write_markdown

    return write_markdown(study, claims, results, provenance=provenance(study, results))


def write_report(study: dict[str, Any], claims: pd.DataFrame, **results: TaskResults) -> str:
    """The page that shows everything."""
    from transferscope.report.page import write_page
    from transferscope.report.provenance import provenance

    return write_page(study, claims, results, provenance=provenance(study, results))
