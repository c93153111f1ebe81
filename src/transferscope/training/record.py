"""The folder of a run: the inputs that its files belong to, and the files that a training leaves and reads again."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from transferscope.experiment.run import RunSpec
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, save_checkpoint
from transferscope.models.series import INDEX, CheckpointSeries, epoch_file, read_index, write_series
from transferscope.models.state_dicts import state_digest
from transferscope.system.errors import UserError
from transferscope.system.stored import DamagedError, check, is_whole, write_json
from transferscope.system.temporaries import remove_leftovers
from transferscope.training.history import (
    EVENTS,
    HISTORY,
    STORED_TIMINGS,
    TIMINGS,
    read_history,
    repair_tables,
    write_history,
    write_timings,
)
from transferscope.training.snapshot import Snapshot, TrainingState, earlier, read_snapshot, restore, save_snapshot

log = logging.getLogger(__name__)


def by_part(train: PackedSplit, test: PackedSplit, validation: PackedSplit | None) -> dict[str, PackedSplit]:
    """Name the splits by their parts."""
    return {"train": train, "test": test} | ({} if validation is None else {"validation": validation})


@dataclass(frozen=True)
class Inputs:
    """A run, its splits by part, the checkpoint it starts from, and the digests of all that decides its results.

    They are checked once, by `loop.train_runs`, before workers have them.
    """

    run: RunSpec
    splits: dict[str, PackedSplit]
    """`train`, `test` and, where the task has one, `validation`."""
    initial: Checkpoint | None
    digests: dict[str, str]

    @classmethod
    def of(cls, run: RunSpec, splits: dict[str, PackedSplit], initial: Checkpoint | None) -> Inputs:
        """Gather the inputs and compute the digests of plan, images and initial weights."""
        digests = {"fingerprint": run.fingerprint} | {part: split.digest for part, split in splits.items()}
        return cls(
            run, splits, initial, digests | ({} if initial is None else {"initial": state_digest(initial.state_dict)})
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last batch may be smaller."""
        return math.ceil(len(self.splits["train"]) / self.run.training.batch_size)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.run.training.epochs * self.steps_per_epoch

    def check(self) -> None:
        """Raise UserError for splits without examples or of different classes, and for a wrong start."""
        run, train = self.run, self.splits["train"]
        name = run.full_name
        for part, split in self.splits.items():
            if len(split) == 0:
                raise UserError(f"run '{name}': the {part} split of '{split.name}' is empty")
            if tuple(split.class_names) != tuple(train.class_names) or split.multi_label != train.multi_label:
                raise UserError(
                    f"run '{name}': the {part} split of '{split.name}' has other classes than the train split"
                )
        if run.initialisation == "checkpoint":
            raise UserError(f"run '{name}' is a checkpoint file: there is nothing to train")
        if (run.initialisation == "pretrained") != (self.initial is not None):
            need = (
                "needs the checkpoint it starts from" if self.initial is None else "takes no checkpoint to start from"
            )
            raise UserError(f"run '{name}' has initialisation '{run.initialisation}' and {need}")


Position = tuple[int, int]
"""Whole epochs, and optimizer steps of the next one."""

SNAPSHOT = "snapshot.safetensors"


