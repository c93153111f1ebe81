"""The state of an unfinished training: everything that changes, saved so that going on equals never having stopped.

No state of a random generator is stored: the order of an epoch and every draw of a step are functions of
(order_seed, epoch, step), so the position is enough.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferscope.system.atomic import atomic_file
from transferscope.training.history import Row

log = logging.getLogger(__name__)

VERSION = 1


@dataclass
class TrainingState:
    """What a training has come to: `epoch` whole epochs are done, and `step` steps of the next one."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    """Of the unfinished epoch, with what it is divided by, and the seconds spent on it."""
    loss_weight: float = 0.0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    """Of the history, and of the times."""
    timings: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -math.inf

    def close_epoch(self, row: Row, timing: Row) -> None:
        """Count an epoch as done, and open an empty account for the next."""
        self.epoch = row["epoch"]
        self.rows.append(row)
        self.timings.append(timing)
        self.step, self.loss_sum, self.loss_weight, self.seconds = 0, 0.0, 0.0, 0.0


PLAIN = ("epoch", "step", "loss_sum", "loss_weight", "seconds", "rows", "timings", "best_epoch", "best_score")


def save_snapshot(path: Path, state: TrainingState, identity: str) -> None:
    """Write `state` to `path` in one step; `identity` says which training it belongs to."""
    content: dict[str, Any] = {name: getattr(state, name) for name in PLAIN}
    content |= {"version": VERSION, "identity": identity}
    content |= {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}
    with atomic_file(path) as temporary:
        torch.save(content, temporary)


def load_snapshot(path: Path, state: TrainingState, identity: str) -> bool:
    """Bring `state` to where the snapshot at `path` left it; False where there is none of this identity."""
    if not path.exists():
        return False
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is no snapshot
        log.warning("snapshot %s cannot be read (%s): training starts from the beginning", path, type(error).__name__)
        return False
    if content.get("version") != VERSION or content.get("identity") != identity:
        log.warning("snapshot %s is of another plan or of other images: training starts from the beginning", path)
        return False
    for name in PLAIN:
        setattr(state, name, content[name])
    state.model.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    return True
