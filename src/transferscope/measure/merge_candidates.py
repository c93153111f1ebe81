"""Candidates of a merge, their parent, and a model to hold merges against, taken from files and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from transferscope.analysis.merging import check_candidates, check_parent
from transferscope.analysis.states import State
from transferscope.experiment.names import Epoch, RunName
from transferscope.measure.reused_network import ReusedNetwork
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.models.state_dicts import without
from transferscope.models.stored_state import stored_state
from transferscope.system.errors import UserError


class MergeCandidates:
    """The weights of all candidates, of which tensors are read when they are asked for, and a network for them.

    Raises UserError for networks of different architectures, shapes or classes, and for non-finite weights.
    """

    def __init__(self, candidates: Mapping[str, Checkpoint], folder: Path) -> None:
        self.folder, self.names = folder, list(candidates)
        self.metadata: list[CheckpointMetadata] = []
        self.states: list[State] = []
        self.parent: State | None = None
        self.parent_name: str | None = None
        self.union: State | None = None
        for place, name in enumerate(self.names):
            checkpoint = candidates[name]
            if place == 0:
                self.network = ReusedNetwork(checkpoint)
            self._take(name, checkpoint)
            self.states.append(stored_state(checkpoint, folder / f"candidate_{place}.pt"))
            del checkpoint
        check_candidates(self.states, self.names)

    def _take(self, name: str, checkpoint: Checkpoint) -> None:
        """Refuse another architecture or other classes than the first candidate's."""
        known = checkpoint.metadata
        if self.metadata:
            first = self.metadata[0]
            if (first.architecture, first.model_options) != (known.architecture, known.model_options):
                raise UserError(
                    f"{self.names[0]} is a {_shown(first)} and {name} a {_shown(known)}: "
                    "merge models of one architecture"
                )
            if first.class_names and known.class_names and first.class_names != known.class_names:
                raise UserError(f"{self.names[0]} and {name} name different classes: merge models of the same classes")
        self.metadata.append(known)

    def take_union(self, union: Checkpoint | Callable[[], Checkpoint]) -> None:
        """Take a model that was trained on the images of all candidates, or what reads it."""
        read = union() if callable(union) else union
        state, source = stored_state(read, self.folder / "union.pt"), read.source
        del read
        check_candidates([self.states[0], state], [self.names[0], source])
        self.union = state

    def take_parent(self, parent: Checkpoint | Callable[[], Checkpoint], class_names: tuple[str, ...]) -> None:
        """Take the weights that all candidates started from, or what reads them; UserError for those of no parent.

        class_names: of the images; of a parent with other classes the classifier is left out.
        """
        read = parent() if callable(parent) else parent
        self.parent_name = _named(read)
        state, source, classes = stored_state(read, self.folder / "parent.pt"), read.source, read.metadata.class_names
        del read
        check_parent(state, self.states, self.free(state), source)
        # A classifier of as many other classes has the right shape and the wrong rows.
        other = bool(classes) and classes != class_names
        self.parent = without(state, self.network.classifier) if other else state

    def free(self, parent: State) -> frozenset[str]:
        """The tensors of the classifier, where the parent's is that of another task."""
        return frozenset(
            key
            for key in self.network.classifier
            if key not in parent or parent[key].shape != self.states[0][key].shape
        )


def _named(checkpoint: Checkpoint) -> str | None:
    """A run with its epoch, or the name of a file."""
    known = checkpoint.metadata
    epoch = known.epoch_name or known.epoch
    if known.task and known.run and epoch is not None:
        return str(RunName(known.task, known.run).at(cast(Epoch, epoch)))
    return None if checkpoint.path is None else checkpoint.path.name


def _shown(known: CheckpointMetadata) -> str:
    options = f" {known.model_options}" if known.model_options else ""
    return f"{known.architecture}{options}"
