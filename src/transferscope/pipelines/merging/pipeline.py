"""Merges of several runs, and what they are held against (beyond the paper)."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.merges import MergeSpec
from transferscope.experiment.plan import Plan
from transferscope.pipelines.merging import nodes
from transferscope.pipelines.wiring import ON_A_GPU, draw, gather

NAME = "merging"


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → merges → table, figure`, per task and across tasks."""
    nodes: list[Node] = []
    scopes: dict[str, list[MergeSpec]] = {}
    for spec in plan.merges():
        scopes.setdefault(spec.scope, []).append(spec)
        nodes.append(_merge(plan, spec))
    for scope, specs in scopes.items():
        nodes.append(gather(NAME, scope, NAME, (f"{scope}.{spec.name}.merging" for spec in specs)))
        nodes.append(draw(NAME, scope, NAME, "merging:merge_scores", [f"{scope}.{NAME}.table"]))
    return Pipeline(nodes, tags=NAME)


def _merge(plan: Plan, spec: MergeSpec) -> Node:
    runs = [name for name in (*spec.candidates, spec.parent, spec.union) if name is not None]
    splits = [f"{task}.{part}_split" for task in spec.tasks for part in plan.study.tasks[task].parts]
    return Node(
        nodes.merge_models,
        inputs={
            "spec": f"params:plan.merges.{spec.name}",
            "options": "params:analyses.merging",
            **{name: f"{name}.checkpoints" for name in dict.fromkeys(runs)},
            **{name: name for name in splits},
        },
        outputs=[f"{spec.scope}.{spec.name}.merging", f"{spec.scope}.{spec.name}.merged"],
        name=f"merge_{spec.name}",
        namespace=f"{spec.scope}.{NAME}",
        tags=ON_A_GPU,
    )
