"""Predict once per run, compare every pair, relate accuracy to class size (appendix B.2)."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.plan import Pair, Plan, RunSpec
from transferscope.pipelines.mistakes import nodes
from transferscope.pipelines.wiring import ON_A_GPU, draw, gather

STEP = "mistakes"


def create_pipeline(plan: Plan) -> Pipeline:
    """`checkpoints → predictions → pairs, classes → tables, figures`, per task."""
    options = plan.study.analyses.mistakes
    if options is None:
        return Pipeline([])
    found: list[Node] = []
    for task in plan.targets():
        pairs = plan.pairs(task, options.pairs)
        if pairs:
            found += _task(task, pairs, plan.is_multi_label(task))
    return Pipeline(found)


def _task(task: str, pairs: list[Pair], multi_label: bool) -> list[Node]:
    runs = list({run.name: run for pair in pairs for run in (pair.run_a, pair.run_b)}.values())
    return [
        *(_predict(run) for run in runs),
        *(_compare(task, pair) for pair in pairs),
        gather(STEP, task, "mistakes", (f"{task}.{pair.name}.mistakes" for pair in pairs)),
        Node(
            nodes.summarise_pairs,
            inputs=f"{task}.mistakes.table",
            outputs=f"{task}.mistakes_spread.table",
            name="summarise_pairs",
            namespace=f"{task}.{STEP}",
        ),
        draw(STEP, task, "mistakes", nodes.draw_mistakes, [f"{task}.mistakes.table"]),
        *_gallery(task, pairs),
        *([] if multi_label else _class_sizes(task, runs)),
    ]


def _class_sizes(task: str, runs: list[RunSpec]) -> list[Node]:
    """Accuracy against class size; findings of a multi-label task have no such accuracy."""
    return [
        Node(
            nodes.measure_class_accuracy,
            inputs={
                "runs": f"params:plan.runs.{task}",
                "test_split": f"{task}.test_split",
                "class_sizes": f"{task}.class_sizes.table",
                **{run.name: f"{run.full_name}.predictions" for run in runs},
            },
            outputs=[f"{task}.class_accuracy.table", f"{task}.class_size_correlation.table"],
            name="measure_class_accuracy",
            namespace=f"{task}.{STEP}",
        ),
        draw(
            STEP,
            task,
            "accuracy_by_class_size",
            nodes.draw_class_size_figure,
            [f"{task}.class_accuracy.table", f"{task}.class_size_correlation.table"],
        ),
    ]


def _predict(run: RunSpec) -> Node:
    return Node(
        nodes.predict_test,
        inputs=[f"{run.full_name}.checkpoints", f"{run.task}.test_split", "params:analyses.mistakes"],
        outputs=f"{run.full_name}.predictions",
        name=f"predict_{run.name}",
        namespace=f"{run.task}.{STEP}",
        tags=ON_A_GPU,
    )


def _compare(task: str, pair: Pair) -> Node:
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
        namespace=f"{task}.{STEP}",
    )


def _gallery(task: str, pairs: list[Pair]) -> list[Node]:
    """The gallery shows the first pair of a fine-tuned and a randomly initialised model."""
    mixed = next((pair for pair in pairs if pair.run_a.kind != pair.run_b.kind), None)
    if mixed is None:
        return []
    inputs = [
        f"params:plan.pairs.{task}.{mixed.name}",
        f"{mixed.run_a.full_name}.predictions",
        f"{mixed.run_b.full_name}.predictions",
        f"{task}.test_split",
        "params:analyses.mistakes",
    ]
    return [draw(STEP, task, "uncommon_mistakes", nodes.draw_gallery, inputs)]
