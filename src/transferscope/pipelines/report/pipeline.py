"""Gather each task's tables and figures, decide the claims, write the report."""

from __future__ import annotations

from collections.abc import Iterable

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.names import EntryName
from transferscope.experiment.plan import Plan
from transferscope.pipelines.report import nodes

NAME = "report"


def create_pipeline(plan: Plan, analyses: Iterable[Pipeline]) -> Pipeline:
    """`tables and figures → {task}.results → claims, answers → report`; all that the analyses make is shown."""
    made = sorted(name for part in analyses for name in part.outputs() | part.datasets())
    shown = [name for name in made if EntryName.parse(name).form in ("table", "figure")]
    scopes = dict.fromkeys([*plan.study.tasks, "cross_domain"])
    gathered = {scope: [name for name in shown if EntryName.parse(name).task == scope] for scope in scopes}
    results = {scope: names for scope, names in gathered.items() if names}
    merged = [name for name in made if EntryName.parse(name).form == "merged" and plan.compares_files]
    gatherers = [_gather(plan, scope, names) for scope, names in results.items()]
    nodes_of_report = [*gatherers, *_conclude(list(results), merged)]
    return Pipeline(nodes_of_report, tags=NAME)


def _gather(plan: Plan, scope: str, names: list[str]) -> Node:
    inputs = {name: name for name in names}
    parts = ("train_split", "test_split") if scope in plan.study.tasks and plan.has_images(scope) else ()
    return Node(
        nodes.gather_results,
        inputs=inputs | {part: f"{scope}.{part}" for part in parts},
        outputs=f"{scope}.results",
        name="gather_results",
        namespace=f"{scope}.{NAME}",
    )


def _conclude(scopes: list[str], merged: list[str]) -> list[Node]:
    results = {"study": "params:plan.study"} | {scope: f"{scope}.results" for scope in scopes}
    tables = {name: name for name in ("claims", "claim_effects")}
    written = tables | {"answers": "answers"}
    return [
        Node(nodes.decide_claims, inputs=results, outputs=list(tables), name="decide_claims", namespace=NAME),
        Node(
            nodes.answer_questions,
            inputs=results | {"claims": "claims"} | {name: name for name in merged},
            outputs="answers",
            name="answer_questions",
            namespace=NAME,
        ),
        Node(nodes.write_summary, inputs=results | written, outputs="summary", name="write_summary", namespace=NAME),
        Node(nodes.write_report, inputs=results | written, outputs="report", name="write_report", namespace=NAME),
    ]
