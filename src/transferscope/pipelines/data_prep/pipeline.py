"""Draw the images that are generated, pack every task's splits, show what is in them."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from transferscope.pipelines.data_prep import nodes
from transferscope.pipelines.wiring import draw
from transferscope.plan import Plan

STEP = "data_prep"
PARTS = ("train", "test")


def create_pipeline(plan: Plan) -> Pipeline:
    """`draw → {task}.source → {task}.{part}_split → contact sheet, class sizes`, a namespace per task."""
    return Pipeline([*_draw(plan), *(node for task in plan.study.tasks for node in _task(plan, task))])


def _draw(plan: Plan) -> list[Node]:
    return [
        Node(
            nodes.draw_images,
            inputs=[f"params:generated.{name}", "params:seed"],
            outputs=[f"{task}.source" for task in drawn.tasks],
            name=f"draw_{name}",
            namespace=f"{drawn.tasks[0]}.{STEP}" if len(drawn.tasks) == 1 else "generated",
        )
        for name, drawn in plan.study.generated.items()
    ]


def _task(plan: Plan, task: str) -> list[Node]:
    union = plan.study.tasks[task].union
    pack = [_join(task, part, union) if union else _pack(task, part) for part in PARTS]
    splits = [f"{task}.train_split", f"{task}.test_split"]
    count = Node(
        nodes.count_classes,
        inputs=splits,
        outputs=f"{task}.class_sizes.table",
        name="count_classes",
        namespace=f"{task}.{STEP}",
    )
    sheet = draw(STEP, task, "contact_sheet", nodes.draw_contact_sheet, splits[:1])
    sizes = draw(STEP, task, "class_sizes", nodes.draw_class_sizes, splits)
    together = [draw(STEP, task, "label_cooccurrence", nodes.draw_label_cooccurrence, splits[:1])]
    return [*pack, count, sheet, sizes, *(together if plan.is_multi_label(task) else [])]


def _pack(task: str, part: str) -> Node:
    return Node(
        nodes.pack_images,
        inputs=[f"{task}.source", f"params:plan.tasks.{task}.{part}"],
        outputs=f"{task}.{part}_split",
        name=f"pack_{part}",
        namespace=f"{task}.{STEP}",
    )


def _join(task: str, part: str, union: tuple[str, ...]) -> Node:
    return Node(
        nodes.join_splits,
        inputs=[f"params:plan.tasks.{task}.{part}", *(f"{single}.{part}_split" for single in union)],
        outputs=f"{task}.{part}_split",
        name=f"join_{part}",
        namespace=f"{task}.{STEP}",
    )
