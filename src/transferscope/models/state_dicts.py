"""Check the values of a state dict, name its statistics, and compute its digest.

`saved_weights` finds state dicts in files of training scripts, `tensor_names` drops what wrappers put before names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from transferscope.system.errors import UserError

_STATISTICS = ("running_mean", "running_var")
_LEARNED = ("weight", "bias")


def is_statistic(name: str) -> bool:
    """True if a tensor holds statistics of BatchNorm, by its name."""
    return name.endswith(_STATISTICS)


def check_values(state_dict: Mapping[str, Tensor], *, where: str) -> None:
    """Raise a UserError, which begins with `where`, for weights, biases or statistics that no network computes with.

    These are values that are infinite or not a number, negative variances, and tensors without any value. Other
    tensors, such as masks, may hold infinities.
    """
    for key, tensor in state_dict.items():
        if not (key.endswith(_LEARNED + _STATISTICS) and tensor.is_floating_point()):
            continue
        if tensor.numel() == 0:
            raise UserError(
                f"{where}: {key!r} is empty, shape {tuple(tensor.shape)}, as DeepSpeed ZeRO-3 leaves what lies on "
                "several devices: put the weights together by its zero_to_fp32.py and give that file"
            )
        if tensor.is_meta:
            continue
        tensor = tensor.float() if tensor.itemsize == 1 else tensor  # torch compares no float8
        finite = torch.isfinite(tensor)
        if not bool(finite.all()):
            wrong, what = int((~finite).sum()), "infinite or not a number"
        elif key.endswith("running_var") and bool((tensor < 0).any()):
            wrong, what = int((tensor < 0).sum()), "negative, which no variance is"
        else:
            continue
        raise UserError(
            f"{where}: {wrong:,} of {tensor.numel():,} values of {key!r} are {what}: the training has diverged or the "
            "file is damaged; give another epoch or copy it again"
        )


class ComputedState(Mapping[str, Tensor]):
    """A mapping of names to what `compute` gives for them, so that many networks take the memory of a tensor each."""

    def __init__(self, keys: Iterable[str], compute: Callable[[str], Tensor]) -> None:
        self._keys, self._compute = dict.fromkeys(keys), compute

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return self._compute(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def without(state: Mapping[str, Tensor], keys: Collection[str]) -> ComputedState:
    """A state without some of its tensors, which are not read for that."""
    return ComputedState([key for key in state if key not in keys], state.__getitem__)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes; independent of device, memory format and order of the keys."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def listed(names: Any, limit: int = 5) -> str:
    """The first names, without escape codes, and how many more there are."""
    shown = [_printable(str(name)) for name in list(names)[:limit]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:80]


def widened(tensor: Tensor) -> Tensor:
    """A floating-point tensor in float32 at least, which holds every value of 16 and 8 bits exactly.

    torch promotes no float8.
    """
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
