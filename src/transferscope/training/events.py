"""The history as TensorBoard events, to be looked at while a run trains."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from transferscope.system.errors import UserError
from transferscope.training.history import LEADING, Row

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "events"
"""Folder of the events, in that of the run."""


class Events:
    """Writes a scalar for every value of a history row: `test/accuracy`, `train/loss`, `lr`, over the epochs.

    `after` is the last epoch that counts: what a killed attempt wrote beyond it is no longer shown.

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
        """The values of an epoch that are numbers."""
        for name, value in row.items():
            if name in LEADING and name not in ("lr", "train_loss"):
                continue
            if not math.isnan(value):
                self._writer.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
