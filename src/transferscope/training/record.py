"""The folder of a run: what a training leaves there, and what it finds there when it starts again."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Literal

import pandas as pd

from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, save_checkpoint
from transferscope.models.series import INDEX, CheckpointSeries, epoch_file, write_series
from transferscope.system.atomic import atomic_file
from transferscope.system.temporaries import remove_leftovers
from transferscope.training.events import EVENTS
from transferscope.training.history import history_table
from transferscope.training.run import RunLike
from transferscope.training.snapshot import TrainingState, load_snapshot, save_snapshot

SNAPSHOT, HISTORY, TIMINGS = "snapshot.pt", "history.csv", "timings.csv"


class RunFolder:
    """The checkpoint series of a run, `history.csv`, `timings.csv` and, while it trains, `snapshot.pt`.

    Snapshot and index say which plan, images and initial weights they come from: what comes from others is not used,
    and is removed when training starts. Times differ between identical runs, so they stand apart from the history.

    The snapshot of an epoch is written before the epoch's checkpoint. A process that is killed between the two writes
    the checkpoint when it starts again, so both agree whenever training goes on. The index of the series comes last.
    """

    def __init__(self, folder: str | Path, run: RunLike, inputs: dict[str, str]) -> None:
        self.folder = Path(folder)
        self.run = run
        self.inputs = inputs
        self.identity = json.dumps(inputs, sort_keys=True)

    def is_finished(self) -> bool:
        """Whether a training with these inputs has come to its end here."""
        try:
            index = json.loads((self.folder / INDEX).read_text())
        except (OSError, ValueError):
            return False
        return isinstance(index, dict) and index.get("inputs") == self.inputs

    def result(self) -> tuple[CheckpointSeries, pd.DataFrame]:
        """Series and history of the finished run."""
        history = pd.read_csv(self.folder / HISTORY, float_precision="round_trip")
        return CheckpointSeries.open(self.folder), history

    def resume(self, state: TrainingState) -> bool:
        """Bring `state` to where a killed training left it; False where there is nothing to go on from."""
        return load_snapshot(self.folder / SNAPSHOT, state, self.identity)

    def start(self) -> None:
        """Remove what another training left."""
        for name in (INDEX, SNAPSHOT, HISTORY, TIMINGS):  # the index first: without it there is no series
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / EVENTS, ignore_errors=True)
        self._remove_checkpoints_but(set())

    def save(self, state: TrainingState) -> None:
        """Save the state, to go on from here."""
        save_snapshot(self.folder / SNAPSHOT, state, self.identity)

    def add_checkpoint(self, state: TrainingState, checkpoint: Checkpoint) -> None:
        """Write the checkpoint of the last whole epoch, and remove those that stay no longer."""
        save_checkpoint(checkpoint, self.folder / epoch_file(state.epoch))
        self._remove_checkpoints_but(self.kept_epochs(state))

    def kept_epochs(self, state: TrainingState) -> set[int]:
        """Epochs whose checkpoints stay, if the last whole epoch is the final one."""
        keep = self.run.training.keep_epochs
        chosen = set(range(state.epoch)) if keep == "all" else {epoch for epoch in keep if epoch < state.epoch}
        return chosen | {0, state.best_epoch, state.epoch}

    def write_tables(self, state: TrainingState) -> None:
        """History and times so far, which may be looked at while the run goes on."""
        for table, name in ((history_table(state.rows), HISTORY), (pd.DataFrame(state.timings), TIMINGS)):
            with atomic_file(self.folder / name) as temporary:
                table.to_csv(temporary, index=False)

    def finish(self, state: TrainingState, status: Literal["finished", "diverged"]) -> None:
        """Write the index of the series: from now on the run is finished."""
        run = self.run
        write_series(
            self.folder,
            task=run.task,
            run=run.name,
            fingerprint=run.fingerprint,
            epochs=self.kept_epochs(state),
            best=state.best_epoch,
            final=state.epoch,
            status=status,
            inputs=self.inputs,
        )

    def tidy(self) -> None:
        """Remove what only an unfinished training needs."""
        (self.folder / SNAPSHOT).unlink(missing_ok=True)

    def _remove_checkpoints_but(self, epochs: set[int]) -> None:
        kept = {epoch_file(epoch) for epoch in epochs}
        for path in self.folder.glob("epoch_*.safetensors"):
            if path.name not in kept:
                path.unlink()
        remove_leftovers(self.folder)  # of a process that was killed while it wrote


def checkpoint_of(run: RunLike, split: PackedSplit, state: TrainingState) -> Checkpoint:
    """The weights at the end of an epoch with what made them."""
    metrics = {name: value for name, value in state.rows[-1].items() if name not in ("task", "run", "epoch")}
    metadata = CheckpointMetadata(
        architecture=run.model.name,
        model_options=dict(run.model.options),
        num_classes=split.num_classes,
        class_names=tuple(split.class_names),
        task=run.task,
        run=run.name,
        epoch=state.epoch,
        seeds={"initialisation": run.init_seed, "order": run.order_seed},
        fingerprint=run.fingerprint,
        metrics={name: value for name, value in metrics.items() if not math.isnan(value)},
    )
    return Checkpoint(dict(state.model.state_dict()), metadata)
