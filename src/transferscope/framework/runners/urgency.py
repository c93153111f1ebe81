"""Urgency of nodes: those with the longest way to the end of the run come first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

UNKNOWN = 1.0
"""Cost of a node of which none is known: next to nothing, but a longer chain of them is still the longer one."""


def urgency(pipeline: Pipeline, costs: Mapping[str, float], devices: Callable[[Node], int]) -> dict[Node, float]:
    """The longest path from each node to an end of the pipeline, in what its nodes cost.

    Costs decide which node starts first, and never a result.

    costs: by names of nodes. devices: how many a node is given, among which its cost is shared.
    """
    children: dict[Node, list[Node]] = {node: [] for node in pipeline.nodes}
    for node, needed in pipeline.node_dependencies.items():
        for parent in needed:
            children[parent].append(node)
    left: dict[Node, float] = {}
    for node in reversed(pipeline.nodes):
        after = max((left[child] for child in children[node]), default=0.0)
        left[node] = after + costs.get(node.name, UNKNOWN) / max(1, devices(node))
    return left
