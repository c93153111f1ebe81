"""Track the nodes of a pipeline: they may start, run, are done, failed, or cannot run because another failed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node


class Ended(NamedTuple):
    """A node that has ended: the seconds that it ran, and the error of one that failed."""

    node: Node
    seconds: float
    error: BaseException | None = None


class NodeProgress:
    """The state of every node; failures stop only what depends on them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.all: list[Node] = pipeline.nodes
        self._missing = {node: len(needed) for node, needed in pipeline.node_dependencies.items()}
        self._children: dict[Node, list[Node]] = {node: [] for node in self.all}
        for node, needed in pipeline.node_dependencies.items():
            for parent in needed:
                self._children[parent].append(node)
        self._place = {node: place for place, node in enumerate(self.all)}
        self._ready = [node for node in self.all if not self._missing[node]]
        self._started: dict[Node, float] = {}
        self.seconds: dict[Node, float] = {}
        """Nodes that are done, with the time that each took."""
        self.failed: dict[Node, BaseException] = {}
        self.skipped: dict[Node, Node] = {}
        """Nodes that cannot run, with the one that failed."""

    @property
    def running(self) -> dict[Node, float]:
        """Nodes that were started and have not ended, the oldest first, with the seconds that each has run."""
        now = time.perf_counter()
        return {node: now - start for node, start in self._started.items()}

    @property
    def unfinished(self) -> list[Node]:
        """Nodes that are still to be done: neither done nor failed nor skipped."""
        over = self.seconds.keys() | self.failed.keys() | self.skipped.keys()
        return [node for node in self.all if node not in over]

    @property
    def num_waiting(self) -> int:
        return len(self.all) - len(self.seconds) - len(self.failed) - len(self.skipped) - len(self._started)

    @property
    def are_over(self) -> bool:
        """True if nothing runs and nothing can start any more."""
        return not self.num_waiting and not self._started

    def take_ready(self) -> list[Node]:
        """Nodes whose inputs are there and that were not taken before, in the order of the pipeline."""
        ready, self._ready = sorted(self._ready, key=self._place.__getitem__), []
        return ready

    def start(self, node: Node) -> None:
        """The node runs; where it ran before and was lost, it begins again."""
        self._started[node] = time.perf_counter()

    def end(self, ended: Ended) -> None:
        """A node that is done makes ready what waited only for it; one that failed stops all that needs its outputs."""
        node, seconds, error = ended
        self._started.pop(node, None)
        if error is None:
            self.seconds[node] = seconds
            self._release(node)
        else:
            self.failed[node] = error
            for child in self._below(node):
                self.skipped.setdefault(child, node)

    def _release(self, node: Node) -> None:
        for child in self._children[node]:
            self._missing[child] -= 1
            if not self._missing[child] and child not in self.skipped:
                self._ready.append(child)

    def _below(self, node: Node) -> Iterable[Node]:
        stack, seen = [node], {node}
        while stack:
            for child in self._children[stack.pop()]:
                if child not in seen:
                    seen.add(child)
                    stack.append(child)
                    yield child
