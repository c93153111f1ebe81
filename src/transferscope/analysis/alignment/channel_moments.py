"""Mean and variance of every channel behind layers of a network, over batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferscope.analysis.evaluator import Batches, iterate
from transferscope.analysis.states import State, write_state
from transferscope.models.duplicate import duplicate
from transferscope.models.layers import evaluation_mode
from transferscope.system.errors import UserError


class Moments:
    """Count, mean and variance of each channel over batches, merged in float64 (Chan et al. 1979)."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def update(self, values: Tensor) -> None:
        """Add a batch: all entries of a channel are samples."""
        axis = self.axis % values.dim()
        axes = [other for other in range(values.dim()) if other != axis]
        count = values.numel() // values.shape[axis]
        # In float64 the variance of a channel far from zero keeps its digits; a layer at a time, so it costs little.
        variance, mean = torch.var_mean(values.detach().double(), axes, correction=0)
        total = self.count + count
        shift = mean - self.mean
        self.squares = self.squares + variance * count + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def std(self) -> Tensor:
        """Standard deviation (of all values, not of a sample), as REPAIR's BatchNorm layers use."""
        return (self.squares / self.count).sqrt()


def layer_moments(model: nn.Module, state: State, batches: Batches, layers: list[str]) -> dict[str, Moments]:
    """Mean and standard deviation of every channel behind layers of a network with the weights of `state`."""
    network = duplicate(model)
    write_state(network, state)
    moments = {name: Moments(channel_axis(network.get_submodule(name))) for name in layers}

    def listen(name: str, output: Tensor) -> None:
        moments[name].update(output)

    with torch.no_grad(), evaluation_mode(network), listening(network, layers, listen):
        for inputs, _ in iterate(batches):
            network(inputs)
    for name, own in moments.items():
        check_count(name, own.count)
    return moments


@contextmanager
def listening(network: nn.Module, layers: list[str], listen: Any) -> Iterator[None]:
    """Call `listen(name, values)` with what a layer puts out, or what a BatchNorm takes in."""
    handles = []
    for name in layers:
        layer = network.get_submodule(name)
        if isinstance(layer, _BatchNorm):
            handles.append(layer.register_forward_pre_hook(lambda _, inputs, name=name: listen(name, inputs[0])))
        else:
            handles.append(layer.register_forward_hook(lambda _, inputs, output, name=name: listen(name, output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_count(name: str, count: int) -> None:
    """Raise UserError for a layer of whose channels fewer than two values were seen."""
    if count < 2:
        raise UserError(f"layer {name}: statistics need at least two values of a channel; give more images")


def channel_axis(layer: nn.Module) -> int:
    """The axis of a layer's output that holds its channels."""
    return -1 if isinstance(layer, nn.Linear) else 1
