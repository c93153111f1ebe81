"""A checkpoint file that exists, taken into the study as a run that needs no training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transferscope.models.compatible import infer_num_classes
from transferscope.models.series import CheckpointSeries, epoch_file, write_series
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import run_folder_held
from transferscope.training.device import choose_device
from transferscope.training.evaluation import evaluate
from transferscope.training.history import Row, metric_columns
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
    checkpoint = _read(run, folder, tuple(test_split.class_names))
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
        files.start()
        files.write_history([row])
        _write(checkpoint, files, [row])
    return files.result()


def adopt_weights(run: Any, *, folder: Path) -> CheckpointSeries:
    """The series of `adopt` without a history, where there are no images; the classes are those of the file."""
    checkpoint = _read(run, folder, None)
    files = RunFolder(folder, run, inputs_of(run, {}, checkpoint))
    if not files.is_finished():
        with run_folder_held(folder):
            files.start()
            _write(checkpoint, files, [])
    return CheckpointSeries.open(folder)


def _read(run: Any, folder: Path, class_names: tuple[str, ...] | None) -> Checkpoint:
    """The checkpoint of the run's file under the architecture's names."""
    if Path(run.checkpoint).resolve().parent == folder.resolve():
        raise UserError(f"{run.checkpoint} lies in the folder that this run writes: copy the file elsewhere first")
    weights, prefix = getattr(run, "weights", None), getattr(run, "prefix", None)
    loaded = load_checkpoint(run.checkpoint, weights=weights, prefix=prefix)
    checkpoint = _described(run, loaded, class_names).fitted()
    known = checkpoint.metadata
    if known.num_classes is not None:
        return checkpoint
    assert known.architecture is not None
    classes = infer_num_classes(checkpoint.state_dict, known.architecture, known.model_options, source=run.checkpoint)
    return checkpoint.with_metadata(num_classes=classes)


def _write(checkpoint: Checkpoint, files: RunFolder, history: list[Row]) -> None:
    """The checkpoint, and the index that makes it a series."""
    run, epoch = files.run, checkpoint.metadata.epoch
    assert epoch is not None
    save_checkpoint(checkpoint, files.folder / epoch_file(epoch))
    write_series(
        files.folder,
        task=run.task,
        run=run.name,
        fingerprint=run.fingerprint,
        epochs=[epoch],
        best=epoch,
        final=epoch,
        inputs=files.inputs,
        history=history,
    )


def _described(run: Any, checkpoint: Checkpoint, class_names: tuple[str, ...] | None) -> Checkpoint:
    """The checkpoint with the run's architecture, where the file does not say its own.

    class_names: those of the images; None where there are no images.
    """
    known = checkpoint.metadata
    if class_names is not None and known.class_names and tuple(known.class_names) != class_names:
        raise UserError(
            f"{checkpoint.source}: made for other classes than those of {run.task} "
            f"({', '.join(known.class_names[:3])}, ... and {', '.join(class_names[:3])}, ...)"
        )
    return checkpoint.with_metadata(
        architecture=known.architecture or run.model.name,
        model_options=known.model_options or dict(run.model.options),
        num_classes=known.num_classes or (None if class_names is None else len(class_names)),
        class_names=known.class_names if class_names is None else class_names,
        task=run.task,
        run=run.name,
        epoch=EPOCH if known.epoch is None else known.epoch,
        fingerprint=run.fingerprint,
    )
