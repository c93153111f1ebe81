"""Analyses and figures of the user's own, from the modules that the parameters name."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.plan import Plan
from transferscope.pipelines.own import nodes
from transferscope.pipelines.wiring import ON_A_GPU

NAME = "own"


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → own_<name>.table → own_<name>.figure`, per task."""
    options = plan.study.analyses.own
    if options is None:
        return Pipeline([])
    from transferscope.measure.own import own_parts

    analyses, figures = own_parts(options.modules)
    every: list[Node] = []
    for task in plan.targets():
        made = {one.name: _measure(plan, task, one.reference, one.of, one.name) for one in analyses}
        every += [node for node in made.values() if node is not None]
        # A figure of an analysis that has nothing to measure on the task has nothing to show.
        shown = [one for one in figures if one.table not in made or made[one.table] is not None]
        every += [_draw(task, one.reference, one.table, one.name) for one in shown]
    return Pipeline(every, tags=NAME)


def _measure(plan: Plan, task: str, reference: str, of: str, name: str) -> Node | None:
    """The node of an analysis on a task; None where the task has nothing to measure."""
    inputs = {
        "options": "params:analyses.own",
        "precision": "params:analyses.precision",
        "train_split": f"{task}.train_split",
        "test_split": f"{task}.test_split",
    }
    if of == "pair":
        runs = {run.full_name for pair in plan.own_pairs(task) for run in (pair.run_a, pair.run_b)}
        inputs["pairs"] = f"params:plan.own_pairs.{task}"
    else:
        runs = {run.full_name for run in plan.runs_of(task)}
    if not runs:
        return None
    return Node(
        nodes.MeasurePairs(reference) if of == "pair" else nodes.MeasureRuns(reference),
        inputs=inputs | {run: f"{run}.checkpoints" for run in sorted(runs)},
        outputs=f"{task}.{name}.table",
        name=name,
        namespace=f"{task}.{NAME}",
        tags=ON_A_GPU,
    )


def _draw(task: str, reference: str, table: str, name: str) -> Node:
    return Node(
        nodes.DrawTable(reference),
        inputs=[f"{task}.{table}.table", f"params:plan.labels.{task}"],
        outputs=f"{task}.{name}.figure",
        name=f"draw_{name}",
        namespace=f"{task}.{NAME}",
    )
