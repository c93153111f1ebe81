"""Tables and figures of the runs that feature reuse and source epochs stand for (Figures 3 and 7)."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.node_parameters import VariedRun
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.pipelines.feature_reuse import nodes
from transferscope.pipelines.wiring import ON_A_GPU, draw

NAME = "feature_reuse"


def create_pipeline(plan: Plan) -> Pipeline:
    """`histories → {task}.feature_reuse.table → figures`, per task; of source epochs also gains, and P in training."""
    tasks = dict.fromkeys(plan.views.values())
    return Pipeline([node for task in tasks for node in _task(plan, task)], tags=NAME)


def _task(plan: Plan, task: str) -> list[Node]:
    table = f"{task}.feature_reuse.table"
    varied = VariedRun.of(plan, task)
    series = {run.series for run in varied}
    nodes_of_task = [
        Node(
            nodes.gather_varied_runs,
            inputs={"runs": f"params:plan.varied.{task}", "class_sizes": f"{task}.class_sizes.table"}
            | {run.run: f"{run.run}.history" for run in varied},
            outputs=table,
            name="gather_varied_runs",
            namespace=f"{task}.{NAME}",
        )
    ]
    if series & {"blocks", "each"}:
        nodes_of_task.append(draw(NAME, task, "feature_reuse", "reuse:block_sizes", [table]))
    if "control" in series:
        nodes_of_task.append(draw(NAME, task, "reuse_controls", "reuse:controls", [table]))
    if "epoch" in series:
        source = _source(plan, task)
        along = [] if source is None else [f"{task}.{source.name}.along_pretraining"]
        gains = f"{task}.source_epochs.table"
        compared = Node(
            nodes.compare_source_epochs,
            inputs=table,
            outputs=gains,
            name="compare_source_epochs",
            namespace=f"{task}.{NAME}",
        )
        nodes_of_task += [compared, *([_along(task, source)] if source is not None else [])]
        nodes_of_task.append(draw(NAME, task, "source_epochs", "reuse:source_epochs", [table, gains, *along]))
    return nodes_of_task


def _source(plan: Plan, task: str) -> RunSpec | None:
    """The run from whose epochs those of a task start; None where they start from a file, or are none."""
    starts = [run.pretrained for view, of in plan.views.items() if of == task for run in plan.runs_of(view)]
    if not any(variant.series == "epoch" and variant.task == task for variant in plan.variants):
        return None
    return next((plan.runs[start] for start in starts if start in plan.runs), None)


def _along(task: str, source: RunSpec) -> Node:
    """P along its training, for each task that starts from it, since in P's box layers would go in a circle."""
    return Node(
        nodes.measure_along_pretraining,
        inputs={
            "series": f"{source.full_name}.checkpoints",
            "test_split": f"{source.task}.test_split",
            "precision": "params:analyses.precision",
        },
        outputs=f"{task}.{source.name}.along_pretraining",
        name=f"along_pretraining_{source.name}",
        namespace=f"{task}.{NAME}",
        tags=ON_A_GPU,
    )
