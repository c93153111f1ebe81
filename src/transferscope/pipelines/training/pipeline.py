"""Train every run of the plan; summarise and draw the learning curves of each task."""

from __future__ import annotations

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.experiment.run_groups import RunGroup
from transferscope.pipelines.training import nodes
from transferscope.pipelines.wiring import ON_A_GPU, AsOne, draw

NAME = "training"


def create_pipeline(plan: Plan) -> Pipeline:
    """`splits (and the pre-trained run) → checkpoints, history`, a node per run; the fan-in per task.

    Runs that are trained as one share a node, whose outputs are those of the nodes of each.
    """
    grouped = {run.full_name for group in plan.run_groups for run in group.runs}
    alone = [run for name, run in plan.runs.items() if name not in grouped]
    runs = [_adopt(plan, run) if run.checkpoint else _train(plan, run) for run in alone]
    runs += [_train_together(plan, group) for group in plan.run_groups]
    tasks = dict.fromkeys(run.task for run in plan.runs.values() if run.task not in plan.views)
    return Pipeline([*runs, *(node for task in tasks for node in _curves(plan, task))], tags=NAME)


def _train(plan: Plan, run: RunSpec) -> Node:
    more = {"source": f"{run.pretrained}.checkpoints"} if run.pretrained in plan.runs else {}
    more |= {"parent": f"{run.split_from}.checkpoints"} if run.split_from else {}
    return _node(plan, run, nodes.train, more, tags=[f"gpus-{run.training.num_processes}"])


def _train_together(plan: Plan, group: RunGroup) -> Node:
    task = group.runs[0].task
    parts = [_train(plan, run) for run in group.runs]
    starts = {parent for run in group.runs for parent in (run.pretrained, run.split_from) if parent in plan.runs}
    return Node(
        AsOne(nodes.train_together, parts),
        inputs={
            "runs": f"params:plan.run_groups.{task}.{group.node.node}",
            "models_folder": "params:models_folder",
            "train_split": f"{task}.train_split",
            "test_split": f"{task}.test_split",
            **_validation(plan, task),
            **{name: f"{name}.checkpoints" for name in sorted(starts)},
        },
        outputs=[name for part in parts for name in part.outputs],
        name=group.node.node,
        namespace=str(group.node.namespace),
        tags=ON_A_GPU,
    )


def _adopt(plan: Plan, run: RunSpec) -> Node:
    if not plan.has_images(run.task):
        return _adopt_weights(run)
    return _node(plan, run, nodes.adopt_checkpoint, {}, tags=ON_A_GPU)


def _adopt_weights(run: RunSpec) -> Node:
    return Node(
        nodes.adopt_weights,
        inputs={"run": f"params:plan.runs.{run.full_name}", "models_folder": "params:models_folder"},
        outputs=f"{run.full_name}.checkpoints",
        name=run.name,
        namespace=f"{run.task}.{NAME}",
    )


def _node(plan: Plan, run: RunSpec, function: Callable[..., object], more: dict[str, str], tags: list[str]) -> Node:
    return Node(
        function,
        inputs={
            "run": f"params:plan.runs.{run.full_name}",
            "models_folder": "params:models_folder",
            "train_split": f"{run.task}.train_split",
            "test_split": f"{run.task}.test_split",
            **more,
            **_validation(plan, run.task),
        },
        outputs=[f"{run.full_name}.checkpoints", f"{run.full_name}.history"],
        name=run.node.node,
        namespace=str(run.node.namespace),
        tags=tags,
    )


def _validation(plan: Plan, task: str) -> dict[str, str]:
    has_one = "validation" in plan.study.tasks[task].parts
    return {"validation_split": f"{task}.validation_split"} if has_one else {}


def _curves(plan: Plan, task: str) -> list[Node]:
    runs = plan.runs_of(task)
    namespace = f"{task}.{NAME}"
    trained = any(run.checkpoint is None for run in runs)
    figures = [
        draw(NAME, task, "learning_curves", "curves:learning_curves", [f"{task}.history.table", f"{task}.runs.table"]),
        draw(NAME, task, "optimization_speed", "speed:optimization_speed", [f"{task}.runs.table"]),
    ]
    return [
        Node(
            nodes.gather_histories,
            inputs=[f"params:plan.runs_of.{task}", *(f"{run.full_name}.history" for run in runs)],
            outputs=f"{task}.history.table",
            name="gather_histories",
            namespace=namespace,
        ),
        Node(
            nodes.summarise_runs,
            inputs={
                "history": f"{task}.history.table",
                "class_sizes": f"{task}.class_sizes.table",
                "runs": f"params:plan.runs_of.{task}",
                **{run.name: f"{run.full_name}.checkpoints" for run in runs},
            },
            outputs=f"{task}.runs.table",
            name="summarise_runs",
            namespace=namespace,
        ),
        Node(
            nodes.gather_timings,
            inputs=[f"{run.full_name}.checkpoints" for run in runs],
            outputs=f"{task}.timings.table",
            name="gather_timings",
            namespace=namespace,
        ),
        *(figures if trained else []),
    ]
