"""Nodes of training. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from transferscope.experiment.node_parameters import Runs
from transferscope.experiment.run import RunSpec
from transferscope.pipelines.types import Checkpoint, CheckpointSeries, PackedSplit

log = logging.getLogger(__name__)


def train(
    run: RunSpec,
    models_folder: str,
    train_split: PackedSplit,
    test_split: PackedSplit,
    validation_split: PackedSplit | None = None,
    source: CheckpointSeries | None = None,
    parent: CheckpointSeries | None = None,
) -> tuple[CheckpointSeries, pd.DataFrame]:
    """Train one run, go on where it was killed, or recognise that it is finished: its checkpoints and its history.

    The run trains in the folder of its checkpoints, so that a killed run finds its snapshot there; it counts as done
    when the last file, `series.json`, is written. A copy of another run trains the epochs that both share again, which
    are then compared with those of `parent`.
    """
    from transferscope.models.series import report_difference
    from transferscope.training.distributed.launch import train as launch

    initial = _start(run, source)
    folder = Path(models_folder) / run.task / run.name
    made = launch(run, train_split, test_split, validation_split=validation_split, initial=initial, folder=folder)
    if parent is not None:
        report_difference(made[0], parent, run.split_epoch)
    return made


def train_together(
    runs: Runs,
    models_folder: str,
    train_split: PackedSplit,
    test_split: PackedSplit,
    validation_split: PackedSplit | None = None,
    **series: CheckpointSeries,
) -> list[CheckpointSeries | pd.DataFrame]:
    """Train several runs of a task as one: of each the checkpoints and the history that `train` gives of it alone.

    series: the runs that they start from or are copies of, by full name.
    """
    from transferscope.models.series import report_difference
    from transferscope.training.distributed.launch import train_together as launch

    starts = [_start(run, series.get(run.pretrained or "")) for run in runs.root]
    folders = [Path(models_folder) / run.task / run.name for run in runs.root]
    made = launch(
        runs.root, train_split, test_split, validation_split=validation_split, initial=starts, folders=folders
    )
    for run, (own, _) in zip(runs.root, made, strict=True):
        if run.split_from is not None:
            report_difference(own, series[run.split_from], run.split_epoch)
    return [part for one in made for part in one]


def _start(run: RunSpec, source: CheckpointSeries | None) -> Checkpoint | None:
    """The checkpoint that a run starts from, of another run or of a file."""
    from transferscope.models.checkpoint import load_checkpoint

    if source is None:
        return load_checkpoint(run.pretrained, weights=run.weights, prefix=run.prefix) if run.pretrained else None
    if source.status == "diverged":
        log.warning("%s starts from %s, which diverged", run.full_name, run.pretrained)
    return source.load(run.pretrained_epoch)


def adopt_checkpoint(
    run: RunSpec,
    models_folder: str,
    train_split: PackedSplit,
    test_split: PackedSplit,
    validation_split: PackedSplit | None = None,
) -> tuple[CheckpointSeries, pd.DataFrame]:
    """A series of one epoch made of a checkpoint file that exists, and its metrics as a history of one row."""
    from transferscope.training.adopt import adopt

    folder = Path(models_folder) / run.task / run.name
    return adopt(run, train_split, test_split, validation_split=validation_split, folder=folder)


def adopt_weights(run: RunSpec, models_folder: str) -> CheckpointSeries:
    """A series of one epoch made of a checkpoint file that exists, where there are no images to measure it on."""
    from transferscope.training.adopt import adopt_weights as adopt

    return adopt(run, folder=Path(models_folder) / run.task / run.name)


def gather_histories(runs: Runs, *histories: pd.DataFrame) -> pd.DataFrame:
    """All epochs of all runs of a task, with each run's kind and label."""
    table = pd.concat(histories, ignore_index=True)
    by_name = {run.name: run for run in runs.root}
    table.insert(2, "kind", [by_name[name].kind for name in table["run"]])
    table.insert(3, "label", [by_name[name].label for name in table["run"]])
    return table


def summarise_runs(
    history: pd.DataFrame, class_sizes: pd.DataFrame, runs: Runs, **series: CheckpointSeries
) -> pd.DataFrame:
    """A row per run: final and best metrics, optimisation speed, and whether it learned at all."""
    from transferscope.analysis.learning import summarise
    from transferscope.training.optim import peak_learning_rate

    rates = {run.name: peak_learning_rate(run.training) for run in runs.root if run.checkpoint is None}
    evaluated = {run.name: run.training.evaluate_train_on for run in runs.root if run.checkpoint is None}
    return summarise(history, class_sizes, {run: item.status for run, item in series.items()}, rates, evaluated)


def gather_timings(*series: CheckpointSeries) -> pd.DataFrame:
    """Gather the times of each run of a task."""
    from transferscope.training.history import gather_timings as gather

    return gather(series)
