"""Train every run of the plan; summarise and draw the learning curves of each task."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.pipelines.training import nodes
from transferscope.plan import Plan, RunSpec


def create_pipeline(plan: Plan) -> Pipeline:
    """`splits (and the pre-trained run) → checkpoints, history`, a node per run; the fan-in per task."""
    runs = [_adopt(run) if run.checkpoint else _train(plan, run) for run in plan.runs.values()]
    tasks = dict.fromkeys(run.task for run in plan.runs.values())
    return Pipeline([*runs, *(node for task in tasks for node in _curves(plan, task))])


def _train(plan: Plan, run: RunSpec) -> Node:
    inputs = {
        "run": f"params:plan.runs.{run.full_name}",
        "models_folder": "params:models_folder",
        "train_split": f"{run.task}.train_split",
        "test_split": f"{run.task}.test_split",
    }
    if run.pretrained in plan.runs:
        inputs["source"] = f"{run.pretrained}.checkpoints"
    processes = run.training.num_processes
    return Node(
        nodes.train,
        inputs=inputs,
        outputs=[f"{run.full_name}.checkpoints", f"{run.full_name}.history"],
        name=run.name,
        namespace=f"{run.task}.training",
        tags=[f"gpus-{processes}"],
    )


def _adopt(run: RunSpec) -> Node:
    return Node(
        nodes.adopt_checkpoint,
        inputs={
            "run": f"params:plan.runs.{run.full_name}",
            "models_folder": "params:models_folder",
            "test_split": f"{run.task}.test_split",
        },
        outputs=[f"{run.full_name}.checkpoints", f"{run.full_name}.history"],
        name=run.name,
        namespace=f"{run.task}.training",
    )


def _curves(plan: Plan, task: str) -> list[Node]:
    runs = plan.runs_of(task)
    namespace = f"{task}.training"
    return [
        Node(
            nodes.gather_histories,
            inputs=[f"params:plan.runs.{task}", *(f"{run.full_name}.history" for run in runs)],
            outputs=f"{task}.history.table",
            name="gather_histories",
            namespace=namespace,
        ),
        Node(
            nodes.summarise_runs,
            inputs=[f"{task}.history.table", f"{task}.class_sizes.table"],
            outputs=f"{task}.runs.table",
            name="summarise_runs",
            namespace=namespace,
        ),
        Node(
            nodes.draw_learning_curves,
            inputs=f"{task}.history.table",
            outputs=f"{task}.learning_curves.figure",
            name="draw_learning_curves",
            namespace=namespace,
        ),
    ]
