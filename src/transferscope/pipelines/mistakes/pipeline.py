"""Predict once per run, compare every pair, relate accuracy to class size (appendix B.2)."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.plan import PairGroup, Plan, RunSpec
from transferscope.pipelines.mistakes import nodes
from transferscope.pipelines.wiring import ON_A_GPU, draw, gather, pair_inputs, tagged

NAME = "mistakes"


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → predictions → pairs, classes → tables, figures`, per task."""
    options = plan.study.analyses.mistakes
    if options is None:
        return Pipeline([])
    found: list[Node] = []
    for task in plan.targets():
        groups = plan.pair_groups(task, options.pairs)
        if groups:
            found += _task(plan, task, groups)
    return Pipeline(found, tags=NAME)


def _task(plan: Plan, task: str, groups: list[PairGroup]) -> list[Node]:
    runs = list({run.name: run for group in groups for run in group.runs}.values())
    return [
        *(_predict(run) for run in runs),
        *(_compare(task, group) for group in groups),
        gather(NAME, task, "mistakes", (f"{task}.{group.name}.mistakes" for group in groups)),
        Node(
            nodes.summarise_pairs,
            inputs=f"{task}.mistakes.table",
            outputs=f"{task}.mistakes_spread.table",
            name="summarise_pairs",
            namespace=f"{task}.{NAME}",
        ),
        draw(NAME, task, "mistakes", "mistakes:mistake_bars", [f"{task}.mistakes.table"]),
        *_gallery(plan, task),
        *([] if plan.is_multi_label(task) else tagged("class_size", _class_sizes(task, runs))),
    ]


def _class_sizes(task: str, runs: list[RunSpec]) -> list[Node]:
    """Accuracy against class size; findings of a multi-label task have no such accuracy."""
    return [
        Node(
            nodes.measure_class_accuracy,
            inputs={
                "runs": f"params:plan.runs_of.{task}",
                "test_split": f"{task}.test_split",
                "class_sizes": f"{task}.class_sizes.table",
                **{run.name: f"{run.full_name}.predictions" for run in runs},
            },
            outputs=[f"{task}.class_accuracy.table", f"{task}.class_size_correlation.table"],
            name="measure_class_accuracy",
            namespace=f"{task}.{NAME}",
        ),
        draw(
            NAME,
            task,
            "accuracy_by_class_size",
            "mistakes:accuracy_by_class_size",
            [f"{task}.class_accuracy.table", f"{task}.class_size_correlation.table"],
        ),
    ]


def _predict(run: RunSpec) -> Node:
    return Node(
        nodes.predict_test,
        inputs=[f"{run.full_name}.checkpoints", f"{run.task}.test_split", "params:analyses.mistakes"],
        outputs=f"{run.full_name}.predictions",
        name=f"predict_{run.name}",
        namespace=f"{run.task}.{NAME}",
        tags=ON_A_GPU,
    )


def _compare(task: str, group: PairGroup) -> Node:
    if group.together:
        return Node(
            nodes.compare_pairs,
            inputs=pair_inputs(task, group, "predictions")
            | {"test_split": f"{task}.test_split", "options": "params:analyses.mistakes"},
            outputs=f"{task}.{group.name}.mistakes",
            name=f"compare_{group.name}",
            namespace=f"{task}.{NAME}",
        )
    (pair,) = group.pairs
    return Node(
        nodes.compare_pair,
        inputs=[
            f"params:plan.pairs.{task}.{pair.name}",
            f"{pair.run_a.full_name}.predictions",
            f"{pair.run_b.full_name}.predictions",
            f"{task}.test_split",
            "params:analyses.mistakes",
        ],
        outputs=f"{task}.{pair.name}.mistakes",
        name=f"compare_{pair.name}",
        namespace=f"{task}.{NAME}",
    )


def _gallery(plan: Plan, task: str) -> list[Node]:
    """The gallery shows the first pair of a fine-tuned and a randomly initialised model."""
    mixed = plan.gallery_pair(task)
    if mixed is None:
        return []
    inputs = [
        f"params:plan.gallery_pairs.{task}",
        f"{mixed.run_a.full_name}.predictions",
        f"{mixed.run_b.full_name}.predictions",
        f"{task}.test_split",
        "params:analyses.mistakes",
    ]
    return [draw(NAME, task, "uncommon_mistakes", nodes.draw_gallery, inputs)]
