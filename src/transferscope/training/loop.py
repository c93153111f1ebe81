"""Training of one run, from its initial weights to its series of checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from transferscope.experiment.options import AugmentationOptions
from transferscope.images.augment import TrainingTransform, mixup
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.initialisation import initialise
from transferscope.models.layers import image_channels
from transferscope.models.series import CheckpointSeries
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import run_folder_held
from transferscope.system.progress import progress_bar
from transferscope.training.device import (
    as_input,
    autocast,
    choose_device,
    first_weight,
    random_state_of,
    reproducible,
    seed_layers,
)
from transferscope.training.evaluation import evaluate
from transferscope.training.events import EVENTS, Events
from transferscope.training.feed import Feed
from transferscope.training.group import OneProcess
from transferscope.training.history import Row, metric_columns, score
from transferscope.training.inputs import by_part, check_inputs, check_last_batch, inputs_of
from transferscope.training.objective import loss_weight, summed_loss, targets_of
from transferscope.training.optim import learning_rate, make_optimizer, set_learning_rate
from transferscope.training.order import epoch_order, step_seed
from transferscope.training.record import RunFolder, checkpoint_of
from transferscope.training.run import RunLike
from transferscope.training.snapshot import TrainingState

log = logging.getLogger(__name__)

CHECK_EVERY = 16
"""Steps between looks at the loss: each look makes a GPU wait, and stops a run that has diverged."""

Advance = Callable[[int, str], None]


def train_run(
    run: RunLike,
    train_split: PackedSplit,
    test_split: PackedSplit,
    *,
    initial: Checkpoint | None,
    folder: str | Path,
    validation_split: PackedSplit | None = None,
    device: str | torch.device | None = None,
    group: OneProcess | None = None,
    progress: Advance | None = None,
    snapshot_seconds: float = 600.0,
) -> tuple[CheckpointSeries, pd.DataFrame]:
    """Train `run` on `train_split` and leave in `folder` its checkpoints and its history; return both.

    `initial` is the checkpoint that a run with `initialisation` "pretrained" starts from (all but the classifier).
    Epoch 0 is the untrained model. Both splits are evaluated whole after every `evaluate_every` epochs and after the
    last; `best` is the epoch of the best score (accuracy; mean AUC of a multi-label task), the earliest of equals, on
    `validation_split` if given, else on the test split, as the authors chose it. Kept are the epochs 0, `keep_epochs`,
    best and final.

    The state is saved after every epoch, and within one every `snapshot_seconds`: a run that was killed goes on from
    there, and on the CPU ends with the same bytes as if it had not been, in any number of processes. A finished run of
    the same plan and data is returned at once; snapshots and series of another are not used. A run whose loss is no
    longer finite stops: its series has the status "diverged", its last row says in which epoch, and `final` is the
    epoch before.

    `device` defaults to the GPU if there is one. `group` joins several processes; whoever starts them (see `launch`)
    holds the folder, while a training without a group holds it itself. `progress` is called with steps done and a note;
    by default there is a bar.

    Raises UserError for splits that do not fit each other, the model or `initial`, and where another training has the
    folder.
    """
    held = run_folder_held(Path(folder)) if group is None else nullcontext()
    group = group or OneProcess()
    splits = by_part(train_split, test_split, validation_split)
    check_inputs(run, splits, initial)
    files = RunFolder(folder, run, inputs_of(run, splits, initial))
    if not files.is_finished():
        device = choose_device(device)
        with held, reproducible(deterministic=run.training.deterministic):
            training = _Training(run, splits, initial, files, device, group, snapshot_seconds)
            model = training.state.model
            with random_state_of(model, device) as training.layers_draw, _advancing(training, progress) as advance:
                training.go(advance)
    if group.leads:
        files.tidy()
    return files.result()


class _Training:
    """One training under way: its constant surroundings, and `state`, which is all that changes."""

    def __init__(
        self,
        run: RunLike,
        splits: dict[str, PackedSplit],
        initial: Checkpoint | None,
        files: RunFolder,
        device: torch.device,
        group: OneProcess,
        snapshot_seconds: float,
    ) -> None:
        self.run, self.options, self.name = run, run.training, f"{run.task}.{run.name}"
        self.splits, self.files, self.device, self.group = splits, files, device, group
        self.snapshot_seconds = snapshot_seconds
        self.train_split = splits["train"]
        self.multi_label, self.num_classes = self.train_split.multi_label, self.train_split.num_classes
        self.steps_per_epoch = math.ceil(len(self.train_split) / self.options.batch_size)

        model = initialise(run.model, self.num_classes, init_seed=run.init_seed, pretrained=initial)
        layout = torch.channels_last if self.options.channels_last else torch.contiguous_format
        model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self.state = TrainingState(model, make_optimizer(model, self.options))
        self.resumed = files.resume(self.state)
        self._check_that_all_resume_alike()
        if group.size == 1:  # several share BatchNorm's statistics
            check_last_batch(model, self.train_split, self.options.batch_size)
        self.network: nn.Module = torch.compile(model) if self.options.compile else model  # type: ignore[assignment]
        self.forward = group.wrap(self.network)

        self.weight = first_weight(model)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.feeds = {part: Feed(split, device) for part, split in splits.items()}
        self.labels = torch.from_numpy(np.array(self.train_split.labels))
        self.transform = TrainingTransform(self.train_split.pictures, self.options.augmentation, image_channels(model))
        self.generator = torch.Generator()
        self.layers_draw = False
        log_events = self.options.tensorboard and group.leads
        self.events = Events(files.folder / EVENTS, after=self.state.epoch) if log_events else None
        # Augmentation draws for the whole batch, so that the draws do not depend on how many processes share it.
        self.whole_batches = group.size > 1 and self.options.augmentation != AugmentationOptions()

    def _check_that_all_resume_alike(self) -> None:
        """Raise UserError where shared storage shows processes different snapshots.

        No process comes back before all have read theirs, so the leader does not change files under them.
        """
        found = [self.resumed, self.state.epoch, self.state.step]
        here = torch.tensor(found, dtype=torch.float64, device=self.device)
        if not torch.equal(self.group.sum_(here.clone()), here * self.group.size):
            raise UserError(
                f"{self.name}: the machines see different snapshots in {self.files.folder}: "
                "the storage is slow to show what another machine has written; run again in a minute"
            )

    def go(self, advance: Advance) -> None:
        """Train to the end."""
        state = self.state
        if self.resumed:
            log.info("%s goes on after epoch %d, step %d", self.name, state.epoch, state.step)
            advance(state.epoch * self.steps_per_epoch + state.step, "")
        else:
            self._start()
        if self.group.leads:
            self._publish()
        status: Literal["finished", "diverged"] = "finished"
        while state.epoch < self.options.epochs and status == "finished":
            if self._train_epoch(advance):
                self._close_epoch()
            else:
                self._note_divergence()
                status = "diverged"
        if self.events is not None:
            self.events.close()
        if self.group.leads:
            self.files.finish(state, status)
        self.group.wait()

    def _start(self) -> None:
        """Epoch 0: measure the untrained model."""
        if self.group.leads:
            self.files.start()
        row = self._row(0, lr=math.nan, train_loss=math.nan) | self._measure()
        self.state.close_epoch(row, self._timing(0, 0.0, 0.0))
        if self.events is not None:
            self.events.add(row)
        if self.group.leads:
            self.files.save(self.state)

    def _train_epoch(self, advance: Advance) -> bool:
        """Take the steps of the next epoch that are still to take; False if the loss or a weight is not finite."""
        state, epoch = self.state, self.state.epoch + 1
        order = epoch_order(self.run.order_seed, epoch, len(self.train_split))
        steps = range(state.step, self.steps_per_epoch)
        batches = [order[step * self.options.batch_size :][: self.options.batch_size] for step in steps]
        images = self.feeds["train"].batches(self._needed(batch) for batch in batches)
        account = torch.zeros(2, dtype=torch.float64, device=self.device)
        started, saved = time.perf_counter(), time.perf_counter()
        self.forward.train()
        for step, batch, stored in zip(steps, batches, images, strict=True):
            account += self._step(epoch, step, batch, stored)
            if (step + 1) % CHECK_EVERY and step + 1 < self.steps_per_epoch:
                continue
            self.group.sum_(account[:1])
            state.loss_sum += float(account[0])
            state.loss_weight += float(account[1])
            account.zero_()
            if not math.isfinite(state.loss_sum):
                return False
            now = time.perf_counter()
            speed = (step + 1 - state.step) * self.options.batch_size / (now - started)
            state.seconds, started = state.seconds + now - started, now
            loss = state.loss_sum / state.loss_weight
            advance(step + 1 - state.step, f"loss {loss:.3f}, {speed:,.0f} images/s")
            state.step = step + 1
            if now - saved > self.snapshot_seconds and state.step < self.steps_per_epoch:
                saved = now
                if self.group.leads:
                    self.files.save(state)
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters)

    def _step(self, epoch: int, step: int, batch: np.ndarray, stored: Tensor) -> Tensor:
        """One step of SGD on a global batch; returns this process's summed loss, and what the batch's is divided by."""
        seed = step_seed(self.run.order_seed, epoch, step)
        self.generator.manual_seed(seed)
        if self.layers_draw:
            seed_layers(seed + self.group.rank, self.device)
        augmentation = self.options.augmentation
        images = as_input(self.transform(stored.to(self.device), self.generator), self.weight)
        labels = self.labels[torch.from_numpy(batch)].to(self.device, non_blocking=True)
        targets = targets_of(labels, self.num_classes, multi_label=self.multi_label, mixed=augmentation.mixup > 0)
        if augmentation.mixup:
            images, targets = mixup(images, targets, augmentation.mixup, self.generator)
        weight = loss_weight(targets, multi_label=self.multi_label)

        own, factor = self.group.share(len(batch))
        with autocast(self.device, self.options.precision):
            logits = self.forward(images[own] if self.whole_batches else images)
        smoothing = self.options.label_smoothing
        loss = factor * summed_loss(logits, targets[own], multi_label=self.multi_label, label_smoothing=smoothing)
        self.state.optimizer.zero_grad()
        (loss * (self.group.size / weight)).backward()
        if self.options.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm, foreach=True)
        set_learning_rate(self.state.optimizer, self._learning_rate(epoch, step))
        self.state.optimizer.step()
        return torch.stack([loss.detach().double(), weight.double()])

    def _needed(self, batch: np.ndarray) -> np.ndarray:
        """Examples of a global batch that this process reads."""
        return batch if self.whole_batches else batch[self.group.share(len(batch))[0]]

    def _learning_rate(self, epoch: int, step: int) -> float:
        return learning_rate(self.options, (epoch - 1) * self.steps_per_epoch + step, self.steps_per_epoch)

    def _close_epoch(self) -> None:
        """Measure, note the epoch, and save what stays of it."""
        state, options = self.state, self.options
        epoch, training_seconds = state.epoch + 1, state.seconds
        started = time.perf_counter()
        lr = self._learning_rate(epoch, self.steps_per_epoch - 1)
        row = self._row(epoch, lr=lr, train_loss=state.loss_sum / state.loss_weight)
        if epoch % options.evaluate_every == 0 or epoch == options.epochs:
            row |= self._measure()
        state.close_epoch(row, self._timing(epoch, training_seconds, time.perf_counter() - started))
        if self.events is not None:
            self.events.add(row)
        self._choose_best(row)
        if self.group.leads:
            self.files.save(state)
            self._publish()

    def _choose_best(self, row: Row) -> None:
        part = "validation" if "validation" in self.splits else "test"
        value = score(row, part, multi_label=self.multi_label)
        if value > self.state.best_score:
            self.state.best_score, self.state.best_epoch = value, row["epoch"]

    def _publish(self) -> None:
        """Tables and checkpoint of the last whole epoch. Once more does no harm: the bytes are the same."""
        state = self.state
        self.files.write_tables(state)
        if state.step == 0:
            self.files.add_checkpoint(state, checkpoint_of(self.run, self.train_split, state))

    def _note_divergence(self) -> None:
        """The row of an epoch that has no metrics; the series ends with the epoch before."""
        state, epoch = self.state, self.state.epoch + 1
        log.warning("%s diverged in epoch %d: its loss is no longer finite", self.name, epoch)
        state.rows.append(self._row(epoch, lr=self._learning_rate(epoch, state.step), train_loss=math.nan))
        state.timings.append(self._timing(epoch, state.seconds, 0.0))
        if self.group.leads:
            self.files.write_tables(state)

    def _measure(self) -> Row:
        """Metrics of the present weights on all of every split."""
        row: Row = {}
        for part, feed in self.feeds.items():
            metrics = evaluate(self.network, feed, precision=self.options.precision, group=self.group)
            row |= metric_columns(part, metrics)
        return row

    def _row(self, epoch: int, **values: float) -> Row:
        return {"task": self.run.task, "run": self.run.name, "epoch": epoch} | values

    def _timing(self, epoch: int, training: float, evaluation: float) -> Row:
        speed = len(self.train_split) / training if training else math.nan
        return self._row(epoch, seconds=training + evaluation, training_seconds=training, images_per_second=speed)


@contextmanager
def _advancing(training: _Training, progress: Advance | None) -> Iterator[Advance]:
    """The caller's hook; where there is none a bar, but nothing in processes that do not lead."""
    if progress is not None:
        yield progress
    elif not training.group.leads:
        yield lambda steps, note: None
    else:
        with progress_bar(training.name, training.options.epochs * training.steps_per_epoch) as advance:
            yield advance
