"""The kinds of node that every analysis has: its tables gathered into one, and figures drawn from tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, update_wrapper
from importlib import import_module
from typing import cast

import pandas as pd
from kedro.pipeline import Node, Pipeline

from transferscope.experiment.names import NodeName
from transferscope.experiment.options import Precision
from transferscope.experiment.pairs import PairGroup
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import printed_names
from transferscope.pipelines.types import Bench, Figure, PackedSplit, Store

ON_A_GPU = ["gpus-1"]
"""The tag of a node that runs networks: runners give it a GPU of its own where there are any, else a core."""

Labels = Mapping[str, Mapping[str, str]]
"""Roles of labels, and labels of runs, as `plan.labels` has them of every task."""


def concatenate(*tables: pd.DataFrame) -> pd.DataFrame:
    """One table of all rows, in the order of the inputs."""
    return pd.concat([table for table in tables if len(table)] or list(tables[:1]), ignore_index=True)


def named(table: pd.DataFrame, **names: str | int | pd.Series) -> pd.DataFrame:
    """The table with columns of one value each before its own."""
    return table.assign(**names)[[*names, *(column for column in table.columns if column not in names)]]


def make_bench(
    train_split: PackedSplit | None = None,
    test_split: PackedSplit | None = None,
    precision: Precision = "float32",
    store: Store | None = None,
    max_examples: int | None = None,
    resamples: int = 0,
    compiled: bool = False,
) -> Bench:
    """The bench on which a node measures models of a task, with at most `max_examples` of each part."""
    from transferscope.measure.bench import Bench

    splits = {part: split for part, split in (("train", train_split), ("test", test_split)) if split is not None}
    memory: Store = {} if store is None else store
    return Bench(splits, memory, precision, resamples, compiled).limited(max_examples)


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
    if not tasks:
        return dict(made)
    # Spectra are of weights alone: their pipeline reads the files itself, so that it runs alone.
    adopted = [node for node in kept["training"] if NodeName.parse(node.name).task in tasks]
    read = {name for node in kept["spectrum"] for name in node.inputs}
    kept["spectrum"] += [node for node in adopted if read.intersection(node.outputs)]
    return {name: Pipeline(nodes) for name, nodes in kept.items()}


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


def draw(
    pipeline: str,
    task: str,
    name: str,
    plot: str | Callable[..., Figure],
    inputs: Iterable[str],
    *,
    joined: bool = False,
    **options: object,
) -> Node:
    """The node that draws `{task}.{name}.figure`.

    Args:
        plot: A function of `plots` as `module:name` below it, which gets the inputs, the task as `title`, and as `note`
            the words that the images call for; or a function of nodes, which gets inputs and `note`.
        inputs: Tables, or what else the function draws.
        joined: The inputs are tables of one kind, and the function gets them as one.
        options: Further arguments of the function, by name; `title` instead of the task.
    """
    return Node(
        Drawing(plot, {"title": task} | options, joined) if isinstance(plot, str) else Labelled(plot),
        inputs=[*inputs, f"params:plan.notes.{task}", f"params:plan.labels.{task}"],
        outputs=f"{task}.{name}.figure",
        name=f"draw_{name}",
        namespace=f"{task}.{pipeline}",
    )


def draw_matrix(pipeline: str, plan: Plan, task: str, name: str, table: str, pairs: Iterable[PairGroup]) -> list[Node]:
    """The node that draws `{task}.{name}_matrix.figure` of a table, where three or more checkpoint files are compared.

    Labels of a matrix are those of the single runs; of a series of files the names of these.
    """
    groups = list(pairs)
    runs = {run.full_name: run for group in groups for run in group.runs if run.task == task}
    files = {run: spec for run, spec in runs.items() if spec.checkpoint is not None}
    if len(files) < MATRIX_FROM:
        return []
    names = printed_names(files.values())
    plot = f"matrices:{name}_matrix"
    return [draw(pipeline, task, f"{name}_matrix", plot, [f"{task}.{table}.table"], names=names)]


MATRIX_FROM = 3
"""Checkpoint files from which on there is a matrix of pairs."""


def draw_pages(
    pipeline: str, task: str, name: str, plot: str, inputs: Iterable[str], entry: str, **options: object
) -> Node:
    """The node that draws `{task}.{entry}.pages`, with a function that gives one figure after the other."""
    return Node(
        Pages(plot, {"title": task} | options, joined=True),
        inputs=[*inputs, f"params:plan.notes.{task}", f"params:plan.labels.{task}"],
        outputs=f"{task}.{entry}.pages",
        name=f"draw_{name}",
        namespace=f"{task}.{pipeline}",
    )


class Plot:
    """A function of `plots`, as `module:name` below it, that is imported when it is called.

    An object instead of a closure, because processes of other runners receive it.
    """

    def __init__(self, plot: str, options: Mapping[str, object], joined: bool) -> None:
        self.plot, self.options, self.joined = plot, dict(options), joined
        self.__name__ = plot.partition(":")[2]  # Kedro shows it
        self.__annotations__: dict[str, object] = {}  # no input is a parameter that Kedro should validate

    def function(self) -> Callable[..., object]:
        """The function itself."""
        module, _, name = self.plot.partition(":")
        function: Callable[..., object] = getattr(import_module(f"transferscope.plots.{module}"), name)
        return function

    def _draw(self, inputs: Iterable[object], note: object) -> object:
        drawn = [concatenate(*cast(Iterable[pd.DataFrame], inputs))] if self.joined else inputs
        return self.function()(*drawn, note=note, **self.options)


class Drawing(Plot):
    """A figure; the last two inputs are the note and the labels of the study."""

    def __call__(self, *inputs: object) -> object:
        from transferscope.plots.roles import labelled

        *drawn, note, labels = inputs
        with labelled(**cast(Labels, labels)):
            return self._draw(drawn, note)


class Pages(Plot):
    """Figures that are drawn one by one when they are saved; the last two inputs are the note and the labels."""

    def __call__(self, *inputs: object) -> Callable[[], Iterator[Figure]]:
        *drawn, note, labels = inputs
        return partial(self._pages, drawn, note, cast(Labels, labels))

    def _pages(self, drawn: Iterable[object], note: object, labels: Labels) -> Iterator[Figure]:
        from transferscope.plots.roles import labelled

        pages = iter(cast(Iterable[Figure], self._draw(drawn, note)))
        while True:
            with labelled(**labels):
                page = next(pages, None)
            if page is None:
                return
            yield page


class AsOne:
    """Several nodes in one, by a function that makes the outputs of all of them.

    Notes on a result, such as the plan that made it, follow from its own node alone.
    """

    def __init__(self, function: Callable[..., object], parts: Iterable[Node]) -> None:
        self._function, self.parts = function, tuple(parts)
        update_wrapper(self, function)  # Kedro validates parameters by the function's types

    def __call__(self, *args: object, **inputs: object) -> object:
        return self._function(*args, **inputs)


def parts_of(node: Node) -> tuple[Node, ...]:
    """The nodes whose work a node does: mostly itself alone."""
    return node.func.parts if isinstance(node.func, AsOne) else (node,)


class Labelled:
    """A function of nodes that draws with the labels of the study, which are one more input, the last one."""

    def __init__(self, function: Callable[..., Figure]) -> None:
        self._function = function
        update_wrapper(self, function)  # Kedro validates parameters by the function's types

    def __call__(self, *inputs: object) -> Figure:
        from transferscope.plots.roles import labelled

        *drawn, labels = inputs
        with labelled(**cast(Labels, labels)):
            return self._function(*drawn)
