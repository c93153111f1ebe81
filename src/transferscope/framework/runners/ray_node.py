"""One node in a worker of a Ray cluster."""

from __future__ import annotations

from typing import Any

from transferscope.framework.runners.node_task import NodeTask, Outcome, perform


class Board:
    """An actor beside the driver, on which nodes write that they began and where, which Ray does not report."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, str]] = []

    def note(self, name: str, machine: str) -> None:
        self._begun.append((name, machine))

    def take(self) -> list[tuple[str, str]]:
        """Names and machines since the last call."""
        begun, self._begun = self._begun, []
        return begun


def carry_out(task: NodeTask, board: Any) -> Outcome:
    """Run the node, after a note on the board; Ray passes on the log of its process."""
    import ray.util

    board.note.remote(task.node.name, ray.util.get_node_ip_address())
    return perform(task)
