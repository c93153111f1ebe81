"""The images that a network takes, found by trying blank ones: their side in pixels, and their layout in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.models.layers import CLASSIFIER, WEIGHT_LAYERS, image_channels, takes
from transferscope.models.memory_layout import corrupts_memory, lay_out

SIDES = (64, 224, 32, 28, 96, 128, 48, 112, 160, 192, 227, 256, 299)
"""Sides in pixels that are tried first, in this order; networks that are trained on other ones are rare."""
LARGEST = 384
"""The largest side that is tried."""
_OURS = ("torchvision.", "timm.", "transferscope.")


def is_known(model: nn.Module) -> bool:
    """True if the network's class is one of the libraries that `build_model` knows, whose ways are known."""
    return f"{type(model).__module__}.".startswith(_OURS)


def fixed_side(model: nn.Module) -> int | None:
    """The side in pixels of the only images that a network takes; None where it takes others, too, or cannot be tried.

    Networks with a position for each patch say it themselves. Of others, those that flatten features into a linear
    layer take one size only, or a few next to each other, of which the first that `SIDES` has is given, or the
    smallest. Networks of torchvision, timm and the Fixup family without positions take images of any size.
    """
    if has_positions(model):
        return own_side(model)
    if is_known(model):
        return None
    channels = image_channels(model)
    taken = (side for side in SIDES if takes(model, channels, side))
    first = next(taken, None)
    if first is not None:
        return first if next(taken, None) is None else None
    return next((side for side in range(1, LARGEST + 1) if takes(model, channels, side)), None)


def common_side(models: Iterable[nn.Module], demanded: Iterable[int | None] = ()) -> int | None:
    """A side in pixels that all networks take: one that is demanded, or the first of `SIDES`; None where there is none.

    It is for images that are made up, where there are no others.
    """
    networks = [(model, image_channels(model)) for model in models]
    sides = (*(side for side in demanded if side is not None), *SIDES)
    return next((side for side in sides if all(takes(model, channels, side) for model, channels in networks)), None)


def has_positions(model: nn.Module) -> bool:
    """True if a network has a position for each patch of its images."""
    return any(is_position(key.rpartition(".")[2]) for key in model.state_dict())


def is_position(name: str) -> bool:
    """True if a tensor of this name has a position for each patch."""
    return "pos_emb" in name


def own_side(model: nn.Module) -> int | None:
    """The side of the images that a network with positions is made for, as it says itself."""
    own = getattr(model, "image_size", None)
    size = own if own is not None else getattr(getattr(model, "patch_embed", None), "img_size", None)
    size = size[0] if isinstance(size, tuple | list) and size else size
    return size if isinstance(size, int) else None


def in_fast_layout(model: nn.Module) -> nn.Module:
    """The model with its convolutions in channels_last, or in the usual layout where it, or torch, fails in that.

    `x.view(len(x), -1)`, which many scripts have, needs features in the usual order. A network of the user's own that
    fails for this reason is given its images in the usual layout, whatever the caller's is.
    """
    if not corrupts_memory(model):
        if is_known(model):
            lay_out(model, torch.channels_last)
            return model
        channels, side = image_channels(model), some_side(model)
        lay_out(model, torch.channels_last)
        if side is None or takes(model, channels, side, torch.channels_last):
            return model
    for parameter in model.parameters():
        # Of one channel, `contiguous` would leave the strides of channels_last.
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    model.register_forward_pre_hook(_contiguous)
    return model


def _contiguous(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.clone(memory_format=torch.contiguous_format) if isinstance(one, Tensor) else one for one in given)


def some_side(model: nn.Module) -> int | None:
    """A side in pixels of images that a network takes; None where none is found."""
    return common_side([model], [fixed_side(model)])


def mark_classifier(model: nn.Module) -> None:
    """Note which layer of a network classifies, where that is not the one that is registered last.

    It is the layer with weights that is called last for an image. A network that can be tried on none stays as it is.
    """
    side = some_side(model)
    if side is None:
        return
    called: list[str] = []
    handles = [
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, layer in model.named_modules()
        if isinstance(layer, WEIGHT_LAYERS)
    ]
    try:
        takes(model, image_channels(model), side)
    finally:
        for handle in handles:
            handle.remove()
    if called:
        setattr(model, CLASSIFIER, (called[-1],))
