"""The training of one run, or of several side by side, from initial weights to series of checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from itertools import tee
from pathlib import Path

import pandas as pd
import torch

from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import epoch_order
from transferscope.images.feed import Feed
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.series import CheckpointSeries
from transferscope.system.folder_lock import FolderLock, forget_dead_holder, run_folder_held
from transferscope.system.progress import progress_bar
from transferscope.training.device import OneProcess, choose_device
from transferscope.training.evaluation import evaluated_examples
from transferscope.training.history import Row, metric_columns
from transferscope.training.record import Inputs, RunFolder, by_part, name_of
from transferscope.training.step import Share
from transferscope.training.together import several_runs, with_common_snapshots
from transferscope.training.trainee import Trainee, one_run

log = logging.getLogger(__name__)

CHECK_EVERY = 16
"""Optimizer steps between looks at the loss: each look makes a GPU wait, and stops a run that has diverged."""

Advance = Callable[[int, str], None]
"""Report of progress: the number of optimizer steps since the last report, and a note."""

Result = tuple[CheckpointSeries, pd.DataFrame]
"""The checkpoints of a run, and its history."""


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
) -> Result:
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
    (result,) = train_runs([inputs], [folder], device=device, progress=progress)
    return result


def train_runs(
    several: Sequence[Inputs],
    folders: Sequence[str | Path],
    *,
    device: str | torch.device | None = None,
    progress: Advance | None = None,
    carry_out: Callable[[Sequence[RunFolder], Sequence[FolderLock]], None] | None = None,
    on_several_machines: bool = False,
) -> list[Result]:
    """Train one run, or several of one task as one, in this process; return of each what `train_run` returns.

    several: inputs of the runs, which have the same splits, model and training but for what a run of a group may
    have of its own (`run_groups.OF_THE_RUN`). folders: one for each run.

    Runs that are finished are left out. The others go on from the last snapshot that all of them have; where they have
    none in common, as where one was added later, those that have are trained as one and then the rest, so that no
    progress is lost. A run whose loss is no longer finite stops, and the others go on. Of the times, each run has its
    share.

    carry_out: trains runs whose folders are held, in place of this process. on_several_machines: true where others call
    this with the same folders.

    Raises UserError as `train_run`; of several runs also for networks whose layers draw (dropout) and for float16.
    """
    records = [RunFolder(folder, inputs) for folder, inputs in zip(folders, several, strict=True)]
    for inputs in several:
        inputs.check()
    unfinished = [record for record in records if not record.is_finished()]
    with ExitStack() as held:
        locks = {one: held.enter_context(run_folder_held(one.folder, shared=on_several_machines)) for one in unfinished}
        # Another process, or machine, may have finished some before their folders were held.
        for waiting in with_common_snapshots([record for record in unfinished if not record.is_finished()]):
            if carry_out is not None:
                carry_out(waiting, [locks[record] for record in waiting])
                continue
            _train_here(waiting, choose_device(device), as_one=len(several) > 1, progress=progress)
    for record in records:
        forget_dead_holder(record.folder)
    return [record.result() for record in records]


def _train_here(records: Sequence[RunFolder], device: torch.device, *, as_one: bool, progress: Advance | None) -> None:
    """A function of its own, so that the networks of one part are gone when those of the next are made."""
    prepared = several_runs(records, device) if as_one else one_run(records[0], device, OneProcess())
    bar = progress_bar(name_of(records), records[0].inputs.num_steps) if progress is None else nullcontext(progress)
    with bar as advance, prepared as trainee:
        fit(trainee, advance)


def fit(trainee: Trainee, advance: Advance) -> None:
    """Train the members of `trainee` to the end; the caller has checked their inputs and holds their folders.

    Every process of a group computes the same states, and the one that leads writes them.
    """
    members = alive = list(trainee.members)
    first, state = members[0].setup, members[0].state  # of these, all have the same images, options and position
    options, train_split, group, steps_per_epoch = first.run.training, first.split, first.group, first.steps_per_epoch
    size = options.batch_size
    feeds = {part: Feed(split, first.device) for part, split in members[0].record.inputs.splits.items()}
    snapshot_seconds = min(member.run.training.snapshot_seconds for member in members)

    # Resume or start.
    if state.has_begun:
        name = name_of([member.record for member in members])
        log.info("%s %s on after epoch %d, step %d", name, "go" if members[1:] else "goes", state.epoch, state.step)
        advance(state.epoch * steps_per_epoch + state.step, "")
    for member in members:
        member.open()

    saved = time.perf_counter()
    for epoch in range(len(state.rows), options.epochs + 1):
        # Order. Epoch 0 takes no steps: it measures the untrained models.
        orders = [(own.setup, epoch_order(own.run.order_seed_in(epoch), epoch, len(train_split))) for own in members]
        steps = range(alive[0].state.step, steps_per_epoch if epoch > 0 else 0)
        # Twice over: the feed reads some batches ahead of the steps.
        shares, ahead = tee(
            Share.joined([setup.share(epoch, step, order[step * size :][:size]) for setup, order in orders])
            for step in steps
        )
        images = feeds["train"].batches(share.read for share in ahead)

        # Steps. The losses stay on the device between two looks at them.
        account = torch.zeros(len(members), 2, dtype=torch.float64, device=first.device)
        looked = time.perf_counter()
        trainee.train()
        for step, share, stored in zip(steps, shares, images, strict=True):
            account += trainee.take_step(epoch, step, share, stored)
            is_last = step + 1 == steps_per_epoch
            if (step + 1) % CHECK_EVERY and not is_last:
                continue

            # Look at the losses. The states count whole looks, and so do the snapshots within an epoch.
            group.sum_(account[:, 0])
            sums, now = account.tolist(), time.perf_counter()
            account.zero_()
            taken, seconds, looked = step + 1 - alive[0].state.step, now - looked, now
            for member, (loss, weight) in zip(members, sums, strict=True):
                if not member.diverged:
                    member.count(epoch, step + 1, loss, weight, seconds / len(alive))
            alive = [member for member in alive if not member.diverged]
            if not alive:
                break
            mean = alive[0].state.loss_sum / alive[0].state.loss_weight
            note = f"{len(alive)} runs" if members[1:] else f"loss {mean:.3f}"
            advance(taken, f"{note}, {taken * size * len(alive) / seconds:,.0f} images/s")
            if now - saved > snapshot_seconds and not is_last:
                saved = now
                trainee.save()

        # Stop also where, after the last step, a weight is no longer finite: there is nothing to measure.
        if epoch > 0:
            for member, is_finite in zip(members, trainee.are_finite(), strict=True):
                if not (is_finite or member.diverged):
                    member.end_diverged(epoch)
            alive = [member for member in alive if not member.diverged]
        if not alive:
            break

        # Close the epoch: measure, and choose the best epoch so far, ...
        started = time.perf_counter()
        columns: list[Row] = [{} for _ in members]
        if epoch % options.evaluate_every == 0 or epoch == options.epochs:
            for part, feed in feeds.items():
                seen = evaluated_examples(feed.split, options.evaluate_train_on) if part == "train" else None
                for own, metrics in zip(columns, trainee.evaluate(feed, seen), strict=True):
                    own |= metric_columns(part, metrics)
        seconds = (time.perf_counter() - started) / len(alive)
        for member, own in zip(members, columns, strict=True):
            if not member.diverged:
                member.measured(epoch, own, seconds)

        # ... and save what is kept, with the states where their time has come. The snapshots come first, so a training
        # that is killed in between goes on from them.
        if time.perf_counter() - saved > snapshot_seconds and epoch < options.epochs:
            saved = time.perf_counter()
            trainee.save()
        for member in alive:
            member.close_epoch()

    # Finish. The index of each series comes last, so a run counts as finished only where all of it is there.
    for member in members:
        member.close()
    group.wait()
