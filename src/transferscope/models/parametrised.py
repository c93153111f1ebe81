"""Weights that the forward pass computes from what is stored: weight standardisation, spectral and weight norm, masks.

A stored tensor of such a layer says little: ten times the tensor may be the same function. Analyses of weights take
a model of plain layers in its place: the same function, whose stored weights are those that forward applied. This holds
for torch's parametrisations and for layers that compute their weight inside forward, as timm's StdConv2d does.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from transferscope.models.checkpoint import Checkpoint, check_named
from transferscope.models.layers import evaluation_mode
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

logger = logging.getLogger(__name__)

_LINEAR_MAPS = (F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_PLAIN_FORWARDS = {
    kind.forward
    for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
}


def analysed_model(checkpoint: Checkpoint) -> nn.Module:
    """The checkpoint's model as analyses of weights see it, in evaluation mode: the same function, plain layers."""
    model = checkpoint.build()
    if not _is_plain(checkpoint):
        make_plain(model)
    return model


def analysed_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The state_dict of `analysed_model`; that of the checkpoint itself where all of its layers are plain.

    Half-precision tensors are widened to float32, which holds their values exactly.
    """
    state = checkpoint.state_dict if _is_plain(checkpoint) else analysed_model(checkpoint).state_dict()
    return {key: _widened(tensor) for key, tensor in state.items()}


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor


def _is_plain(checkpoint: Checkpoint) -> bool:
    name = checkpoint.metadata.architecture
    if name is not None:
        check_named(name, checkpoint.source)
    return name is not None and _is_plain_architecture(name, json.dumps(checkpoint.metadata.model_options))


@lru_cache
def _is_plain_architecture(name: str, options: str) -> bool:
    model = build_model(name, 2, seed=0, **json.loads(options))
    return not any(_is_parametrised(layer) for layer in model.modules()) and not list(computing_layers(model))


@torch.no_grad()
def make_plain(model: nn.Module) -> nn.Module:
    """Replace, in place, every stored weight by the one that forward computes from it; the function stays the same.

    A layer whose weight cannot be found is named in a warning and left as it is.
    """
    for layer in list(model.modules()):
        _remove_parametrisations(layer)
    for name, layer in computing_layers(model):
        try:
            value = computed_weight(layer)
        except UserError as error:
            logger.warning("layer %s (%s) is compared by its stored tensors: it %s", name, type(layer).__name__, error)
            continue
        if not torch.equal(value, _weight(layer).double()):
            _bake(layer, value)
    return model


def _is_parametrised(layer: nn.Module) -> bool:
    return parametrize.is_parametrized(layer) or any(True for _ in _old_hooks(layer))


def _old_hooks(layer: nn.Module) -> Iterator[Any]:
    kinds = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
    return (hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, kinds))


def _remove_parametrisations(layer: nn.Module) -> None:
    layer.eval()  # spectral norm would go on iterating
    if parametrize.is_parametrized(layer):
        for name in list(layer.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    for hook in list(_old_hooks(layer)):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(layer, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(layer, hook.name)
        else:
            prune.remove(layer, hook._tensor_name)


def computing_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions and linear layers whose class has a forward pass of its own, with their dotted paths."""
    for name, layer in model.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear) and type(layer).forward not in _PLAIN_FORWARDS:
            yield name, layer


class _LinearMaps(TorchFunctionMode):
    """Keeps the calls of convolutions and linear maps: function, arguments, result."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _LINEAR_MAPS:
            self.calls.append((func, args, kwargs or {}, result))
        return result


@torch.no_grad()
def computed_weight(layer: nn.Module) -> Tensor:
    """The weight that a convolution or linear layer applies to its input, found by watching it at work.

    float64, in the shape of the layer's weight. Raises UserError, to be read after "layer x", where the layer does more
    or other than one such map: its input or output is changed, or its weight depends on the input.
    """
    trial = copy.deepcopy(layer).double()
    generator = torch.Generator().manual_seed(0)
    weights = []
    for _ in range(2):
        inputs = torch.randn(_input_shape(layer), generator=generator, dtype=torch.float64).to(_device(layer))
        maps = _LinearMaps()
        try:
            with evaluation_mode(trial), maps:
                output = trial(inputs)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f"cannot be called by itself ({str(error).splitlines()[0]})") from error
        weights.append(_checked_weight(layer, inputs, maps, output))
    if not torch.allclose(weights[0], weights[1]):
        raise UserError("computes its weight from its input")
    return weights[0]


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
    expected = tuple(_weight(layer).shape)
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
    """Whether `inputs` stand in the middle of `given`, with any padding around them."""
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


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _device(layer: nn.Module) -> torch.device:
    return next(layer.parameters()).device


def _bake(layer: nn.Module, value: Tensor) -> None:
    """Make the computed weight the stored one, which the layer's own forward pass then applies as it is.

    What else the weight was computed from, as a gain, is no parameter any more.
    """
    _weight(layer).copy_(value)
    own = type(layer)
    layer.__class__ = type(own.__name__, (own,), {"forward": _forward_with_stored_weight(own)})
    for name, parameter in list(layer.named_parameters(recurse=False)):
        if name not in ("weight", "bias"):
            delattr(layer, name)
            layer.register_buffer(name, parameter.detach(), persistent=False)


def _forward_with_stored_weight(own: type[nn.Module]) -> Callable[..., Tensor]:
    def forward(layer: nn.Module, *inputs: Any) -> Tensor:
        with _StoredWeight(_weight(layer)):
            return own.forward(layer, *inputs)

    return forward


class _StoredWeight(TorchFunctionMode):
    """Puts a given weight in the place of the one that a convolution or linear map is called with."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _LINEAR_MAPS:
            args = (args[0] if args else kwargs.pop("input"), self.weight, *args[2:])
            kwargs.pop("weight", None)
        return func(*args, **kwargs)


def layers_of_unknown_map(model: nn.Module) -> dict[str, str]:
    """Convolutions and linear layers, by path, that apply no one weight to their input, and the reason."""
    unknown = {}
    for name, layer in computing_layers(model):
        try:
            computed_weight(layer)
        except UserError as error:
            unknown[name] = str(error)
    return unknown
