"""The runs that the loop trains side by side, and what the loop asks of their networks."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from transferscope.training.feed import Feed
from transferscope.training.history import EVENTS, Events, Row, row_of, score, timing_of
from transferscope.training.record import RunFolder
from transferscope.training.snapshot import TrainingState
from transferscope.training.step import Setup, Share

log = logging.getLogger(__name__)


class Member:
    """A run that is trained: its folder, which the process that leads writes, what stays the same, and its state."""

    def __init__(self, record: RunFolder, setup: Setup, state: TrainingState) -> None:
        self.record, self.setup, self.state = record, setup, state
        self.run = setup.run
        self.diverged = False
        self._leads = setup.group.leads
        self._events: Events | None = None

    def open(self) -> None:
        """Bring the folder to the state; after a kill between a snapshot and its checkpoint it lacks the checkpoint."""
        if not self._leads:
            return
        if self.run.training.tensorboard:
            self._events = Events(self.record.folder / EVENTS, after=self.state.epoch)
        if self.state.has_begun:
            self.record.publish(self.state)
        else:
            self.record.start()

    def count(self, epoch: int, step: int, loss: float, weight: float, seconds: float) -> None:
        """Count the optimizer steps of an epoch before `step`, with their summed loss and what it is divided by.

        A run whose loss is no longer finite ends at once: it has no more snapshots, and others go on without it.
        """
        self.state.loss_sum += loss
        self.state.loss_weight += weight
        self.state.seconds += seconds
        if math.isfinite(self.state.loss_sum):
            self.state.step = step
        else:
            self.end_diverged(epoch)

    def end_diverged(self, epoch: int) -> None:
        """Write what is left of a run that has diverged; nothing is measured of it."""
        log.warning("%s diverged in epoch %d: its loss is no longer finite", self.run.full_name, epoch)
        self.diverged = True
        lr = self.setup.learning_rate(epoch, self.state.step)
        self.state.rows.append(row_of(self.run, epoch, lr=lr, train_loss=math.nan))
        self.state.timings.append(self._timing(epoch, evaluation=0.0))
        if self._leads:
            self.record.write_tables(self.state)
            self.record.finish(self.state, "diverged")

    def measured(self, epoch: int, columns: Row, seconds: float) -> None:
        """Count an epoch as done, with what was measured in `seconds`, and choose the best so far.

        The untrained model is never the best if any other is measured.
        """
        state, setup = self.state, self.setup
        lr = setup.learning_rate(epoch, setup.steps_per_epoch - 1) if epoch > 0 else math.nan
        loss = state.loss_sum / state.loss_weight if epoch > 0 else math.nan
        row = row_of(self.run, epoch, lr=lr, train_loss=loss) | columns
        state.close_epoch(row, self._timing(epoch, evaluation=seconds))
        if self._events is not None:
            self._events.add(row)
        chosen_on = "validation" if "validation" in self.record.inputs.splits else "test"
        value = score(row, chosen_on, multi_label=setup.split.multi_label)
        if epoch > 0 and value > state.best_score:
            state.best_score, state.best_epoch = value, epoch

    def save(self) -> None:
        """Save the state."""
        if self._leads:
            self.record.save(self.state)

    def close_epoch(self) -> None:
        """Write the tables, and the weights of the epoch where they are kept."""
        if self._leads:
            self.record.close_epoch(self.state)

    def close(self) -> None:
        """Write the index of the series, by which a run counts as finished, unless one that has diverged has it."""
        if self._events is not None:
            self._events.close()
        if self._leads and not self.diverged:
            self.record.finish(self.state, "finished")

    def _timing(self, epoch: int, *, evaluation: float) -> Row:
        return timing_of(self.run, epoch, len(self.setup.split), training=self.state.seconds, evaluation=evaluation)


class Trainee(Protocol):
    """The networks of the members, each computed by itself (`alone`) or all as one (`together`)."""

    members: Sequence[Member]
    """One or more, at one position; only options of `run_groups.OF_THE_RUN`, seeds and start may differ."""

    def train(self) -> None:
        """Put the networks into training mode; frozen parts stay in evaluation mode."""

    def take_step(self, epoch: int, step: int, share: Share, stored: Tensor) -> Tensor:
        """Update the weights of all members once, by their joined share and the stored images of `share.read`.

        Returns `(members, 2)`, of each what `step.take_step` returns.
        """

    def are_finite(self) -> list[bool]:
        """For each member, true if no trained weight is infinite or not a number."""

    def evaluate(self, feed: Feed, indices: np.ndarray | None) -> list[dict[str, float]]:
        """For each member the metrics on the examples `indices` of a split; None for all of them."""

    def save(self) -> None:
        """Save the states of the members that have not diverged."""
