"""The weights and the calls of layers that compute their weight inside forward, seen by watching them at work."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from transferscope.models.layers import evaluation_mode
from transferscope.system.errors import UserError

LINEAR_MAPS = (F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
PLAIN_FORWARDS = {
    kind.forward
    for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
}


def computing_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions and linear layers whose class has a forward pass of its own, with their dotted paths."""
    for name, layer in model.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear) and type(layer).forward not in PLAIN_FORWARDS:
            yield name, layer


class _LinearMaps(TorchFunctionMode):
    """Keeps the calls of convolutions and linear maps: function, arguments, result."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in LINEAR_MAPS:
            self.calls.append((func, args, kwargs or {}, result))
        return result


@torch.no_grad()
def computed_weight(layer: nn.Module) -> Tensor:
    """The weight that a convolution or linear layer applies to its input, found by watching it at work.

    float64, in the shape of the layer's weight. Raises UserError, to be read after "layer x", where the layer does more
    or other than one such map: its input or output is changed, or its weight depends on the input.
    """
    generator = torch.Generator().manual_seed(0)
    weights = []
    for _ in range(2):
        inputs = torch.randn(_input_shape(layer), generator=generator, dtype=torch.float64).to(_device(layer))
        maps, output = _watched(layer, inputs)
        weights.append(_checked_weight(layer, inputs, maps, output))
    if not torch.allclose(weights[0], weights[1]):
        raise UserError("computes its weight from its input")
    return weights[0]


@torch.no_grad()
def linear_call(layer: nn.Module, input_shape: tuple[int, ...]) -> tuple[tuple[int, ...], Any]:
    """The input's shape and the padding with which a layer calls its one convolution, for an input (C, ...).

    A layer that pads its input itself, as timm's Conv2dSame does, calls it with a larger input than it gets.
    """
    maps, _ = _watched(layer, torch.zeros(1, *input_shape, dtype=torch.float64, device=_device(layer)))
    if len(maps.calls) != 1:
        raise UserError(f"computes {len(maps.calls)} linear maps, not one")
    _, args, kwargs, _ = maps.calls[0]
    given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
    return tuple(given["input"].shape), given.get("padding", 0)


def _watched(layer: nn.Module, inputs: Tensor) -> tuple[_LinearMaps, Any]:
    """The linear maps that a float64 copy of the layer calls on `inputs`, and what it puts out."""
    trial, maps = copy.deepcopy(layer).double(), _LinearMaps()
    try:
        with evaluation_mode(trial), maps:
            output = trial(inputs)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"cannot be called by itself ({str(error).splitlines()[0]})") from error
    return maps, output


def _checked_weight(layer: nn.Module, inputs: Tensor, maps: _LinearMaps, output: Any) -> Tensor:
    if len(maps.calls) != 1:
        raise UserError(f"computes {len(maps.calls)} linear maps, not one")
    _, args, kwargs, result = maps.calls[0]
    given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
    bias = given.get("bias")
    if not isinstance(output, Tensor) or output.shape != result.shape or not torch.equal(output, result):
        raise UserError("changes what its linear map gives")
    if not _is_padded(given["input"], inputs):
        raise UserError("changes its input before its linear map")
    if bias is not None and bias.ndim != 1:
        raise UserError("has no bias of one value a channel")
    expected = tuple(stored_weight(layer).shape)
    if tuple(given["weight"].shape) != expected:
        raise UserError(f"applies a weight of shape {tuple(given['weight'].shape)}, not {expected}")
    if isinstance(layer, _ConvNd):
        for name in ("stride", "dilation", "groups"):
            if name in given and not _same_option(given[name], getattr(layer, name)):
                raise UserError(f"applies {name} {given[name]}, not {getattr(layer, name)}")
    return given["weight"].detach().clone()


def _same_option(given: Any, own: Any) -> bool:
    return given == own or (isinstance(given, int) and all(value == given for value in own))


def _is_padded(given: Tensor, inputs: Tensor) -> bool:
    """True if `inputs` stand in the middle of `given`, with any padding around them."""
    if given.ndim == 2 or given.shape[:2] != inputs.shape[:2]:
        return given.shape == inputs.shape and torch.equal(given, inputs)
    sizes = list(zip(given.shape[2:], inputs.shape[2:], strict=True))
    if any(wide < size for wide, size in sizes):
        return False
    starts = [(wide - size) // 2 for wide, size in sizes]
    middle = (slice(start, start + size) for start, (_, size) in zip(starts, sizes, strict=True))
    return torch.equal(given[(slice(None), slice(None), *middle)], inputs)


def _input_shape(layer: nn.Module) -> tuple[int, ...]:
    if isinstance(layer, nn.Linear):
        return (2, layer.in_features)
    assert isinstance(layer, _ConvNd)
    sizes = []
    for axis, kernel in enumerate(layer.kernel_size):
        reach = layer.dilation[axis] * (kernel - 1) + 1
        sizes.append(2 * layer.stride[axis] * reach + layer.stride[axis])
    return (2, layer.in_channels, *sizes)


def stored_weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _device(layer: nn.Module) -> torch.device:
    return next(layer.parameters()).device
