"""Nodes of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from transferscope.plan import RunSpec


def train(
    run: dict[str, Any], models_folder: str, train_split: Any, test_split: Any, source: Any = None
) -> tuple[Any, pd.DataFrame]:
    """Train one run, or go on where it was killed, or recognise that it is finished.

    Trains in a hidden folder beside the place of the checkpoints; the catalog moves it there when it is complete.
    """
    from transferscope.models.checkpoint import load_checkpoint
    from transferscope.models.series import CheckpointSeries
    from transferscope.training.run import train_run

    spec = RunSpec.model_validate(run)
    place = Path(models_folder) / spec.task / spec.name
    finished = _finished(CheckpointSeries, place, spec, train_split, test_split)
    if finished is not None:
        return finished
    if source is not None:
        initial = source.load(_epoch(spec.pretrained_epoch))
    else:
        initial = load_checkpoint(spec.pretrained) if spec.pretrained else None
    working = place.parent / f".{spec.name}.{spec.fingerprint}"
    return train_run(spec, train_split, test_split, initial=initial, folder=working)


def gather_histories(runs: dict[str, Any], *histories: pd.DataFrame) -> pd.DataFrame:
    """All epochs of all runs of a task, with each run's kind and label."""
    table = pd.concat(histories, ignore_index=True)
    for position, column in enumerate(("kind", "label")):
        table.insert(2 + position, column, [runs[name][column] for name in table["run"]])
    return table
