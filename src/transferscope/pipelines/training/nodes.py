"""Nodes of training. Heavy modules are imported inside, so that listing pipelines stays quick."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from transferscope.experiment.run import RunSpec

log = logging.getLogger(__name__)


def train(
    run: dict[str, Any],
    models_folder: str,
    train_split: Any,
    test_split: Any,
    validation_split: Any = None,
    source: Any = None,
) -> tuple[Any, pd.DataFrame]:
    """Train one run, go on where it was killed, or recognise that it is finished: its checkpoints and its history.

    The run trains in the folder of its checkpoints, so that a killed run finds its snapshot there; it counts as done
    when the last file, `series.json`, is written.
    """
    from transferscope.models.checkpoint import load_checkpoint
    from transferscope.training.distributed.launch import train as launch

    spec = RunSpec.model_validate(run)
    initial = None
    if spec.pretrained and source is None:
        initial = load_checkpoint(spec.pretrained, weights=spec.weights, prefix=spec.prefix)
    if source is not None:
        if source.status == "diverged":
            log.warning("%s starts from %s, which diverged", spec.full_name, spec.pretrained)
        initial = source.load(spec.pretrained_epoch)
    folder = Path(models_folder) / spec.task / spec.name
    return launch(spec, train_split, test_split, validation_split=validation_split, initial=initial, folder=folder)


def adopt_checkpoint(
    run: dict[str, Any], models_folder: str, train_split: Any, test_split: Any, validation_split: Any = None
) -> tuple[Any, pd.DataFrame]:
    """A series of one epoch made of a checkpoint file that exists, and its metrics as a history of one row."""
    from transferscope.training.adopt import adopt

    spec = RunSpec.model_validate(run)
    folder = Path(models_folder) / spec.task / spec.name
    return adopt(spec, train_split, test_split, validation_split=validation_split, folder=folder)


def gather_histories(runs: dict[str, Any], *histories: pd.DataFrame) -> pd.DataFrame:
    """All epochs of all runs of a task, with each run's kind and label."""
    table = pd.concat(histories, ignore_index=True)
    for position, column in enumerate(("kind", "label")):
        table.insert(2 + position, column, [runs[name][column] for name in table["run"]])
    return table


def summarise_runs(
    history: pd.DataFrame, class_sizes: pd.DataFrame, runs: dict[str, Any], **series: Any
) -> pd.DataFrame:
    """A row per run: final and best metrics, optimisation speed, and whether it learned at all."""
    from transferscope.analysis.learning import summarise
    from transferscope.training.optim import peak_learning_rate

    specs = [RunSpec.model_validate(run) for run in runs.values()]
    rates = {spec.name: peak_learning_rate(spec.training) for spec in specs if spec.checkpoint is None}
    return summarise(history, class_sizes, {run: item.status for run, item in series.items()}, rates)


def gather_timings(*series: Any) -> pd.DataFrame:
    """How long each run of a task took."""
    from transferscope.training.history import gather_timings as gather

    return gather(series)


def draw_learning_curves(history: pd.DataFrame, runs: pd.DataFrame, note: str | None) -> Any:
    """Figure 2; runs go by the learning rate of the plan, also where one diverged before it saw all of it."""
    from transferscope.plots.curves import learning_curves

    history = history.assign(lr=history["run"].map(runs.set_index("run")["lr"]))
    return learning_curves(history, title=str(history["task"].iloc[0]), note=note)


def draw_optimization_speed(runs: pd.DataFrame, note: str | None) -> Any:
    """The paper's second measure of training, beside Figure 2."""
    from transferscope.plots.speed import optimization_speed

    return optimization_speed(runs, title=str(runs["task"].iloc[0]), note=note)
