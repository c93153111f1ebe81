"""The runs that the loop trains side by side, what it asks of their networks, and the network of one run by itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferscope.images.feed import Feed
from transferscope.images.seen_images import EvaluationTransform
from transferscope.images.split import PackedSplit
from transferscope.models.duplicate import duplicate
from transferscope.models.frozen import freeze
from transferscope.models.initialisation import initialise
from transferscope.models.layers import image_channels
from transferscope.models.memory_layout import as_input, first_weight, lay_out
from transferscope.system.errors import UserError
from transferscope.training.device import (
    OneProcess,
    loss_scaler,
    random_state_of,
    reproducible,
)
from transferscope.training.evaluation import evaluate
from transferscope.training.history import EVENTS, Events, Row, row_of, score, timing_of
from transferscope.training.optim import make_optimizer
from transferscope.training.record import Inputs, RunFolder
from transferscope.training.snapshot import TrainingState
from transferscope.training.step import Setup, Share, take_step

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
    """The networks of the members, each computed by itself (`Alone`) or all as one (`together`)."""

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


class Alone:
    """A `Trainee` of one member.

    network: the model as it is called in evaluation, compiled if asked.
    """

    def __init__(self, member: Member, network: nn.Module) -> None:
        self.members: Sequence[Member] = [member]
        self.setup, self.optimizer, self.network = member.setup, member.state.optimizer, network

    def train(self) -> None:
        self.setup.forward.train()
        freeze(self.setup.model, self.setup.run.training.frozen)

    def take_step(self, epoch: int, step: int, share: Share, stored: Tensor) -> Tensor:
        return take_step(self.setup, self.optimizer, epoch, step, share, stored)[None]

    def are_finite(self) -> list[bool]:
        return [self.setup.has_finite_weights()]

    def evaluate(self, feed: Feed, indices: np.ndarray | None) -> list[dict[str, float]]:
        precision, group = self.setup.run.training.precision, self.setup.group
        return [evaluate(self.network, feed, precision=precision, group=group, indices=indices)]

    def save(self) -> None:
        self.members[0].save()


@contextmanager
def one_run(record: RunFolder, device: torch.device, group: OneProcess) -> Iterator[Alone]:
    """The run of `record` with its initial weights, or in their place the last state of a training that was stopped.

    It is trained inside, by each process of `group`.

    Raises UserError where the processes see different snapshots, and as `check_last_batch`.
    """
    run, options, train_split = record.inputs.run, record.inputs.run.training, record.inputs.splits["train"]
    with reproducible(deterministic=options.deterministic, compiled=options.compile):
        model = untrained_model(record.inputs)
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        lay_out(model.to(device), layout)
        scaler = loss_scaler(device, options.precision)
        state = TrainingState(model, make_optimizer(model, options, may_be_left_out=scaler is not None), scaler)
        resumed = record.resume(state)
        # No process goes on before all have read their snapshot, so the leader does not change files under the others.
        if not group.agree([resumed, state.epoch, state.step], device):
            raise UserError(
                f"{run.full_name}: the machines see different snapshots in {record.folder}: "
                "the storage is slow to show what another machine has written; run again in a minute"
            )
        if group.size == 1:  # several share BatchNorm's statistics
            check_last_batch(model, train_split, options.batch_size)
        # Of fixed shapes: after the smaller last batch torch would compile for batches of any size, which are slower.
        network: nn.Module = torch.compile(model, dynamic=False) if options.compile else model  # type: ignore[assignment]
        channels, side = image_channels(model), train_split.pictures.seen_size
        blank = as_input(torch.zeros(2, channels, side, side, device=device), first_weight(model))
        forward = group.wrap(network, model, blank)
        with random_state_of(model, device) as layers_draw:
            steps_per_epoch = record.inputs.steps_per_epoch
            setup = Setup(run, train_split, steps_per_epoch, device, group, model, forward, layers_draw, scaler)
            yield Alone(Member(record, setup, state), network)


def untrained_model(inputs: Inputs) -> nn.Module:
    """The model with its initial weights on the CPU, its frozen parts taken out of training."""
    run = inputs.run
    model = initialise(
        run.model,
        inputs.splits["train"].num_classes,
        init_seed=run.init_seed,
        pretrained=inputs.initial,
        transfer=run.transfer,
        transfer_until=run.transfer_until,
    )
    freeze(model, run.training.frozen)
    return model


def check_last_batch(model: nn.Module, split: PackedSplit, batch_size: int) -> None:
    """Raise UserError where an epoch ends with one image on which the model's BatchNorm cannot train."""
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    if not norms or (len(split) % batch_size or batch_size) != 1:
        return
    trial, weight = duplicate(model).train(), first_weight(model)
    image = EvaluationTransform(split.pictures, image_channels(model))(split.gather([0])).to(weight.device)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            trial(as_input(image, weight))
        except ValueError as error:
            raise UserError(
                f"training.batch_size: {batch_size} leaves one of the {len(split)} images of {split.name} over, and "
                f"BatchNorm cannot train on one ({error}); choose another"
            ) from None
