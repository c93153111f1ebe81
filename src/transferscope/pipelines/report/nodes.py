"""Nodes of report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from transferscope.claims.evidence import CROSS_DOMAIN, TaskResults
from transferscope.experiment.names import EntryName
from transferscope.experiment.plan import make_plan
from transferscope.experiment.study import Study
from transferscope.pipelines.types import AnswerCard, MergedModel, PackedSplit
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


def answer_questions(study: Study, claims: pd.DataFrame, **entries: TaskResults | MergedModel) -> AnswerCard:
    """Answer the questions that the report opens with: about checkpoint files, or about the study by its claims.

    entries: results by task, and merged models as `images.average.merged`.
    """
    from transferscope.answers.answer import AnswerCard as Card
    from transferscope.answers.card import answer_questions as answer
    from transferscope.answers.compared import compared_models
    from transferscope.answers.headlines import answers_of_study

    plan = make_plan(study)
    results = {name: entry for name, entry in entries.items() if isinstance(entry, TaskResults)}
    if not plan.compares_files:
        figures = {name: frozenset(result.figures) for name, result in results.items()}
        across = results[CROSS_DOMAIN].tables if CROSS_DOMAIN in results else {}
        return answers_of_study(plan, claims, figures, across.get("merging")) or Card(plan.study.report.title, (), ())
    return answer(compared_models(plan, results, _merged_files(entries)), plan.study.report.title)


def _merged_files(entries: Mapping[str, TaskResults | MergedModel]) -> dict[str, str]:
    """Paths of merged weights by the name of the merge."""
    files = {}
    for name, entry in entries.items():
        checkpoint = None if isinstance(entry, TaskResults) else entry.checkpoint
        if checkpoint is not None and checkpoint.path is not None:
            path = checkpoint.path.absolute()
            inside = path.is_relative_to(Path.cwd())  # the report names no folder of a person where it need not
            files[str(EntryName.parse(name).of)] = str(path.relative_to(Path.cwd()) if inside else path)
    return files


def write_summary(
    study: Study, claims: pd.DataFrame, claim_effects: pd.DataFrame, answers: AnswerCard, **results: TaskResults
) -> str:
    """Write the claims and the key tables as Markdown."""
    from transferscope.report.page import write_markdown
    from transferscope.report.provenance import provenance

    plan = make_plan(study)
    return write_markdown(plan, claims, claim_effects, results, provenance=provenance(plan, results), answers=answers)


def write_report(
    study: Study, claims: pd.DataFrame, claim_effects: pd.DataFrame, answers: AnswerCard, **results: TaskResults
) -> str:
    """Write the page that shows everything."""
    from transferscope.report.page import write_page
    from transferscope.report.provenance import provenance

    plan = make_plan(study)
    return write_page(plan, claims, claim_effects, results, provenance=provenance(plan, results), answers=answers)
