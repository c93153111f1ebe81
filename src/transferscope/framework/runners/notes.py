"""Notes that runners and hooks of this project exchange beside Kedro's own calls."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from kedro.pipeline.node import Node
from pluggy import PluginManager

Notes = dict[str, Any]
"""By the kind of hooks that have noted it."""


@runtime_checkable
class TakesNotes(Protocol):
    """Hooks that keep a record of the run, for which it does not matter in which process a node runs."""

    def notes(self) -> Any:
        """Notes of this process since the last call."""

    def add_notes(self, node: Node, notes: Any) -> None:
        """Take over what another process has noted of a node."""


@runtime_checkable
class HoldsThings(Protocol):
    """Hooks that hold something from the beginning of a run to its end, such as a lock."""

    def let_go(self) -> None:
        """Give it back. Once more does nothing."""


def let_go(hook_manager: PluginManager) -> None:
    """After an interrupt, of which Kedro calls no hook: without it a notebook would hold the data folder."""
    for hooks in hook_manager.get_plugins() or ():
        if isinstance(hooks, HoldsThings):
            hooks.let_go()


def notes_of(hook_manager: PluginManager) -> Notes:
    """Notes of the project's hooks in this process; they can be sent to another."""
    return {type(hooks).__name__: hooks.notes() for hooks in _noting(hook_manager)}


def add_notes(hook_manager: PluginManager, node: Node, notes: Notes) -> None:
    """Give the project's hooks what those of another process have noted of `node`."""
    for hooks in _noting(hook_manager):
        if type(hooks).__name__ in notes:
            hooks.add_notes(node, notes[type(hooks).__name__])


def _noting(hook_manager: PluginManager) -> list[TakesNotes]:
    # Kedro's stand-in for "no hooks" gives None.
    return [hooks for hooks in hook_manager.get_plugins() or () if isinstance(hooks, TakesNotes)]
