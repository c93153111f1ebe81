"""Layers of a model: which one classifies, whose outputs are features, what enters each convolution."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from transferscope.system.errors import UserError

STAGE = re.compile(r"layer\d+")
NUM_GENERIC_FEATURES = 5
WEIGHT_LAYERS = (_ConvNd, nn.Linear)
CLASSIFIER = "classifier_layers_of_transferscope"
"""Attribute of a network that names its classifying layers, where they are not registered last."""


@dataclass(frozen=True)
class LayerInput:
    """The input of a convolution or linear layer: its size in pixels (1 x 1 for a linear layer), and its layout."""

    kind: str
    """`conv` or `linear`."""
    height: int
    width: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | str = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def is_resnet_like(model: nn.Module) -> bool:
    """True if the model is laid out as torchvision's ResNet: `conv1`, stages `layer1`... of blocks, `fc`."""
    names = dict(model.named_children())
    stages = [child for name, child in names.items() if STAGE.fullmatch(name)]
    return {"conv1", "layer1", "fc"} <= names.keys() and all(isinstance(stage, nn.Sequential) for stage in stages)


def stage_names(model: nn.Module) -> list[str]:
    """Names of the stages of a ResNet-like model."""
    return [name for name, _ in model.named_children() if STAGE.fullmatch(name)]


def residual_blocks(model: nn.Module) -> list[str]:
    """Paths of the blocks of a ResNet-like model: `layer1.0`, ..."""
    return [
        f"{stage}.{name}" for stage in stage_names(model) for name, _ in model.get_submodule(stage).named_children()
    ]


def weight_layers(model: nn.Module) -> list[str]:
    """Every convolution and linear layer, in order of registration."""
    return [name for name, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)]


def num_outputs_of(model: nn.Module, path: str) -> int:
    """Features or channels that a convolution or linear layer puts out; its weight may be computed from others."""
    layer = model.get_submodule(path)
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def classifier_layers(model: nn.Module) -> tuple[str, ...]:
    """The layers whose size is the number of classes; nearly always one.

    A timm model names them itself, and networks of the user's own whose classifier is not registered last have been
    looked into; elsewhere it is the last convolution or linear layer.
    """
    if marked := getattr(model, CLASSIFIER, ()):
        return tuple(marked)
    layers = weight_layers(model)
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    known = [name for name in ([named] if isinstance(named, str) else named) if name in set(layers)]
    return tuple(known) if known else tuple(layers[-1:])


def feature_layers(model: nn.Module) -> dict[str, str]:
    """Name of a feature -> dotted path of the submodule that puts it out, in order of the forward pass.

    ResNet-like models, as in the paper's Table 7: `conv1` and the end of each stage. Of another
    architecture five evenly spaced `block_layers`, the first and the last among them.
    """
    if is_resnet_like(model):
        return {name: name for name in ("conv1", *stage_names(model))}
    blocks = list(block_layers(model))
    if len(blocks) <= NUM_GENERIC_FEATURES:
        return {name: name for name in blocks}
    steps = NUM_GENERIC_FEATURES - 1
    return {name: name for name in (blocks[round(i * (len(blocks) - 1) / steps)] for i in range(steps + 1))}


def block_layers(model: nn.Module) -> dict[str, str]:
    """As `feature_layers`, for the stem and every block (see `units`), the classifier left out."""
    if is_resnet_like(model):
        return {name: name for name in ("conv1", *residual_blocks(model))}
    last = [f"{layer}." for layer in classifier_layers(model)]
    return {unit: unit for unit in units(model) if not any(layer.startswith(f"{unit}.") for layer in last)}


def units(model: nn.Module) -> list[str]:
    """Paths of the indivisible parts of any architecture that hold a convolution or linear layer.

    Found from the top down. Divided are the model itself; an `nn.Sequential`, `nn.ModuleList` or `nn.ModuleDict`; and a
    module that is, or directly holds, a row of blocks (a Sequential or ModuleList of modules of one type with two or
    more weight layers each). So a transformer falls into its blocks, a VGG into its convolutions.
    """
    return list(_units(model, ""))


def _units(module: nn.Module, path: str) -> Iterator[str]:
    if path and not _is_divisible(module):
        if weight_layers(module):
            yield path
        return
    for name, child in module.named_children():
        yield from _units(child, f"{path}.{name}" if path else name)


