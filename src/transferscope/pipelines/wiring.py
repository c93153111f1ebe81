"""The two kinds of node that every analysis ends with: many small tables into one, and a table into a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import wraps
from typing import Any

import pandas as pd
from kedro.pipeline import Node

from transferscope.system.processes import elsewhere

ON_A_GPU = ["gpus-1"]
"""The tag of a node that runs networks: runners give it a GPU of its own where there are any, else a core."""


def concatenate(*tables: pd.DataFrame) -> pd.DataFrame:
    """One table of all rows, in the order of the inputs."""
    return pd.concat([table for table in tables if len(table)] or list(tables[:1]), ignore_index=True)


def gather(step: str, task: str, name: str, inputs: Iterable[str]) -> Node:
    """The node that makes `{task}.{name}.table` of the tables of runs or pairs."""
    return Node(
        concatenate,
        inputs=list(inputs),
        outputs=f"{task}.{name}.table",
        name=f"gather_{name}",
        namespace=f"{task}.{step}",
    )


def draw(step: str, task: str, name: str, function: Callable[..., Any], inputs: Iterable[str]) -> Node:
    """The node that draws `{task}.{name}.figure`; `function` gets the inputs and what must be said of the images."""
    return Node(
        drawn_beside(function, last_input_is_labels=True),
        inputs=[*inputs, f"params:plan.notes.{task}", f"params:plan.labels.{task}"],
        outputs=f"{task}.{name}.figure",
        name=f"draw_{name}",
        namespace=f"{task}.{step}",
    )


def drawn_beside(function: Callable[..., Any], *, last_input_is_labels: bool = False) -> Callable[..., Any]:
    """A function that returns a figure, drawn and rendered in a process beside this one where there are some.

    It stays a function, so that Kedro-Viz shows the code of the one that it wraps. The study's labels are the last
    input, or the one named `labels`; `function` does not get them.
    """

    @wraps(function)
    def draw(*inputs: Any, **named: Any) -> Any:
        labels = named.pop("labels", None)
        if last_input_is_labels:
            *inputs, labels = inputs  # type: ignore[assignment]
        return elsewhere(_render, function, tuple(inputs), named, labels)

    return draw


def _render(
    function: Callable[..., Any], inputs: tuple[Any, ...], named: dict[str, Any], labels: dict[str, Any] | None
) -> Any:
    from transferscope.plots.kinds import labelled
    from transferscope.plots.rendered import render

    with labelled(**labels) if labels else nullcontext():
        return render(function(*inputs, **named))
