"""Runs that may be trained as one, with their inputs and folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transferscope.experiment.run import RunSpec
from transferscope.images.split import PackedSplit
from transferscope.models.checkpoint import Checkpoint
from transferscope.training.record import Inputs, by_part


def several(make_run: Callable[..., RunSpec], schedules: Sequence[dict[str, Any]], **training: Any) -> list[RunSpec]:
    """A run for each schedule, each with seeds of its own."""
    runs = [make_run(f"rit_{index}", **{**training, **own}) for index, own in enumerate(schedules, 1)]
    return [run.model_copy(update={"init_seed": 10 + i, "order_seed": 20 + i}) for i, run in enumerate(runs)]


def inputs_of(runs: Sequence[RunSpec], *splits: PackedSplit | None, initial: Checkpoint | None = None) -> list[Inputs]:
    """The inputs of runs on a split to train, one to test and, if given, one to validate."""
    train, test, validation = (*splits, None, None)[:3]
    assert train is not None
    assert test is not None
    return [Inputs.of(run, by_part(train, test, validation), initial) for run in runs]


def folders_of(runs: Sequence[RunSpec], folder: Path) -> list[Path]:
    """A folder for each run, of its name."""
    return [folder / run.name for run in runs]
