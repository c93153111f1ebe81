"""What hooks note of steps that run in other processes, brought to the process of the run."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from kedro.pipeline.node import Node
from pluggy import PluginManager

Notes = dict[str, Any]
"""By the kind of hooks that have noted it."""


@runtime_checkable
class TakesNotes(Protocol):
    """Hooks that keep a record of the run, for which it does not matter in which process a step runs."""

    def notes(self) -> Any:
        """What was noted in this process since the last call."""

    def add_notes(self, node: Node, notes: Any) -> None:
        """Take over what another process has noted of a step."""


def notes_of(hook_manager: PluginManager) -> Notes:
    """What the project's hooks have noted in this process; it can be sent to another."""
    return {type(hooks).__name__: hooks.notes() for hooks in _noting(hook_manager)}


def add_notes(hook_manager: PluginManager, node: Node, notes: Notes) -> None:
    """Give the project's hooks what those of another process have noted of `node`."""
    for hooks in _noting(hook_manager):
        if type(hooks).__name__ in notes:
            hooks.add_notes(node, notes[type(hooks).__name__])


def _noting(hook_manager: PluginManager) -> list[TakesNotes]:
    # Kedro's stand-in for "no hooks" gives None.
    return [hooks for hooks in hook_manager.get_plugins() or () if isinstance(hooks, TakesNotes)]
