"""Training of one run, from its initial weights to its series of checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import tee
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import epoch_order
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.frozen import freeze
from transferscope.models.initialisation import initialise
from transferscope.models.layers import image_channels
from transferscope.models.series import CheckpointSeries, Status
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import forget_dead_holder, run_folder_held
from transferscope.system.progress import progress_bar
from transferscope.training.device import (
    as_input,
    choose_device,
    first_weight,
    loss_scaler,
    random_state_of,
    reproducible,
)
from transferscope.training.evaluation import evaluate
from transferscope.training.feed import Feed
from transferscope.training.history import EVENTS, Events, metric_columns, row_of, score, timing_of
from transferscope.training.inputs import Inputs, by_part, check_last_batch, evaluated_examples
from transferscope.training.optim import make_optimizer
from transferscope.training.process_group import OneProcess, may_have_unused
from transferscope.training.record import RunFolder
from transferscope.training.snapshot import TrainingState
from transferscope.training.step import Setup, take_step

log = logging.getLogger(__name__)

CHECK_EVERY = 16
"""Optimizer steps between looks at the loss: each look makes a GPU wait, and stops a run that has diverged."""

Advance = Callable[[int, str], None]
"""Report of progress: the number of optimizer steps since the last report, and a note."""


def train_run(
    run: RunSpec,
    train_split: PackedSplit,
    test_split: PackedSplit,
    *,
    initial: Checkpoint | None,
    folder: str | Path,
    validation_split: PackedSplit | None = None,
    device: str | torch.device | None = None,
    progress: Advance | None = None,
) -> tuple[CheckpointSeries, pd.DataFrame]:
    """Train `run` on `train_split` in this process; return the checkpoints and the history that it leaves in `folder`.

    `initial` is the checkpoint that a run with `initialisation` "pretrained" starts from (all but the classifier).
    Epoch 0 is the untrained model. Both splits are evaluated after every `evaluate_every` epochs and after the
    last; `best` is the epoch of the best score (accuracy; mean AUC of a multi-label task), the earliest of equals, on
    `validation_split` if given, else on the test split, as the authors chose it. Kept are the epochs 0, `keep_epochs`,
    best and final. Images of test and validation are all evaluated, of training `evaluate_train_on`.

    The state is saved every `training.snapshot_seconds`, at the end of an epoch or within one: a run that was killed
    goes on from there, and on the CPU ends with the same bytes as if it had not been. A finished run of the same plan
    and data is returned at once; snapshots and series of another are not used. A run whose loss is no longer finite
    stops: its series has the status "diverged", its last row names the epoch, and `final` is the epoch before.

    `device` defaults to the GPU if there is one. `progress` is called with the number of optimizer steps and a note; by
    default there is a bar. For several processes see `distributed.launch`.

    Raises UserError for splits that do not fit each other, the model or `initial`, and where another training has the
    folder.
    """
    inputs = Inputs.of(run, by_part(train_split, test_split, validation_split), initial)
    inputs.check()
    record = RunFolder(folder, inputs)
    if not record.is_finished():
        bar = progress_bar(run.full_name, inputs.num_steps) if progress is None else nullcontext(progress)
        with run_folder_held(record.folder), bar as advance:
            fit(inputs, record, choose_device(device), OneProcess(), advance)
    forget_dead_holder(record.folder)
    return record.result()


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


def fit(
    inputs: Inputs,
    record: RunFolder,
    device: torch.device,
    group: OneProcess,
    advance: Advance,
) -> None:
    """Train to the end, as one process of `group`; the caller has checked the inputs and holds the folder.

    Every process computes the same state, and the one that leads writes it to `record`.
    """
    run, options, train_split = inputs.run, inputs.run.training, inputs.splits["train"]
    batch_size, steps_per_epoch = options.batch_size, inputs.steps_per_epoch
    with ExitStack() as surroundings:
        surroundings.enter_context(reproducible(deterministic=options.deterministic))

        # Prepare: the initial weights, or in their place the last state of a training that was stopped.
        model = untrained_model(inputs)
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
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
            check_last_batch(model, train_split, batch_size)
        # Of fixed shapes: after the smaller last batch torch would compile for batches of any size, which are slower.
        network: nn.Module = torch.compile(model, dynamic=False) if options.compile else model  # type: ignore[assignment]
        channels, side = image_channels(model), train_split.pictures.seen_size
        blank = as_input(torch.zeros(2, channels, side, side, device=device), first_weight(model))
        forward = group.wrap(network, partial(may_have_unused, model, blank))
        feeds = {part: Feed(split, device) for part, split in inputs.splits.items()}
        layers_draw = surroundings.enter_context(random_state_of(model, device))
        setup = Setup(run, train_split, steps_per_epoch, device, group, model, forward, layers_draw, state.scaler)
        log_events = options.tensorboard and group.leads
        events = Events(record.folder / EVENTS, after=state.epoch) if log_events else None

        # Resume or start. A training that was killed between a snapshot and its checkpoint lacks the checkpoint.
        if resumed:
            log.info("%s goes on after epoch %d, step %d", run.full_name, state.epoch, state.step)
            advance(state.epoch * steps_per_epoch + state.step, "")
            if group.leads:
                record.publish(state)
        elif group.leads:
            record.start()

        saved = time.perf_counter()
        status: Status = "finished"
        for epoch in range(state.epoch + 1 if resumed else 0, options.epochs + 1):
            # Order. Epoch 0 takes no steps: it measures the untrained model.
            order = epoch_order(run.order_seed_in(epoch), epoch, len(train_split))
            steps = range(state.step, steps_per_epoch if epoch > 0 else 0)
            # Twice over: the feed reads some batches ahead of the steps.
            shares, ahead = tee(setup.share(epoch, step, order[step * batch_size :][:batch_size]) for step in steps)
            images = feeds["train"].batches(share.read for share in ahead)

            # Steps. The loss stays on the device between two looks at it.
            account = torch.zeros(2, dtype=torch.float64, device=device)
            looked = time.perf_counter()
            forward.train()
            freeze(model, options.frozen)
            for step, share, stored in zip(steps, shares, images, strict=True):
                account += take_step(setup, state.optimizer, epoch, step, share, stored)
                is_last = step + 1 == steps_per_epoch
                if (step + 1) % CHECK_EVERY and not is_last:
                    continue

                # Look at the loss. The state counts whole looks, and so do the snapshots within an epoch.
                group.sum_(account[:1])
                state.loss_sum += float(account[0])
                state.loss_weight += float(account[1])
                account.zero_()
                if not math.isfinite(state.loss_sum):
                    break
                now, taken = time.perf_counter(), step + 1 - state.step
                speed = taken * batch_size / (now - looked)
                state.seconds, looked = state.seconds + now - looked, now
                advance(taken, f"loss {state.loss_sum / state.loss_weight:.3f}, {speed:,.0f} images/s")
                state.step = step + 1
                if now - saved > options.snapshot_seconds and not is_last:
                    saved = now
                    if group.leads:
                        record.save(state)

            # Stop where the loss, or after the last step a weight, is no longer finite: there is nothing to measure.
            if epoch > 0 and not (math.isfinite(state.loss_sum) and setup.has_finite_weights()):
                log.warning("%s diverged in epoch %d: its loss is no longer finite", run.full_name, epoch)
                status = "diverged"
                lr = setup.learning_rate(epoch, state.step)
                state.rows.append(row_of(run, epoch, lr=lr, train_loss=math.nan))
                state.timings.append(timing_of(run, epoch, len(train_split), training=state.seconds, evaluation=0.0))
                if group.leads:
                    record.write_tables(state)
                break

            # Close the epoch: measure, ...
            started = time.perf_counter()
            lr = setup.learning_rate(epoch, steps_per_epoch - 1) if epoch > 0 else math.nan
            loss = state.loss_sum / state.loss_weight if epoch > 0 else math.nan
            row = row_of(run, epoch, lr=lr, train_loss=loss)
            if epoch % options.evaluate_every == 0 or epoch == options.epochs:
                for part, feed in feeds.items():
                    seen = evaluated_examples(feed.split, options.evaluate_train_on) if part == "train" else None
                    measured = evaluate(network, feed, precision=options.precision, group=group, indices=seen)
                    row |= metric_columns(part, measured)
            seconds = time.perf_counter() - started
            timing = timing_of(run, epoch, len(train_split), training=state.seconds, evaluation=seconds)
            state.close_epoch(row, timing)
            if events is not None:
                events.add(row)

            # ... choose the best epoch so far, which is never the untrained one if any other is measured, ...
            value = score(row, "validation" if "validation" in feeds else "test", multi_label=train_split.multi_label)
            if epoch > 0 and value > state.best_score:
                state.best_score, state.best_epoch = value, epoch

            # ... and save what is kept, with the state where its time has come. The snapshot comes first, so a training
            # that is killed in between goes on from it.
            is_due = time.perf_counter() - saved > options.snapshot_seconds and epoch < options.epochs
            saved = time.perf_counter() if is_due else saved
            if group.leads and is_due:
                record.save(state)
            if group.leads:
                record.close_epoch(state)

        # Finish. The index of the series comes last, so a run counts as finished only where all of it is there.
        if events is not None:
            events.close()
        if group.leads:
            record.finish(state, status)
        group.wait()
