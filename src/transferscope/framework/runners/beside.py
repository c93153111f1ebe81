"""Figures in processes beside the run: matplotlib holds Python's lock, and networks wait for it."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any

from kedro.pipeline.node import Node

from transferscope.system.processes import elsewhere

FIGURE = ".figure"


def figures_beside(node: Node) -> Node:
    """The node; where all that it makes are figures, a copy that draws and renders in a process beside this one."""
    if not node.outputs or not all(name.endswith(FIGURE) for name in node.outputs):
        return node
    moved = copy(node)
    moved.func = drawn_beside(node.func)
    return moved


def drawn_beside(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns a figure, drawn and rendered in a process beside this one where there are some."""

    @wraps(function)
    def draw(*inputs: Any, **named: Any) -> Any:
        return elsewhere(_render, function, inputs, named)

    return draw


def _render(function: Callable[..., Any], inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    from transferscope.plots.rendered import render

    return render(function(*inputs, **named))
