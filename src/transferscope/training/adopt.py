"""A checkpoint file that exists, taken into the study as a run that needs no training."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from transferscope.experiment.run import RunSpec
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transferscope.models.series import CheckpointSeries, epoch_file, write_series
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import run_folder_held
from transferscope.training.device import choose_device
from transferscope.training.evaluation import evaluate
from transferscope.training.history import metric_columns, row_of
from transferscope.training.inputs import Inputs, by_part
from transferscope.training.record import RunFolder

EPOCH = 1
"""Of a file that does not name its own; 0 would mean untrained."""


def adopt(
    run: RunSpec,
    train_split: PackedSplit,
    test_split: PackedSplit,
    *,
    folder: Path,
    validation_split: PackedSplit | None = None,
) -> tuple[CheckpointSeries, pd.DataFrame]:
    """A series of one epoch made of the file `run.checkpoint`, and a history of one row with its metrics.

    Measured on the GPU that this node was granted, else on the CPU. The same file with the same images is recognised.
    `run.weights` and `run.prefix` choose among the weights in the file. The series holds them under the architecture's
    own names; the log and the checkpoint's metadata list the tensors that were left out or renamed.

    Raises UserError if the file does not fit the run's architecture or the task's classes, or lies in `folder`.
    """
    assert run.checkpoint is not None
    if Path(run.checkpoint).resolve().parent == folder.resolve():
        raise UserError(f"{run.checkpoint} lies in the folder that this run writes: copy the file elsewhere first")
    loaded = load_checkpoint(run.checkpoint, weights=run.weights, prefix=run.prefix)
    checkpoint = _described(run, loaded, test_split).fitted()
    inputs = Inputs.of(run, by_part(train_split, test_split, validation_split), checkpoint)
    record = RunFolder(folder, inputs)
    if record.is_finished():
        return record.result()
    with run_folder_held(folder):
        model, device, epoch = checkpoint.build(), choose_device(None), checkpoint.metadata.epoch
        assert epoch is not None
        row = row_of(run, epoch, lr=math.nan, train_loss=math.nan)
        for part, split in inputs.splits.items():
            row |= metric_columns(part, evaluate(model, split, device=device))
        record.start()
        save_checkpoint(checkpoint, folder / epoch_file(epoch))
        record.write_history([row])
        write_series(
            folder,
            task=run.task,
            run=run.name,
            fingerprint=run.fingerprint,
            epochs=[epoch],
            best=epoch,
            final=epoch,
            inputs=inputs.digests,
            history=[row],
        )
    return record.result()


def _described(run: RunSpec, checkpoint: Checkpoint, split: PackedSplit) -> Checkpoint:
    """The checkpoint with the run's architecture, where the file does not name its own."""
    known = checkpoint.metadata
    if known.class_names and tuple(known.class_names) != tuple(split.class_names):
        raise UserError(
            f"{checkpoint.source}: made for other classes than those of {run.task} "
            f"({', '.join(known.class_names[:3])}, ... and {', '.join(split.class_names[:3])}, ...)"
        )
    return checkpoint.with_metadata(
        architecture=known.architecture or run.model.name,
        model_options=known.model_options or dict(run.model.options),
        num_classes=known.num_classes or split.num_classes,
        class_names=tuple(split.class_names),
        task=run.task,
        run=run.name,
        epoch=EPOCH if known.epoch is None else known.epoch,
        fingerprint=run.fingerprint,
    )
