"""Training of several runs as one: their optimizer steps share kernels, and all else is each run's own.

A small network leaves a GPU idle while the next kernel is launched. Here every kernel computes all runs. Each run
keeps its initial weights, the order of its examples, its draws, its learning rates, its snapshots and its folder, and
ends with the weights that it has alone, up to rounding.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import tee
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from transferscope.experiment.seeds import epoch_order
from transferscope.models.frozen import freeze
from transferscope.models.precision import training_type
from transferscope.models.series import CheckpointSeries
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import FolderLock, forget_dead_holder, run_folder_held
from transferscope.system.progress import progress_bar
from transferscope.training.device import autocast, choose_device, reproducible
from transferscope.training.evaluation import evaluate_each
from transferscope.training.feed import Feed
from transferscope.training.history import EVENTS, Events, metric_columns, row_of, score, timing_of
from transferscope.training.inputs import Inputs, check_last_batch, evaluated_examples
from transferscope.training.loop import CHECK_EVERY, Advance, untrained_model
from transferscope.training.process_group import OneProcess
from transferscope.training.record import RunFolder
from transferscope.training.snapshot import TrainingState
from transferscope.training.stack import Stack, stacking_fault
from transferscope.training.step import Setup, Share, loss_weight, summed_loss

log = logging.getLogger(__name__)

Result = tuple[CheckpointSeries, pd.DataFrame]


def train_runs(
    several: Sequence[Inputs],
    folders: Sequence[str | Path],
    *,
    device: str | torch.device | None = None,
    progress: Advance | None = None,
    carry_out: Callable[[Sequence[RunFolder], Sequence[FolderLock]], None] | None = None,
) -> list[Result]:
    """Train runs of one task as one, in this process; return of each what `train_run` returns.

    several: inputs of the runs, which have the same splits, model and training but for the learning rate, its
    schedule and `keep_epochs`. folders: one for each run.

    Runs that are finished are left out. The others go on from the last snapshot that all of them have; where they have
    none in common, as where one was added later, those that have are trained as one and then the rest, so that no
    progress is lost. A run whose loss is no longer finite stops, and the others go on. Of the times, each run has its
    share.

    carry_out: trains runs whose folders are held, in place of this process.

    Raises UserError as `train_run`, for networks whose layers draw (dropout), and where the precision is float16.
    """
    records = [RunFolder(folder, inputs) for folder, inputs in zip(folders, several, strict=True)]
    for inputs in several:
        inputs.check()
    unfinished = [record for record in records if not record.is_finished()]
    with ExitStack() as held:
        locks = {record: held.enter_context(run_folder_held(record.folder)) for record in unfinished}
        # Another process may have finished some before their folders were held.
        for waiting in _with_common_snapshots([record for record in unfinished if not record.is_finished()]):
            if carry_out is not None:
                carry_out(waiting, [locks[record] for record in waiting])
                continue
            name, steps = name_of(waiting), waiting[0].inputs.num_steps
            with progress_bar(name, steps) if progress is None else nullcontext(progress) as advance:
                fit_together(waiting, choose_device(device), advance)
    for record in records:
        forget_dead_holder(record.folder)
    return [record.result() for record in records]


def _with_common_snapshots(records: Sequence[RunFolder]) -> Iterator[list[RunFolder]]:
    """The runs in parts that go on from one position each; all of them where little but a first snapshot would be lost.

    As one they end with the bytes of a training that was not killed, which may have happened between two snapshots.
    """
    positions = {record: record.positions() for record in records}
    waiting = sorted(records, key=lambda record: max(positions[record], default=(-1, -1)), reverse=True)
    if waiting and all(len(own) < 2 for own in positions.values()):
        yield list(records)
        return
    while waiting:
        common = positions[waiting[0]]
        chosen = [waiting[0]]
        for record in waiting[1:]:
            if common & positions[record] or not (common or positions[record]):
                common = common & positions[record]
                chosen.append(record)
        yield [record for record in records if record in chosen]
        waiting = [record for record in waiting if record not in chosen]


def name_of(records: Sequence[RunFolder]) -> str:
    """The first run, and how many are trained with it."""
    more = f" and {len(records) - 1} more" if len(records) > 1 else ""
    return f"{records[0].inputs.run.full_name}{more}"


class _Member:
    """A run among those that are trained as one."""

    def __init__(self, record: RunFolder, setup: Setup, state: TrainingState) -> None:
        self.record, self.setup, self.state = record, setup, state
        self.run = record.inputs.run
        self.diverged = False
        self.events: Events | None = None

    def rate(self, epoch: int, step: int) -> float:
        return self.setup.learning_rate(epoch, step)


def fit_together(records: Sequence[RunFolder], device: torch.device, advance: Advance) -> None:
    """Train to the end; the caller has checked the inputs and holds the folders."""
    first = records[0].inputs
    options, splits, steps_per_epoch = first.run.training, first.splits, first.steps_per_epoch
    train_split, batch_size, number = splits["train"], options.batch_size, len(records)
    with ExitStack() as surroundings:
        surroundings.enter_context(reproducible(deterministic=options.deterministic))

        # Prepare: the initial weights, or in their place the last state that all runs have.
        models = [untrained_model(record.inputs).to(device) for record in records]
        _check(records, models, device)
        check_last_batch(models[0], train_split, batch_size)
        stack = Stack(models, [record.inputs.run.training for record in records])
        members = [
            _Member(
                record,
                Setup(record.inputs.run, train_split, steps_per_epoch, device, OneProcess(), model, model, False),
                TrainingState(model, optimizer),
            )
            for record, model, optimizer in zip(records, models, stack.optimizers, strict=True)
        ]
        feeds = {part: Feed(split, device) for part, split in splits.items()}
        resumed = _resume(members)
        lead = members[0].state  # of the position, which all share but those that have diverged
        if resumed:
            stack.take_in()
            log.info("%s go on after epoch %d, step %d", name_of(records), lead.epoch, lead.step)
            advance(lead.epoch * steps_per_epoch + lead.step, "")
        for member in members:
            if resumed:
                member.record.publish(member.state)
            else:
                member.record.start()
            if options.tensorboard:
                member.events = Events(member.record.folder / EVENTS, after=member.state.epoch)

        saved = time.perf_counter()
        snapshot_seconds = min(member.run.training.snapshot_seconds for member in members)
        epoch, step = lead.epoch + 1 if resumed else 0, lead.step
        while epoch <= options.epochs and not all(member.diverged for member in members):
            # Order. Epoch 0 takes no steps: it measures the untrained models.
            alive = [member for member in members if not member.diverged]
            orders = [epoch_order(one.run.order_seed_in(epoch), epoch, len(train_split)) for one in members]
            steps = range(step, steps_per_epoch if epoch > 0 else 0)
            # Twice over: the feed reads some batches ahead of the steps.
            shares, ahead = tee(
                Share.joined(
                    [
                        member.setup.share(epoch, step, order[step * batch_size :][:batch_size])
                        for member, order in zip(members, orders, strict=True)
                    ]
                )
                for step in steps
            )
            images = feeds["train"].batches(share.read for share in ahead)

            # Steps. The losses stay on the device between two looks at them.
            account = torch.zeros(number, 2, dtype=torch.float64, device=device)
            looked = time.perf_counter()
            stack.skeleton.train()
            freeze(stack.skeleton, options.frozen)
            for step, share, stored in zip(steps, shares, images, strict=True):
                account += take_step_together(stack, [one.setup for one in members], epoch, step, share, stored)
                is_last = step + 1 == steps_per_epoch
                if (step + 1) % CHECK_EVERY and not is_last:
                    continue

                # Look at the losses. The states count whole looks, and so do the snapshots within an epoch.
                now = time.perf_counter()
                for member, (loss, weight) in zip(members, account.tolist(), strict=True):
                    if member.diverged:
                        continue
                    member.state.loss_sum += loss
                    member.state.loss_weight += weight
                    member.state.seconds += (now - looked) / len(alive)
                    if math.isfinite(member.state.loss_sum):
                        member.state.step = step + 1
                    else:  # at once: from now on it has no snapshots, and the others have to go on without it
                        _end_diverged(member, epoch, len(train_split))
                account.zero_()
                taken = (step % CHECK_EVERY) + 1
                speed = taken * batch_size * len(alive) / max(now - looked, 1e-9)
                advance(taken, f"{len(alive)} runs, {speed:,.0f} images/s")
                looked = now
                if all(member.diverged for member in members):
                    break
                if now - saved > snapshot_seconds and not is_last:
                    saved = now
                    stack.hand_out([member.rate(epoch, step) for member in members])
                    for member in members:
                        if not member.diverged:
                            member.record.save(member.state)
            step = 0

            # Stop the runs of which a weight is no longer finite after the last step.
            finite = stack.are_finite()
            for member, is_finite in zip(members, finite, strict=True):
                if epoch > 0 and not is_finite and not member.diverged:
                    _end_diverged(member, epoch, len(train_split))
            alive = [member for member in alive if not member.diverged]
            if not alive:
                break

            # Close the epoch: measure, ...
            started = time.perf_counter()
            measured = [{} for _ in members]  # type: list[dict[str, float]]
            if epoch % options.evaluate_every == 0 or epoch == options.epochs:
                for part, feed in feeds.items():
                    seen = evaluated_examples(feed.split, options.evaluate_train_on) if part == "train" else None
                    each = evaluate_each(
                        stack.logits, number, stack.skeleton, feed, precision=options.precision, indices=seen
                    )
                    for columns, metrics in zip(measured, each, strict=True):
                        columns |= metric_columns(part, metrics)
            seconds = (time.perf_counter() - started) / len(alive)
            chosen_on = "validation" if "validation" in feeds else "test"
            for member, columns in zip(members, measured, strict=True):
                if not member.diverged:
                    _close_epoch(member, epoch, columns, seconds, chosen_on)

            # ... and save what is kept, with the states where their time has come. The snapshots come first.
            is_due = time.perf_counter() - saved > snapshot_seconds and epoch < options.epochs
            if is_due:
                saved = time.perf_counter()
                stack.hand_out([member.rate(max(epoch, 1), steps_per_epoch - 1 if epoch else 0) for member in members])
                for member in alive:
                    member.record.save(member.state)
            for member in alive:
                member.record.close_epoch(member.state)
            epoch += 1

        # Finish. The index of each series comes last.
        for member in members:
            if member.events is not None:
                member.events.close()
            if not member.diverged:
                member.record.finish(member.state, "finished")


def take_step_together(
    stack: Stack, setups: Sequence[Setup], epoch: int, step: int, share: Share, stored: Tensor
) -> Tensor:
    """Update the weights of all runs once, each as `take_step` does alone.

    share: `Share.joined` of the runs. stored: the images of `share.read`, uint8.

    Returns `(runs, 2)` float64: the summed loss of each, and the number that it is divided by.
    """
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


def _resume(members: Sequence[_Member]) -> bool:
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


def _end_diverged(member: _Member, epoch: int, num_images: int) -> None:
    """Write what is left of a run that has diverged; nothing is measured of it."""
    log.warning("%s diverged in epoch %d: its loss is no longer finite", member.run.full_name, epoch)
    state = member.state
    member.diverged = True
    state.rows.append(row_of(member.run, epoch, lr=member.rate(epoch, state.step), train_loss=math.nan))
    state.timings.append(timing_of(member.run, epoch, num_images, training=state.seconds, evaluation=0.0))
    member.record.write_tables(state)
    member.record.finish(state, "diverged")


def _close_epoch(member: _Member, epoch: int, columns: dict[str, float], seconds: float, chosen_on: str) -> None:
    """Count an epoch as done, with what was measured, and choose the best so far."""
    state, split = member.state, member.setup.split
    lr = member.rate(epoch, member.setup.steps_per_epoch - 1) if epoch > 0 else math.nan
    loss = state.loss_sum / state.loss_weight if epoch > 0 else math.nan
    row = row_of(member.run, epoch, lr=lr, train_loss=loss) | columns
    state.close_epoch(row, timing_of(member.run, epoch, len(split), training=state.seconds, evaluation=seconds))
    if member.events is not None:
        member.events.add(row)
    value = score(row, chosen_on, multi_label=split.multi_label)
    if epoch > 0 and value > state.best_score:
        state.best_score, state.best_epoch = value, epoch
