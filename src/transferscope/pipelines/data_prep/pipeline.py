"""Draw the images that are generated, pack every task's splits, show what is in them."""

from __future__ import annotations

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from transferscope.experiment.names import EntryName, split_view
from transferscope.experiment.plan import Plan
from transferscope.pipelines.data_prep import nodes
from transferscope.pipelines.wiring import draw

NAME = "data_prep"


def create_pipeline(plan: Plan) -> Pipeline:
    """`draw → {task}.source → {task}.{part}_split → contact sheet, class sizes`, a namespace per task."""
    return Pipeline([*_draw(plan), *(node for task in plan.study.tasks for node in _task(plan, task))], tags=NAME)


def _draw(plan: Plan) -> list[Node]:
    return [
        Node(
            nodes.draw_images,
            inputs=[f"params:generated.{name}", "params:seed"],
            outputs=[f"{task}.source" for task in drawn.tasks],
            name=f"draw_{name}",
            namespace=f"{drawn.tasks[0]}.{NAME}" if len(drawn.tasks) == 1 else "generated",
        )
        for name, drawn in plan.study.generated.items()
    ]


def _task(plan: Plan, task: str) -> list[Node]:
    options = plan.study.tasks[task]
    splits = [f"{task}.{part}_split" for part in options.parts]
    made = [_join(task, part, options.union) if options.union else _pack(task, part) for part in options.parts]
    if task in plan.views:  # of images that another task describes
        return made
    read = _describe_source(task, patients=options.layout.by_patient) if options.layout else []
    return [*made, *read, *_describe(task, splits), *_figures(task, splits, multi_label=plan.is_multi_label(task))]


def _describe_source(task: str, *, patients: bool) -> list[Node]:
    described = [_table(nodes.list_drawn_examples, task, [f"{task}.source"], f"{task}.drawn_examples")]
    if patients:
        described.append(_table(nodes.count_shared_patients, task, [f"{task}.source"], f"{task}.shared_patients.table"))
    return described


def _describe(task: str, splits: list[str]) -> list[Node]:
    names = ("splits", "class_sizes", "label_shift", "dropped_files")
    return [
        _table(nodes.describe_splits, task, splits, [f"{task}.{name}.table" for name in names]),
        _table(nodes.count_shared_images, task, splits, f"{task}.shared_images.table"),
    ]


def _figures(task: str, splits: list[str], *, multi_label: bool) -> list[Node]:
    train = splits[0]
    figures = [
        _sheet(task, "contact_sheet", train),
        *(_sheet(task, f"{_part(split)}_contact_sheet", split) for split in splits[1:]),
        draw(NAME, task, "shuffled_images", "splits:shuffled", [train]),
        draw(NAME, task, "class_sizes", "splits:class_sizes", splits),
    ]
    if multi_label:
        figures.append(_table(nodes.count_cooccurrence, task, splits, f"{task}.label_cooccurrence.table"))
        title = f"{task}, {_part(train)}"
        figures.append(draw(NAME, task, "label_cooccurrence", "splits:cooccurrence", [train], title=title))
    return figures


def _sheet(task: str, name: str, split: str) -> Node:
    return draw(NAME, task, name, "splits:sheet", [split], title=f"{task}, {_part(split)}")


def _part(split: str) -> str:
    """`test` of `clipart.test_split`."""
    return EntryName.parse(split).form.removesuffix("_split")


def _table(function: Callable[..., object], task: str, inputs: list[str], outputs: str | list[str]) -> Node:
    return Node(function, inputs, outputs, name=function.__name__, namespace=f"{task}.{NAME}")


def _pack(task: str, part: str) -> Node:
    return Node(
        nodes.pack_images,
        inputs=[f"{task}.source", f"params:plan.tasks.{task}.{part}"],
        outputs=f"{task}.{part}_split",
        name=f"pack_{part}",
        namespace=f"{task}.{NAME}",
    )


def _join(task: str, part: str, union: tuple[str, ...]) -> Node:
    base, view = split_view(task)
    return Node(
        nodes.join_splits,
        inputs=[f"params:plan.tasks.{task}.{part}", *(f"{single}.{part}_split" for single in union)],
        outputs=f"{task}.{part}_split",
        name=f"join_{part}_{view}" if view else f"join_{part}",
        namespace=f"{base}.{NAME}",
    )
