"""Weights that stay in their file: each tensor is read when it is asked for, and not kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from transferscope.models.checkpoint import Checkpoint
from transferscope.models.parametrised import analysed_state


class StoredState(Mapping[str, Tensor]):
    """A safetensors file as a mapping of names to tensors, so that many networks take the memory of a tensor each."""

    def __init__(self, path: Path, keys: list[str] | None = None) -> None:
        self.path = path
        self._file = safe_open(path, framework="pt")
        stored = list(self._file.keys())
        self._keys = stored if keys is None else [key for key in keys if key in set(stored)]

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        tensor: Tensor = self._file.get_tensor(key)
        return tensor.clone()  # what lies in the mapped file is not aligned

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Without(Mapping[str, Tensor]):
    """A state without some of its tensors, which are not read for that."""

    def __init__(self, state: Mapping[str, Tensor], keys: Collection[str]) -> None:
        self._state, self._kept = state, [key for key in state if key not in keys]

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._kept:
            raise KeyError(key)
        return self._state[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


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
        file = StoredState(checkpoint.path, list(state))
        if all(key in file and _same(file[key], tensor) for key, tensor in state.items()):
            return file
    return store_state(state, scratch)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
