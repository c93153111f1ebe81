"""Figures in processes beside the run: matplotlib holds Python's lock, and networks wait for it.

A process takes as long to begin as several figures take to draw, so a run of few figures draws them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import copy
from functools import wraps
from typing import Any

from kedro.pipeline.node import Node

from transferscope.system.processes import elsewhere

FIGURE = ".figure"
MANY = 8
"""Figures of one run from which on they are drawn in processes of their own."""


def figures_beside(nodes: Collection[Node]) -> Callable[[Node], Node]:
    """Make of each node of a run the one to carry out: a copy that also renders, where it makes figures alone.

    They do so in processes beside this one if the run has `MANY` figures, else in their own threads.
    """
    work = elsewhere if sum(map(_draws, nodes)) >= MANY else _here

    def carried_out(node: Node) -> Node:
        if not _draws(node):
            return node
        moved = copy(node)
        moved.func = drawn_by(work, node.func)
        return moved

    return carried_out


def _draws(node: Node) -> bool:
    return bool(node.outputs) and all(name.endswith(FIGURE) for name in node.outputs)


def drawn_by(work: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns a figure, drawn and rendered by `work`, such as `elsewhere`."""

    @wraps(function)
    def draw(*inputs: Any, **named: Any) -> Any:
        return work(_render, function, inputs, named)

    return draw


def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _render(function: Callable[..., Any], inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    from transferscope.plots.rendered import one_at_a_time, render

    with one_at_a_time:
        return render(function(*inputs, **named))
