"""Residual networks without normalisation, initialised by Fixup (Zhang, Dauphin, Ma, ICLR 2019), as in the study.

Names of parameters are those of the published Fixup code (`layer1.0.bias1a`, `layer1.0.conv1.weight`, ...,
`bias2`, `fc.weight`), so weights trained with it load here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, full, nn

from transferscope.system.errors import UserError
from transferscope.system.near import near_matches


def _counts(option: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not values or not all(isinstance(v, int) and v > 0 for v in values):
        raise UserError(f"{option} is {values!r}: must be a list of positive whole numbers, one a stage")
    return tuple(values)


@dataclass(frozen=True)
class FixupLayout:
    """The layout of one network of the family; every field may be given as a model option."""

    block: Literal["basic", "bottleneck"] = "basic"
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of each stage; every stage but the first halves the side of its input."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each stage (a bottleneck block puts out four times as many); the stem has `widths[0]`."""
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    """A 3x3 max-pooling of stride 2 after the stem."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", _counts("blocks", self.blocks))
        object.__setattr__(self, "widths", _counts("widths", self.widths))
        if len(self.blocks) != len(self.widths):
            raise UserError(f"blocks {self.blocks} and widths {self.widths} must name the same number of stages")
        if self.block not in ("basic", "bottleneck"):
            raise UserError(f"block is {self.block!r}: must be 'basic' or 'bottleneck'")
        if not isinstance(self.stem_kernel, int) or self.stem_kernel < 1 or self.stem_kernel % 2 == 0:
            raise UserError(f"stem_kernel is {self.stem_kernel!r}: must be an odd positive number")
        if not isinstance(self.stem_stride, int) or self.stem_stride < 1:
            raise UserError(f"stem_stride is {self.stem_stride!r}: must be a positive number")


FIXUP_LAYOUTS = {
    "fixup_resnet18": FixupLayout(),
    "fixup_resnet34": FixupLayout(blocks=(3, 4, 6, 3)),
    "fixup_resnet50": FixupLayout(block="bottleneck", blocks=(3, 4, 6, 3)),
    "fixup_resnet101": FixupLayout(block="bottleneck", blocks=(3, 4, 23, 3)),
    # For images of 32 pixels: three stages see 16x16, 8x8 and 4x4 positions.
    "fixup_resnet_small": FixupLayout(
        blocks=(2, 2, 2), widths=(16, 32, 64), stem_kernel=5, stem_stride=2, stem_pool=False
    ),
}


def fixup_resnet(name: str, num_classes: int, **options: Any) -> FixupResNet:
    """Build a network of the family by name; `options` replace fields of its `FixupLayout`."""
    layout = FIXUP_LAYOUTS[name]
    for option in options:
        if option not in FixupLayout.__dataclass_fields__:
            raise UserError(
                f"model {name!r} has no option {option!r}{near_matches(option, FixupLayout.__dataclass_fields__)}"
            )
    return FixupResNet(replace(layout, **options), num_classes)


class FixupResNet(nn.Module):
    """Stem, stages of residual blocks, global average, classifier: (B, 3, H, W) to logits (B, num_classes).

    Initial weights: see `FixupBasicBlock.initialise` and `FixupBottleneck.initialise`. The stem and the classifier
    keep torch's default (uniform), as the authors' code does; Fixup's paper sets the classifier to zero.
    """

    def __init__(self, layout: FixupLayout, num_classes: int) -> None:
        super().__init__()
        self.layout = layout
        block = FixupBasicBlock if layout.block == "basic" else FixupBottleneck
        channels = layout.widths[0]
        self.conv1 = nn.Conv2d(
            3, channels, layout.stem_kernel, layout.stem_stride, padding=layout.stem_kernel // 2, bias=False
        )
        self.bias1 = _scalar(0.0)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if layout.stem_pool else nn.Identity()
        for stage, (num_blocks, width) in enumerate(zip(layout.blocks, layout.widths, strict=True), start=1):
            stage_blocks = []
            for index in range(num_blocks):
                stride = 2 if stage > 1 and index == 0 else 1
                stage_blocks.append(block(channels, width, stride, depth=sum(layout.blocks)))
                channels = width * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*stage_blocks))
        self.bias2 = _scalar(0.0)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = fixup_stem(self, images)
        for stage in range(1, len(self.layout.blocks) + 1):
            features = self.get_submodule(f"layer{stage}")(features)
        return fixup_classifier(self, features)


def fixup_stem(network: Any, images: Tensor) -> Tensor:
    """First convolution to the input of the first block; `network` holds `conv1`, `bias1` and `maxpool`."""
    return network.maxpool(F.relu(network.conv1(images) + network.bias1.view(()), inplace=True))


def fixup_classifier(network: Any, features: Tensor) -> Tensor:
    """Output of the last block to logits; `network` holds `bias2` and `fc`."""
    return network.fc(features.mean((2, 3)) + network.bias2.view(()))


class _FixupBlock(nn.Module):
    """A residual branch whose scalars stand before and after each convolution, and a shortcut.

    A shortcut that changes shape convolves the input with the branch's first bias added; an identity shortcut does not.
    Scalars are stored with shape (1,) and used with shape (), which keeps activations in their own precision:
    a float32 tensor with a dimension would turn bfloat16 activations into float32. Tensors that no gradient needs
    are overwritten in place: the same bits in 6 % less time.
    """

    expansion = 1

    def _add_shortcut(self, in_channels: int, out_channels: int, stride: int) -> None:
        self.downsample: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            _draw(self.downsample)

    def _shortcut(self, x: Tensor, shifted: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(shifted)


class FixupBasicBlock(_FixupBlock):
    """Two 3x3 convolutions: (B, in_channels, H, W) to (B, width, H / stride, W / stride).

    `depth` is the number of residual blocks in the whole network, L of the Fixup paper.
    """

    def __init__(self, in_channels: int, width: int, stride: int, depth: int) -> None:
        super().__init__()
        self.bias1a = _scalar(0.0)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bias1b = _scalar(0.0)
        self.bias2a = _scalar(0.0)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.scale = _scalar(1.0)
        self.bias2b = _scalar(0.0)
        self._add_shortcut(in_channels, width, stride)
        self.initialise(depth)

    def initialise(self, depth: int) -> None:
        """First convolution: std sqrt(2 / (c_out k^2)) L^(-1/2); last: zero (Fixup with m = 2 layers a branch)."""
        _draw(self.conv1, depth ** (-1 / 2))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        shifted = x + self.bias1a.view(())
        out = F.relu(self.conv1(shifted).add_(self.bias1b.view(())), inplace=True)
        out = self.conv2(out + self.bias2a.view(()))
        out = (out * self.scale.view(())).add_(self.bias2b.view(()))
        return F.relu(out.add_(self._shortcut(x, shifted)), inplace=True)


class FixupBottleneck(_FixupBlock):
    """1x1, 3x3 (which carries the stride) and 1x1 convolution: in_channels to 4 width channels; `depth` as above."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, depth: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.bias1a = _scalar(0.0)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bias1b = _scalar(0.0)
        self.bias2a = _scalar(0.0)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bias2b = _scalar(0.0)
        self.bias3a = _scalar(0.0)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.scale = _scalar(1.0)
        self.bias3b = _scalar(0.0)
        self._add_shortcut(in_channels, out_channels, stride)
        self.initialise(depth)

    def initialise(self, depth: int) -> None:
        """First two convolutions: std sqrt(2 / (c_out k^2)) L^(-1/4); last: zero (Fixup with m = 3 layers a branch)."""
        _draw(self.conv1, depth ** (-1 / 4))
        _draw(self.conv2, depth ** (-1 / 4))
        nn.init.zeros_(self.conv3.weight)

    def forward(self, x: Tensor) -> Tensor:
        shifted = x + self.bias1a.view(())
        out = F.relu(self.conv1(shifted).add_(self.bias1b.view(())), inplace=True)
        out = F.relu(self.conv2(out + self.bias2a.view(())).add_(self.bias2b.view(())), inplace=True)
        out = self.conv3(out + self.bias3a.view(()))
        out = (out * self.scale.view(())).add_(self.bias3b.view(()))
        return F.relu(out.add_(self._shortcut(x, shifted)), inplace=True)


def _draw(conv: nn.Conv2d, factor: float = 1.0) -> None:
    """Normal weights of std sqrt(2 / (c_out k^2)) times `factor`."""
    if conv.weight.is_meta:  # it has no values, and torch would load for a second to draw none
        return
    fan_out = conv.out_channels * math.prod(conv.kernel_size)
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out) * factor)


def _scalar(value: float) -> nn.Parameter:
    return nn.Parameter(full((1,), value))
