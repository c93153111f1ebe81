"""A checkpoint file that exists, taken into the study as a run that needs no training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transferscope.models.series import CheckpointSeries, epoch_file, write_series
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import run_folder_held
from transferscope.training.device import choose_device
from transferscope.training.evaluation import evaluate
from transferscope.training.history import metric_columns
from transferscope.training.inputs import by_part, inputs_of
from transferscope.training.record import RunFolder

EPOCH = 1
"""Of a file that does not say its own; 0 would mean untrained."""


def adopt(
    run: Any,
    train_split: PackedSplit,
    test_split: PackedSplit,
    *,
    folder: Path,
    validation_split: PackedSplit | None = None,
) -> tuple[CheckpointSeries, pd.DataFrame]:
    """A series of one epoch made of the file `run.checkpoint`, and a history of one row with its metrics.

    Measured on the GPU that this step was granted, else on the CPU. The same file with the same images is recognised.
    `run.weights` and `run.prefix` choose among what the file holds. The series holds the weights under the
    architecture's own names; what was left out or renamed is said in the log and in the checkpoint's metadata.

    Raises UserError if the file does not fit the run's architecture or the task's classes, or lies in `folder`.
    """
    if Path(run.checkpoint).resolve().parent == folder.resolve():
        raise UserError(f"{run.checkpoint} lies in the folder that this run writes: copy the file elsewhere first")
    weights, prefix = getattr(run, "weights", None), getattr(run, "prefix", None)
    loaded = load_checkpoint(run.checkpoint, weights=weights, prefix=prefix)
    checkpoint = _described(run, loaded, test_split).fitted()
    splits = by_part(train_split, test_split, validation_split)
    files = RunFolder(folder, run, inputs_of(run, splits, checkpoint))
    if files.is_finished():
        return files.result()
    with run_folder_held(folder):
        model, device = checkpoint.build(), choose_device(None)
        row: dict[str, Any] = {"task": run.task, "run": run.name, "epoch": checkpoint.metadata.epoch}
        row |= {"lr": math.nan, "train_loss": math.nan}
        for part, split in splits.items():
            row |= metric_columns(part, evaluate(model, split, device=device))
        epoch = checkpoint.metadata.epoch
        assert epoch is not None
        files.start()
        save_checkpoint(checkpoint, folder / epoch_file(epoch))
        files.write_history([row])
        write_series(
            folder,
            task=run.task,
            run=run.name,
            fingerprint=run.fingerprint,
            epochs=[epoch],
            best=epoch,
            final=epoch,
            inputs=files.inputs,
            history=[row],
        )
    return files.result()


def _described(run: Any, checkpoint: Checkpoint, split: PackedSplit) -> Checkpoint:
    """The checkpoint with the run's architecture, where the file does not say its own."""
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
