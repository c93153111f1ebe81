"""Training of several runs as one: their optimizer steps share kernels, and all else is each run's own.

A small network leaves a GPU idle while the next kernel is launched. Here every kernel computes all runs. Each run
keeps its initial weights, the order of its examples, its draws, its learning rates, its snapshots and its folder, and
ends with the weights that it has alone, up to rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from transferscope.images.feed import Feed
from transferscope.models.frozen import freeze
from transferscope.models.precision import training_type
from transferscope.system.errors import UserError
from transferscope.training.device import OneProcess, autocast, reproducible
from transferscope.training.evaluation import Pass
from transferscope.training.record import RunFolder, name_of
from transferscope.training.snapshot import TrainingState
from transferscope.training.stack import Stack, stacking_fault
from transferscope.training.step import Setup, Share, loss_weight, summed_loss
from transferscope.training.trainee import Member, check_last_batch, untrained_model

log = logging.getLogger(__name__)


def with_common_snapshots(records: Sequence[RunFolder]) -> Iterator[list[RunFolder]]:
    """The runs in parts that go on from one position each; all of them where little but a first snapshot would be lost.

    As one they end with the bytes of a training that was not killed, which may have happened between two snapshots.
    """
    positions = {record: record.positions() for record in records if len(records) > 1}
    if records and all(len(own) < 2 for own in positions.values()):
        yield list(records)
        return
    waiting = sorted(records, key=lambda record: max(positions[record], default=(-1, -1)), reverse=True)
    while waiting:
        common = positions[waiting[0]]
        chosen = [waiting[0]]
        for record in waiting[1:]:
            if common & positions[record] or not (common or positions[record]):
                common = common & positions[record]
                chosen.append(record)
        yield [record for record in records if record in chosen]
        waiting = [record for record in waiting if record not in chosen]


class Together:
    """A `Trainee` whose members are the rows of a stack."""

    def __init__(self, members: Sequence[Member], stack: Stack) -> None:
        self.members, self.stack = members, stack
        self.setups, self.options = [member.setup for member in members], members[0].run.training
        self._last = (1, 0)
        """Epoch and optimizer step whose learning rates are handed out."""

    def train(self) -> None:
        self.stack.skeleton.train()
        freeze(self.stack.skeleton, self.options.frozen)

    def take_step(self, epoch: int, step: int, share: Share, stored: Tensor) -> Tensor:
        self._last = (epoch, step)
        return take_step_together(self.stack, self.setups, epoch, step, share, stored)

    def are_finite(self) -> list[bool]:
        return self.stack.are_finite()

    def evaluate(self, feed: Feed, indices: np.ndarray | None) -> list[dict[str, float]]:
        number, network, precision = len(self.members), self.stack.skeleton, self.options.precision
        return Pass(
            network, feed, precision=precision, indices=indices, call=self.stack.logits, number=number
        ).metrics()

    def save(self) -> None:
        self.stack.hand_out([setup.learning_rate(*self._last) for setup in self.setups])
        for member in self.members:
            if not member.diverged:
                member.save()


@contextmanager
def several_runs(records: Sequence[RunFolder], device: torch.device) -> Iterator[Together]:
    """The runs with their initial weights, or in their place the last state that all of them have; trained inside.

    Raises UserError where they cannot be computed as one, and as `check_last_batch`.
    """
    first = records[0].inputs
    options, split = first.run.training, first.splits["train"]
    with reproducible(deterministic=options.deterministic, compiled=options.compile):
        models = [untrained_model(record.inputs).to(device) for record in records]
        _check(records, models, device)
        check_last_batch(models[0], split, options.batch_size)
        stack = Stack(models, [record.inputs.run.training for record in records])
        members = [
            Member(
                record,
                Setup(record.inputs.run, split, first.steps_per_epoch, device, OneProcess(), model, model, False),
                TrainingState(model, optimizer),
            )
            for record, model, optimizer in zip(records, models, stack.optimizers, strict=True)
        ]
        if _resume(members):
            stack.take_in()
        yield Together(members, stack)


def take_step_together(
    stack: Stack, setups: Sequence[Setup], epoch: int, step: int, share: Share, stored: Tensor
) -> Tensor:
    """Update the weights of all runs once, each as `take_step` does alone; see `Trainee.take_step`."""
    first, number = setups[0], len(setups)
    options, multi_label = first.run.training, first.split.multi_label
    images, targets = first.examples(share, stored)
    images, targets = (values.unflatten(0, (number, -1)) for values in (images, targets))
    with autocast(first.device, options.precision):
        logits = stack.forward(images)
    summed = partial(summed_loss, multi_label=multi_label, label_smoothing=options.label_smoothing)
    losses = torch.vmap(summed)(logits, targets)
    weights = torch.vmap(partial(loss_weight, multi_label=multi_label))(targets)
    stack.zero_grad()
    (losses / weights).sum().backward()  # the gradient of each row is that of its own run's loss
    stack.update([setup.learning_rate(epoch, step) for setup in setups], options.clip_norm)
    return torch.stack([losses.detach().double(), weights.double()], dim=1)


def _check(records: Sequence[RunFolder], models: Sequence[torch.nn.Module], device: torch.device) -> None:
    """Raise UserError where runs cannot be computed as one on this device."""
    options, name = records[0].inputs.run.training, name_of(records)
    if training_type(options.precision, device) == torch.float16:
        raise UserError(
            f"{name}: training.precision: {options.precision} is float16 here, whose loss is scaled for each run "
            "alone: set training.together to false, or precision to float32"
        )
    fault = stacking_fault(models[0], options, records[0].inputs.splits["train"].pictures.seen_size)
    if fault is not None:
        raise UserError(
            f"{name}: {records[0].inputs.run.model.name} cannot be trained as one with others, since {fault}: set "
            "training.together to false"
        )


def _resume(members: Sequence[Member]) -> bool:
    """Bring the states to the last position of which all runs have a snapshot; False where there is none."""
    positions = [member.record.positions() for member in members]
    common = set.intersection(*positions)
    if not common:
        further = [member.run.full_name for member, own in zip(members, positions, strict=True) if own]
        if further:
            log.warning("%s: no snapshot that all runs trained together have: they start again", ", ".join(further))
        return False
    for member in members:
        member.record.resume(member.state, max(common))
    return True
