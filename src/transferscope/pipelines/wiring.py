"""The two kinds of node that every analysis ends with: many small tables into one, and a table into a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from typing import Any

import pandas as pd
from kedro.pipeline import Node, Pipeline

from transferscope.experiment.plan import PairGroup, Plan

ON_A_GPU = ["gpus-1"]
"""The tag of a node that runs networks: runners give it a GPU of its own where there are any, else a core."""


def concatenate(*tables: pd.DataFrame) -> pd.DataFrame:
    """One table of all rows, in the order of the inputs."""
    return pd.concat([table for table in tables if len(table)] or list(tables[:1]), ignore_index=True)


def tagged(tag: str, nodes: Iterable[Node]) -> list[Node]:
    """The nodes with one more tag, by which `kedro run --tags` selects them."""
    return [node.tag(tag) for node in nodes]


def without_images(plan: Plan, made: Mapping[str, Pipeline]) -> dict[str, Pipeline]:
    """The pipelines without the nodes that need images of tasks that have none, directly or by what others make.

    made: pipelines by name. Those of distances and spectra stay, as they follow from weights.
    """
    tasks = {task for task in plan.study.tasks if not plan.has_images(task)}
    lacking = {f"{task}.source" for task in tasks}
    lacking |= {f"{run.full_name}.history" for run in plan.runs.values() if run.task in tasks}
    for node in Pipeline(list(made.values())).nodes if tasks else ():  # in the order in which they run
        if lacking.intersection(node.inputs):
            lacking.update(node.outputs)
    kept = {name: [node for node in part.nodes if not lacking.intersection(node.inputs)] for name, part in made.items()}
    return {name: Pipeline(nodes) for name, nodes in kept.items()} if tasks else dict(made)


def pair_inputs(task: str, group: PairGroup, entry: str) -> dict[str, str]:
    """The pairs of a node, and the entry of each of their runs under the run's full name."""
    return {"pairs": f"params:plan.pairs.{task}.{group.name}"} | {
        run.full_name: f"{run.full_name}.{entry}" for run in group.runs
    }


def gather(pipeline: str, task: str, name: str, inputs: Iterable[str]) -> Node:
    """The node that makes `{task}.{name}.table` of the tables of runs or pairs."""
    return Node(
        concatenate,
        inputs=list(inputs),
        outputs=f"{task}.{name}.table",
        name=f"gather_{name}",
        namespace=f"{task}.{pipeline}",
    )


def draw(pipeline: str, task: str, name: str, function: Callable[..., Any], inputs: Iterable[str]) -> Node:
    """The node that draws `{task}.{name}.figure`; `function` gets the inputs and what must be said of the images."""
    return Node(
        with_labels(function),
        inputs=[*inputs, f"params:plan.notes.{task}", f"params:plan.labels.{task}"],
        outputs=f"{task}.{name}.figure",
        name=f"draw_{name}",
        namespace=f"{task}.{pipeline}",
    )


class with_labels:
    """A function that draws figures with the labels of the study, which are its last input or the one named `labels`.

    An object instead of a closure, because processes of other runners receive it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        update_wrapper(self, function)  # Kedro-Viz shows the code of the function

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        from transferscope.plots.kinds import labelled

        if "labels" in named:
            labels = named.pop("labels")
        else:
            *positional, labels = inputs
            inputs = tuple(positional)
        with labelled(**labels):
            return self._function(*inputs, **named)
