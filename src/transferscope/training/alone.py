"""Training of one run as a network of its own, by one process or by several that share its batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.models.frozen import freeze
from transferscope.models.layers import image_channels
from transferscope.models.memory_layout import lay_out
from transferscope.system.errors import UserError
from transferscope.training.device import as_input, first_weight, loss_scaler, random_state_of, reproducible
from transferscope.training.evaluation import evaluate
from transferscope.training.feed import Feed
from transferscope.training.inputs import check_last_batch, untrained_model
from transferscope.training.member import Member
from transferscope.training.optim import make_optimizer
from transferscope.training.process_group import OneProcess, may_have_unused
from transferscope.training.record import RunFolder
from transferscope.training.snapshot import TrainingState
from transferscope.training.step import Setup, Share, take_step


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
        forward = group.wrap(network, partial(may_have_unused, model, blank))
        with random_state_of(model, device) as layers_draw:
            steps_per_epoch = record.inputs.steps_per_epoch
            setup = Setup(run, train_split, steps_per_epoch, device, group, model, forward, layers_draw, scaler)
            yield Alone(Member(record, setup, state), network)