def _is_divisible(module: nn.Module) -> bool:
    plain_container = type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return plain_container or any(_is_row_of_blocks(part) for part in (module, *module.children()))


def _is_row_of_blocks(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential | nn.ModuleList):
        return False
    children = list(module.children())
    return len({type(child) for child in children}) == 1 and all(len(weight_layers(child)) >= 2 for child in children)


@torch.no_grad()
def trace_conv_inputs(model: nn.Module, image_size: int | tuple[int, int]) -> dict[str, LayerInput]:
    """Dotted path -> what enters each 2-d convolution and linear layer for one image of `image_size` (H, W) pixels.

    One forward pass in evaluation mode on an image of zeros; the model is left as it was. A layer that is used more
    than once is listed with its first input, one that is never used not at all. Order of the forward pass.

    Raises UserError if the model cannot take an image of that size.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    inputs: dict[str, LayerInput] = {}
    parameter = next(model.parameters())
    image = torch.zeros(1, image_channels(model), height, width, device=parameter.device, dtype=parameter.dtype)
    with evaluation_mode(model), _hooks(model, inputs):
        try:
            model(image)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(f"{type(model).__name__} cannot take images of {height}x{width} pixels: {error}") from error
    return inputs


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Inside, all of the model is in evaluation mode; afterwards each submodule is in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _hooks(model: nn.Module, traced: dict[str, LayerInput]) -> Iterator[None]:
    def record(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        traced.setdefault(name, _layer_input(module, inputs[0]))

    handles = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: record(name, module, inputs))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layer_input(module: nn.Module, value: Tensor) -> LayerInput:
    if isinstance(module, nn.Linear):
        return LayerInput("linear", 1, 1)
    assert isinstance(module, nn.Conv2d)
    padding = module.padding if isinstance(module.padding, str) else _pair(module.padding)
    height, width = value.shape[-2:]
    return LayerInput("conv", height, width, _pair(module.stride), padding, _pair(module.dilation), module.groups)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    first, second = values
    return first, second


COLOUR = 3


def image_channels(model: nn.Module) -> int:
    """Number of channels of the images that a model takes: those of its first convolution.

    A layer before it that turns blocks of pixels into channels is allowed for, as in TResNet's stem. A first
    convolution of other than 1 or 3 channels may stand behind a transform of the image that is no layer, as the cosine
    transform of timm's CSATv2: such a model is tried on a colour image. Without a convolution the first linear layer
    decides, which takes all values of an image or of a patch.
    """
    channels = _first_channels(model)
    if channels is None:
        return _of_linear_layers(model)
    return COLOUR if channels not in (1, COLOUR) and takes(model, COLOUR, _named_side(model)) else channels


def _first_channels(model: nn.Module) -> int | None:
    pixels = 1
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels // pixels
        if isinstance(module, nn.PixelUnshuffle):
            pixels *= module.downscale_factor**2
        elif type(module).__name__ == "SpaceToDepth":  # of timm
            pixels *= int(module.bs) ** 2  # type: ignore[arg-type]
    return None


def _of_linear_layers(model: nn.Module) -> int:
    """Channels of a model without convolutions: 1 where the first layer has a square number of inputs."""
    first = next((module for module in model.modules() if isinstance(module, nn.Linear)), None)
    return 1 if first is not None and math.isqrt(first.in_features) ** 2 == first.in_features else COLOUR


def _named_side(model: nn.Module) -> int:
    """The side of images that a model of timm names, or 224 pixels."""
    return int((getattr(model, "pretrained_cfg", {}).get("input_size") or (COLOUR, 224, 224))[-1])


@torch.no_grad()
def takes(model: nn.Module, channels: int, side: int, layout: torch.memory_format = torch.contiguous_format) -> bool:
    """True if a model takes images of this number of channels, side in pixels, and layout in memory.

    That is, if it gives an output for each of two images: `x.view(-1, 500)` makes several of a larger one.
    """
    weight = next(model.parameters())
    # Of one channel, only a tensor that is made in a layout has its strides.
    shape = 2, channels, side, side
    images = torch.empty(shape, memory_format=layout, dtype=weight.dtype, device=weight.device).zero_()
    with evaluation_mode(model):
        try:
            outputs = model(images)
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
            return False
    return not isinstance(outputs, Tensor) or (outputs.dim() > 0 and len(outputs) == len(images))
