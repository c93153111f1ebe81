"""The state of an unfinished training: everything that changes, saved so that going on equals never having stopped.

No state of a random generator is stored: the order of an epoch and every draw of an optimizer step are functions of
(order_seed, epoch, step), so the position is enough.
"""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from transferscope.models.checkpoint import HEADER_KEY, plain
from transferscope.system.stored import UNSEALED, DamagedError, check, is_whole, write_sealed
from transferscope.training.history import Row

log = logging.getLogger(__name__)

VERSION = 2


@dataclass
class TrainingState:
    """Everything that changes while a run trains: `epoch` epochs are done, and `step` optimizer steps of the next."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    """Of the loss, in float16."""
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    """Of the unfinished epoch."""
    loss_weight: float = 0.0
    """The number that the sum is divided by."""
    seconds: float = 0.0
    """Spent on the unfinished epoch."""
    rows: list[Row] = field(default_factory=list)
    """Of the history."""
    timings: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -math.inf

    @property
    def has_begun(self) -> bool:
        """True once the untrained model is measured; no snapshot is saved before."""
        return bool(self.rows)

    def close_epoch(self, row: Row, timing: Row) -> None:
        """Count an epoch as done, and open an empty account for the next."""
        self.epoch = row["epoch"]
        self.rows.append(row)
        self.timings.append(timing)
        self.step, self.loss_sum, self.loss_weight, self.seconds = 0, 0.0, 0.0, 0.0


KERNELS = ("foreach", "fused", "capturable")
"""Options of an optimizer that say how it computes on its device, not which weights come out."""

PLAIN = ("epoch", "step", "loss_sum", "loss_weight", "seconds", "rows", "timings", "best_epoch", "best_score")


@dataclass(frozen=True)
class Snapshot:
    """A state as it was saved: plain values by name, and the tensors of the model and of the optimizer."""

    plain: dict[str, Any]
    tensors: dict[str, Tensor]


def save_snapshot(path: Path, state: TrainingState, identity: str) -> None:
    """Write `state` to `path`, a safetensors file; `identity` names the training it belongs to.

    The snapshot that was there stays as `earlier(path)`, for the case that the new one is damaged.
    """
    optimizer = state.optimizer.state_dict()
    tensors = {f"model/{name}": tensor for name, tensor in state.model.state_dict().items()}
    values: dict[str, dict[str, Any]] = {}
    for index, entries in optimizer["state"].items():
        values[str(index)] = {name: value for name, value in entries.items() if not isinstance(value, Tensor)}
        tensors |= {f"optimizer/{index}/{name}": v for name, v in entries.items() if isinstance(v, Tensor)}
    content: dict[str, Any] = {name: getattr(state, name) for name in PLAIN}
    content |= {"version": VERSION, "identity": identity}
    content |= {} if state.scaler is None else {"scaler": state.scaler.state_dict()}
    content |= {"optimizer": {"state": values, "param_groups": optimizer["param_groups"]}}
    header = json.dumps({"seal": UNSEALED} | content)
    copies = {name: plain(tensor) for name, tensor in tensors.items()}
    if is_whole(path):
        os.replace(path, earlier(path))
    write_sealed(path, save(copies, {HEADER_KEY: header}))


def earlier(path: Path) -> Path:
    """The path of the snapshot before the one at `path`."""
    return path.with_stem(f"{path.stem}_before")


def read_snapshot(path: Path, identity: str) -> Snapshot | None:
    """The snapshot at `path`; None, with a warning, where it is damaged or of another training."""
    try:
        check(path)
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()[HEADER_KEY])
            if content.get("version") != VERSION or content.get("identity") != identity:
                log.warning("snapshot %s is of another plan or of other images: it is not used", path)
                return None
            return Snapshot(content, {name: file.get_tensor(name).clone() for name in file.keys()})  # noqa: SIM118
    except FileNotFoundError:
        return None
    except DamagedError as error:
        log.warning("snapshot %s is damaged (%s): it is not used", path, error.reason)
        return None


def restore(state: TrainingState, snapshot: Snapshot) -> None:
    """Bring `state` to where the snapshot left it.

    The number format may be another one than before, and so may the kernels of the optimizer: a snapshot of a GPU goes
    on on a CPU.
    """
    for name in PLAIN:
        setattr(state, name, snapshot.plain[name])
    if state.scaler is not None and "scaler" in snapshot.plain:
        state.scaler.load_state_dict(snapshot.plain["scaler"])
    tensors = {"model": {}, "optimizer": {}}  # type: dict[str, dict[str, Tensor]]
    for key, tensor in snapshot.tensors.items():
        kind, _, name = key.partition("/")
        tensors[kind][name] = tensor
    state.model.load_state_dict(tensors["model"])
    optimizer = snapshot.plain["optimizer"]
    states = {int(index): dict(values) for index, values in optimizer["state"].items()}
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    for key, tensor in tensors["optimizer"].items():
        index, _, name = key.partition("/")
        states[int(index)][name] = _laid_out_as(parameters[int(index)], tensor)
    groups = [
        saved | {name: own[name] for name in KERNELS if name in own}
        for saved, own in zip(optimizer["param_groups"], state.optimizer.param_groups, strict=True)
    ]
    state.optimizer.load_state_dict({"state": states, "param_groups": groups})


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor in the memory layout of its parameter (`channels_last`), which files do not keep."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device="cpu").copy_(tensor)
