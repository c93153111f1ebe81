"""Weights that stay in their file: each tensor is read when it is asked for, and not kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from transferscope.models.checkpoint import Checkpoint
from transferscope.models.parametrised import analysed_state
from transferscope.models.state_dicts import ComputedState


def open_state(path: Path, keys: Iterable[str]) -> ComputedState:
    """Those of the tensors `keys` that a safetensors file holds."""
    file = safe_open(path, framework="pt")
    stored = set(file.keys())
    # What lies in the mapped file is not aligned.
    return ComputedState([key for key in keys if key in stored], lambda key: file.get_tensor(key).clone())


def store_state(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Write tensors to a file that does not outlive the work at hand; the same tensors, mapped from there.

    torch writes them one by one and maps them into memory, so this takes no copy; they are not to be written to.
    """
    torch.save({key: tensor.detach().cpu() for key, tensor in state.items()}, path)
    return load_stored(path)


def load_stored(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that `store_state` wrote, mapped from there."""
    state: dict[str, Tensor] = torch.load(path, mmap=True, weights_only=True)
    return state


def stored_state(checkpoint: Checkpoint, scratch: Path) -> Mapping[str, Tensor]:
    """The weights that analyses see (`analysed_state`), read from a file tensor by tensor.

    That is the checkpoint's own file where it holds these very tensors; of half precision, other file formats and
    parametrised layers a copy in `scratch`. A checkpoint that came from no file stays in memory.
    """
    state = analysed_state(checkpoint)
    if checkpoint.path is None:
        return state
    if checkpoint.path.is_file() and checkpoint.path.suffix == ".safetensors":
        file = open_state(checkpoint.path, state)
        if all(key in file and _same(file[key], tensor) for key, tensor in state.items()):
            return file
    return store_state(state, scratch)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
