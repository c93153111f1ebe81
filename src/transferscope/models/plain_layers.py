"""Layers that compute their weight in the forward pass, turned into plain ones of the same function.

That is weight standardisation, spectral and weight norm, and masks: torch's parametrisations, and layers that compute
their weight inside forward, as timm's StdConv2d does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

from transferscope.models.linear_calls import LINEAR_MAPS, computed_weight, computing_layers, stored_weight
from transferscope.system.errors import UserError

logger = logging.getLogger(__name__)


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
        if not torch.equal(value, stored_weight(layer).double()):
            _bake(layer, value)
    return model


def has_plain_layers(model: nn.Module) -> bool:
    """True where every layer applies the weight that it stores."""
    return not any(_is_parametrised(layer) for layer in model.modules()) and not list(computing_layers(model))


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
            _remove_loading_hooks(layer)
        else:
            prune.remove(layer, hook._tensor_name)


def _remove_loading_hooks(layer: nn.Module) -> None:
    """Take away the demand for the tensors of spectral norm, which torch wraps and so does not find again."""
    hooks = layer._load_state_dict_pre_hooks
    for key, wrapped in list(hooks.items()):
        if isinstance(getattr(wrapped, "hook", wrapped), SpectralNormLoadStateDictPreHook):
            del hooks[key]


def _bake(layer: nn.Module, value: Tensor) -> None:
    """Make the computed weight the stored one, which the layer's own forward pass then applies as it is.

    The other factors of the weight, as a gain, are no parameters any more.
    """
    stored_weight(layer).copy_(value)
    own = type(layer)
    layer.__class__ = type(own.__name__, (own,), {"forward": _forward_with_stored_weight(own)})
    for name, parameter in list(layer.named_parameters(recurse=False)):
        if name not in ("weight", "bias"):
            delattr(layer, name)
            layer.register_buffer(name, parameter.detach(), persistent=False)


def _forward_with_stored_weight(own: type[nn.Module]) -> Callable[..., Tensor]:
    def forward(layer: nn.Module, *inputs: Any) -> Tensor:
        with _StoredWeight(stored_weight(layer)):
            return own.forward(layer, *inputs)

    return forward


class _StoredWeight(TorchFunctionMode):
    """Puts a given weight in the place of the one that a convolution or linear map is called with."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in LINEAR_MAPS:
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
