"""Which steps of a pipeline may start, run, are done, failed, or cannot run because another failed."""

from __future__ import annotations

import time
from collections.abc import Iterable

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node


class Steps:
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
        """Steps that are done, with the time that each took."""
        self.failed: dict[Node, BaseException] = {}
        self.skipped: dict[Node, Node] = {}
        """Steps that cannot run, with the one that failed."""

    @property
    def running(self) -> list[Node]:
        """Steps that were started and have not ended, the oldest first."""
        return list(self._started)

    @property
    def num_waiting(self) -> int:
        return len(self.all) - len(self.seconds) - len(self.failed) - len(self.skipped) - len(self._started)

    @property
    def are_over(self) -> bool:
        """Whether nothing runs and nothing can start any more."""
        return not self.num_waiting and not self._started

    def take_ready(self) -> list[Node]:
        """Steps whose inputs are there and that were not taken before, in the order of the pipeline."""
        ready, self._ready = sorted(self._ready, key=self._place.__getitem__), []
        return ready

    def start(self, node: Node) -> None:
        self._started[node] = time.perf_counter()

    def finish(self, node: Node) -> None:
        """The step is done: what waited only for it is ready."""
        self.seconds[node] = time.perf_counter() - self._started.pop(node)
        for child in self._children[node]:
            self._missing[child] -= 1
            if not self._missing[child] and child not in self.skipped:
                self._ready.append(child)

    def fail(self, node: Node, error: BaseException) -> None:
        """The step failed: everything that needs it, directly or not, is skipped."""
        del self._started[node]
        self.failed[node] = error
        for child in self._below(node):
            self.skipped.setdefault(child, node)

    def _below(self, node: Node) -> Iterable[Node]:
        stack, seen = [node], {node}
        while stack:
            for child in self._children[stack.pop()]:
                if child not in seen:
                    seen.add(child)
                    stack.append(child)
                    yield child
