"""Parts of a network that a training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from transferscope.models.compatible import classifier_keys
from transferscope.models.modules import find_modules
from transferscope.system.errors import UserError

Frozen = Literal["features"] | Sequence[str]
"""`features`, all but the classifier; or modules of analysis, starts of keys up to a dot, or globs."""


def freeze(network: nn.Module, frozen: Frozen) -> None:
    """Take the parameters of the frozen parts out of training, and put these parts into evaluation mode.

    In evaluation mode BatchNorm uses its running statistics and leaves them as they are, and dropout does nothing, so
    that no tensor of a frozen part changes. `nn.Module.train` undoes the mode: call this again after it.

    Raises:
        UserError: a name matches no tensor of the network, or nothing is left to train.
    """
    if not frozen:
        return
    keys = frozen_keys(network, frozen)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in keys)
    _evaluate_within(network, "", keys)


def frozen_keys(network: nn.Module, frozen: Frozen) -> frozenset[str]:
    """Keys of the state_dict that a training with these frozen parts does not change; errors as those of `freeze`."""
    keys = list(network.state_dict())
    if frozen == "features":
        return frozenset(keys) - classifier_keys(network)
    modules = find_modules(network)
    held: set[str] = set()
    for name in frozen:
        matching = modules.get(name) or [key for key in keys if key.startswith(f"{name}.") or fnmatchcase(key, name)]
        if not matching:
            raise UserError(f"{name!r} matches no tensor; modules are {', '.join(modules)}")
        held.update(matching)
    if held.issuperset(name for name, _ in network.named_parameters()):
        raise UserError(f"{', '.join(frozen)} are all parameters: nothing is left to train")
    return frozenset(held)


def _evaluate_within(module: nn.Module, path: str, keys: frozenset[str]) -> None:
    """Put every submodule into evaluation mode that has tensors, and whose tensors are all frozen."""
    for name, child in module.named_children():
        place = f"{path}{name}."
        own = [place + key for key in child.state_dict()]
        if own and keys.issuperset(own):
            child.eval()
        else:
            _evaluate_within(child, place, keys)