class RunFolder:
    """The checkpoint series of a run, `history.csv`, `timings.csv` and, while it trains, its last two snapshots.

    Snapshot and index hold the digests of plan, images and initial weights: files of other inputs are not used, and are
    removed when training starts. Times differ between identical runs, so they stand apart from the history.

    A checkpoint is written of the epochs that stay, of the best so far, and of those that a snapshot goes on from; of
    any other the weights wait in memory until the next epoch has ended, since they are the final ones of a run that
    diverges in it. The snapshot of an epoch is written before the epoch's checkpoint. A process that is killed between
    the two writes the checkpoint when it starts again, so both agree whenever training goes on. The index comes last.
    It holds the history; times lie in a hidden file beside it. Both tables are written from there, and again where
    somebody has changed or deleted them.
    """

    def __init__(self, folder: str | Path, inputs: Inputs) -> None:
        self.folder = Path(folder)
        self.inputs = inputs
        self.identity = json.dumps(inputs.digests, sort_keys=True)
        self._kept: tuple[set[int], set[int]] = (set(), set())
        """Epochs whose checkpoints the snapshot before the last, and the last, would go on with."""
        self._is_damaged = False
        self._last: Checkpoint | None = None
        """That of the last whole epoch, where it is not on disk."""

    def is_finished(self) -> bool:
        """True if a training with these inputs has come to its end here, and its files are whole."""
        if not (self.folder / INDEX).is_file():
            return False
        try:
            if read_index(self.folder).get("inputs") != self.inputs.digests:
                return False
            CheckpointSeries.open(self.folder).check()
        except DamagedError as error:
            if not self._is_damaged:  # else it was reported
                log.warning("%s is damaged (%s): the run is trained again", error.path, error.reason)
            self._is_damaged = True
            return False
        return True

    def result(self) -> tuple[CheckpointSeries, pd.DataFrame]:
        """Series and history of the finished run, whose folder is tidied.

        Snapshots are removed, and tables that are not as they were written are written again.
        """
        self._remove_snapshots()
        repair_tables(self.folder, read_index(self.folder)["history"])
        return CheckpointSeries.open(self.folder), read_history(self.folder)

    def resume(self, state: TrainingState, at: Position | None = None) -> bool:
        """Bring `state` to where a killed training left it; False where there is no snapshot to go on from.

        The last snapshot counts, or where it is damaged the one before; with `at` the one of that position.
        """
        for snapshot in self._snapshots():
            if at is not None and _position(snapshot) != at:
                continue
            restore(state, snapshot)
            self._kept = (set(range(state.epoch + 1)), self.kept_epochs(state))
            return True
        return False

    def positions(self) -> set[Position]:
        """Positions from which a killed training can go on, at most two."""
        return {_position(snapshot) for snapshot in self._snapshots()}

    def _snapshots(self) -> Iterator[Snapshot]:
        """Snapshots that can be used, the last one first."""
        for path in (self.folder / SNAPSHOT, earlier(self.folder / SNAPSHOT)):
            snapshot = read_snapshot(path, self.identity)
            if snapshot is None:
                continue
            epoch, best = snapshot.plain["epoch"], snapshot.plain["best_epoch"]
            needed = self._kept_epochs(epoch, best) - ({epoch} if snapshot.plain["step"] == 0 else set())
            damaged = [name for name in map(epoch_file, sorted(needed)) if not is_whole(self.folder / name)]
            if damaged:
                log.warning("snapshot %s cannot be used: %s is damaged or missing", path, damaged[0])
                continue
            yield snapshot

    def start(self) -> None:
        """Remove the files of another training."""
        for name in (INDEX, HISTORY, TIMINGS, STORED_TIMINGS):  # the index first: without it there is no series
            (self.folder / name).unlink(missing_ok=True)
        self._remove_snapshots()
        shutil.rmtree(self.folder / EVENTS, ignore_errors=True)
        self._remove_checkpoints_but(set())

    def save(self, state: TrainingState) -> None:
        """Save the state, to go on from here."""
        self._write_last()
        save_snapshot(self.folder / SNAPSHOT, state, self.identity)
        self._kept = (self._kept[1], self.kept_epochs(state))

    def close_epoch(self, state: TrainingState) -> None:
        """Write the tables, and the checkpoint of the epoch that has ended if it stays or a snapshot needs it.

        Both may be read while the run goes on. Checkpoints that no snapshot needs any longer are removed.
        """
        epoch, last = state.epoch, self.inputs.run.training.epochs
        if epoch == last or epoch in self._kept[1] or epoch in self._staying_epochs(epoch + 1, state.best_epoch):
            self.publish(state)
        else:
            self.write_tables(state)
            self._last = self._checkpoint(state, copied=True)

    def publish(self, state: TrainingState) -> None:
        """Write the tables and the checkpoint of the last whole epoch. A second call writes the same bytes."""
        self.write_tables(state)
        if state.step == 0:
            self._last = None
            save_checkpoint(self._checkpoint(state), self.folder / epoch_file(state.epoch))
            self._remove_checkpoints_but(self.kept_epochs(state) | self._kept[0] | self._kept[1])

    def _write_last(self) -> None:
        """Write the checkpoint of the last whole epoch unless it is there."""
        if self._last is not None:
            assert self._last.metadata.epoch is not None
            save_checkpoint(self._last, self.folder / epoch_file(self._last.metadata.epoch))
            self._last = None

    def kept_epochs(self, state: TrainingState) -> set[int]:
        """Epochs whose checkpoints stay, if the last whole epoch is the final one."""
        return self._kept_epochs(state.epoch, state.best_epoch)

    def _kept_epochs(self, last: int, best: int) -> set[int]:
        return self._staying_epochs(last, best) | {last}

    def _staying_epochs(self, end: int, best: int) -> set[int]:
        """Epochs before `end` whose checkpoints stay, wherever the training ends, while `best` is the best."""
        keep = self.inputs.run.training.keep_epochs
        chosen = set(range(end)) if keep == "all" else {epoch for epoch in keep if epoch < end}
        return chosen | {0, best}

    def write_tables(self, state: TrainingState) -> None:
        """Write history and times so far."""
        write_history(self.folder, state.rows)
        write_timings(self.folder, state.timings)

    def finish(self, state: TrainingState, status: Literal["finished", "diverged"]) -> None:
        """Write the index of the series: from now on the run is finished.

        DamagedError where a checkpoint that was written before is not whole any more.
        """
        run, kept = self.inputs.run, self.kept_epochs(state)
        self._write_last()
        self._remove_checkpoints_but(kept)
        for epoch in kept:
            check(self.folder / epoch_file(epoch))
        write_json(self.folder / STORED_TIMINGS, {"rows": state.timings})
        write_series(
            self.folder,
            task=run.task,
            run=run.name,
            fingerprint=run.fingerprint,
            epochs=kept,
            best=state.best_epoch,
            final=state.epoch,
            status=status,
            inputs=self.inputs.digests,
            history=state.rows,
        )

    def _checkpoint(self, state: TrainingState, *, copied: bool = False) -> Checkpoint:
        """The weights at the end of an epoch, and all that made them; copied, they stay as they are now."""
        run, split = self.inputs.run, self.inputs.splits["train"]
        metrics = {name: value for name, value in state.rows[-1].items() if name not in ("task", "run", "epoch")}
        metadata = CheckpointMetadata(
            architecture=run.model.name,
            model_options=dict(run.model.options),
            num_classes=split.num_classes,
            class_names=tuple(split.class_names),
            task=run.task,
            run=run.name,
            epoch=state.epoch,
            seeds={"initialisation": run.init_seed, "order": run.order_seed_in(state.epoch)},
            fingerprint=run.fingerprint,
            metrics={name: value for name, value in metrics.items() if not math.isnan(value)},
        )
        weights = state.model.state_dict()
        return Checkpoint({name: value.clone() if copied else value for name, value in weights.items()}, metadata)

    def _remove_snapshots(self) -> None:
        """Remove the files that only an unfinished training needs."""
        for path in (self.folder / SNAPSHOT, earlier(self.folder / SNAPSHOT)):
            path.unlink(missing_ok=True)

    def _remove_checkpoints_but(self, epochs: set[int]) -> None:
        kept = {epoch_file(epoch) for epoch in epochs}
        for path in self.folder.glob("epoch_*.safetensors"):
            if path.name not in kept:
                path.unlink()
        remove_leftovers(self.folder)  # of a process that was killed while it wrote


def name_of(records: Sequence[RunFolder]) -> str:
    """The first run, and how many are trained with it."""
    more = f" and {len(records) - 1} more" if len(records) > 1 else ""
    return f"{records[0].inputs.run.full_name}{more}"


def _position(snapshot: Snapshot) -> Position:
    return snapshot.plain["epoch"], snapshot.plain["step"]
