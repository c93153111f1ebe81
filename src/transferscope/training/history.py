"""Tables of a training, a row per epoch: the history of its metrics, its times, and the same for TensorBoard."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from transferscope.experiment.names import RunName
from transferscope.experiment.run import RunSpec
from transferscope.models.series import CheckpointSeries, repair_command
from transferscope.system.atomic import atomic_file
from transferscope.system.errors import UserError
from transferscope.system.stored import DamagedError, read_json

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

Row = dict[str, Any]

LEADING = ("task", "run", "epoch", "lr", "train_loss")
"""First columns; `train_loss` is the mean over the epoch's own batches, while the weights were changing."""

PARTS = ("train", "test", "validation")

HISTORY = "history.csv"
TIMINGS, STORED_TIMINGS = "timings.csv", ".timings.json"
"""Times of a run: the table to look at, and the file that it is written from."""
SUMMARY = ("task", "run", "epochs", "seconds", "images_per_second")

EVENTS = "events"
"""Folder of the events for TensorBoard, in that of the run."""


def row_of(run: RunSpec, epoch: int, **values: float) -> Row:
    """A row of a run, `values` after the columns that say which."""
    return {"task": run.task, "run": run.name, "epoch": epoch} | values


def timing_of(run: RunSpec, epoch: int, num_images: int, *, training: float, evaluation: float) -> Row:
    """The times of an epoch, in seconds; `images_per_second` is that of training, nan where nothing was trained."""
    speed = num_images / training if training else math.nan
    return row_of(run, epoch, seconds=training + evaluation, training_seconds=training, images_per_second=speed)


def metric_columns(part: str, metrics: dict[str, float]) -> Row:
    """Columns of one part: `test_accuracy`, `test_loss`, `test_auc`, `test_auc/<class>`, ...

    The loss of an evaluation of the training split is `train_loss_eval`, since `train_loss` is the running one.
    """
    rename = {"loss": "loss_eval"} if part == "train" else {}
    return {f"{part}_{rename.get(name, name)}": value for name, value in metrics.items()}


def score(row: Row, part: str, *, multi_label: bool) -> float:
    """The value that `best` is chosen by: mean AUC of a multi-label task, else accuracy; nan if not measured."""
    return float(row.get(f"{part}_{'auc' if multi_label else 'accuracy'}", math.nan))


def history_table(rows: list[Row]) -> pd.DataFrame:
    """One row per epoch, 0 (the untrained model) included; a value that was not measured is nan."""
    table = pd.DataFrame(rows)
    rest = [column for column in table.columns if column not in LEADING]
    order = {part: index for index, part in enumerate(PARTS)}
    rest.sort(key=lambda column: order[column.partition("_")[0]])
    return table[[*LEADING, *rest]]


def write_history(folder: Path, rows: list[Row]) -> None:
    """Write the table of metrics."""
    _write(folder / HISTORY, history_table(rows))


def read_history(folder: Path) -> pd.DataFrame:
    """Read the table of metrics, every number as it was."""
    return pd.read_csv(folder / HISTORY, float_precision="round_trip")


def write_timings(folder: Path, rows: list[Row]) -> None:
    """Write the table of times."""
    _write(folder / TIMINGS, pd.DataFrame(rows))


def repair_tables(folder: Path, history: list[Row]) -> None:
    """Write the tables of a finished run again where they are not as they were written.

    history: from the index of the series. Times are in their hidden file, and are removed where that is not whole.
    """
    _repair(folder / HISTORY, history_table(history))
    stored = folder / STORED_TIMINGS
    try:
        _repair(folder / TIMINGS, pd.DataFrame(read_json(stored)["rows"]))
    except (FileNotFoundError, DamagedError):
        # A checkpoint that was made elsewhere has no times, and neither file.
        if stored.exists() or (folder / TIMINGS).exists():
            log.warning("%s is missing or damaged: the run's times are lost, its weights are whole", stored)
        stored.unlink(missing_ok=True)
        (folder / TIMINGS).unlink(missing_ok=True)


def _repair(path: Path, table: pd.DataFrame) -> None:
    if not path.is_file() or path.read_bytes() != _csv(table):
        log.warning("%s is missing or damaged: it is written again", path)
        _write(path, table)


def _write(path: Path, table: pd.DataFrame) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(_csv(table))


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def gather_timings(series: Iterable[CheckpointSeries]) -> pd.DataFrame:
    """A row per run that was trained here: seconds in all, evaluations included, and the median training speed.

    A checkpoint that was made elsewhere has no times and no row.
    """
    rows = []
    for one in series:
        path = one.folder / STORED_TIMINGS if one.folder else None
        if path is None or not path.is_file():
            continue
        try:
            times = pd.DataFrame(read_json(path)["rows"])
        except DamagedError as error:
            raise DamagedError(path, error.reason, repair_command(one.name)) from None
        name = RunName.parse(one.name)
        speed = times["images_per_second"].median()
        rows.append((name.task, name.run, int(times["epoch"].max()), times["seconds"].sum(), speed))
    return pd.DataFrame(rows, columns=list(SUMMARY))


class Events:
    """Write a scalar per value of a history row: `test/accuracy`, `train/loss`, `lr`, over the epochs.

    `after` is the last epoch that counts: later ones, of a killed attempt, are no longer shown.

    Raises:
        UserError: Where TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("training.tensorboard: the package is missing: pip install -e '.[tensorboard]'") from error
        self._open = lambda: SummaryWriter(str(folder), purge_step=after + 1)

    @cached_property
    def _writer(self) -> SummaryWriter:
        """Opened with the first row: a training that starts anew clears the folder before."""
        return self._open()

    def add(self, row: Row) -> None:
        """Write the values of an epoch that are numbers."""
        for name, value in row.items():
            if name in LEADING and name not in ("lr", "train_loss"):
                continue
            if not math.isnan(value):
                self._writer.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
