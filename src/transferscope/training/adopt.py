"""A checkpoint file that exists, taken into the study as a run that needs no training."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from transferscope.experiment.run import RunSpec
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from transferscope.models.compatible import infer_num_classes
from transferscope.models.series import CheckpointSeries, epoch_file, write_series
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import run_folder_held
from transferscope.training.device import choose_device
from transferscope.training.evaluation import evaluate
from transferscope.training.history import metric_columns, row_of, write_history
from transferscope.training.record import Inputs, RunFolder, by_part

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
    return _taken_in(run, folder, by_part(train_split, test_split, validation_split)).result()


def adopt_weights(run: RunSpec, *, folder: Path) -> CheckpointSeries:
    """The series of `adopt` without a history, where there are no images; the classes are those of the file."""
    return CheckpointSeries.open(_taken_in(run, folder, {}).folder)


def _taken_in(run: RunSpec, folder: Path, splits: dict[str, PackedSplit]) -> RunFolder:
    """The folder with the checkpoint, its metrics on the splits if there are any, and the index of the series."""
    checkpoint = _read(run, folder, tuple(splits["test"].class_names) if splits else None)
    record, epoch = RunFolder(folder, Inputs.of(run, splits, checkpoint)), checkpoint.metadata.epoch
    assert epoch is not None
    if record.is_finished():
        return record
    with run_folder_held(folder):
        history = []
        if splits:
            model, device = checkpoint.build(), choose_device(None)
            row = row_of(run, epoch, lr=math.nan, train_loss=math.nan)
            for part, split in splits.items():
                row |= metric_columns(part, evaluate(model, split, device=device))
            history.append(row)
        record.start()
        if history:
            write_history(folder, history)
        save_checkpoint(checkpoint, folder / epoch_file(epoch))
        write_series(
            folder,
            task=run.task,
            run=run.name,
            fingerprint=run.fingerprint,
            epochs=[epoch],
            best=epoch,
            final=epoch,
            inputs=record.inputs.digests,
            history=history,
        )
    return record


def _read(run: RunSpec, folder: Path, class_names: tuple[str, ...] | None) -> Checkpoint:
    """The checkpoint of the run's file under the architecture's names."""
    assert run.checkpoint is not None
    if Path(run.checkpoint).resolve().parent == folder.resolve():
        raise UserError(f"{run.checkpoint} lies in the folder that this run writes: copy the file elsewhere first")
    loaded = load_checkpoint(run.checkpoint, weights=run.weights, prefix=run.prefix)
    checkpoint = _described(run, loaded, class_names).fitted()
    known = checkpoint.metadata
    if known.num_classes is not None:
        return checkpoint
    assert known.architecture is not None
    classes = infer_num_classes(checkpoint.state_dict, known.architecture, known.model_options, source=run.checkpoint)
    return checkpoint.with_metadata(num_classes=classes)


def _described(run: RunSpec, checkpoint: Checkpoint, class_names: tuple[str, ...] | None) -> Checkpoint:
    """The checkpoint with the run's architecture, where the file does not name its own.

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
