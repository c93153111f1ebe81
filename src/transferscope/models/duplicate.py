"""Copies of networks whose layers compute their weights from others."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

Network = TypeVar("Network", bound=nn.Module)


def duplicate(network: Network) -> Network:
    """A deep copy of a network that shares nothing with it.

    `copy.deepcopy` refuses the weight that torch's older weight and spectral norm leave in a layer, as it follows from
    other tensors, and it lets the copies of a parametrised layer share one class, from which removing the
    parametrisation of one copy takes the weight of all.
    """
    computed = {
        id(value): value.detach().clone()
        for layer in network.modules()
        for value in vars(layer).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copied = copy.deepcopy(network, dict(computed))
    for layer in copied.modules():
        if parametrize.is_parametrized(layer):
            shared = type(layer)
            own = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
            layer.__class__ = type(shared.__name__, shared.__bases__, own)
    return copied
