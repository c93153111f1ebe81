"""Classifier, feature layers, and what enters each convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from transferscope.models.layers import (
    LayerInput,
    block_layers,
    classifier_layers,
    feature_layers,
    image_channels,
    trace_conv_inputs,
    units,
)
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

OTHERS = ["mnasnet0_5", "mobilenet_v3_small", "densenet121", "squeezenet1_0", "shufflenet_v2_x0_5", "regnet_y_400mf"]


@pytest.mark.parametrize("name", ["fixup_resnet_small", "resnet18", *OTHERS])
def test_classifier_is_what_changes_with_the_number_of_classes(name: str) -> None:
    """The layers named are those whose shapes differ between a model of 3 and of 4 classes."""
    states = [build_model(name, n, seed=0).state_dict() for n in (3, 4)]
    changed = {key.rpartition(".")[0] for key in states[0] if states[0][key].shape != states[1][key].shape}
    assert changed == set(classifier_layers(build_model(name, 3, seed=0)))


def test_timm_models_name_all_their_classifiers() -> None:
    """A distilled transformer has two."""
    pytest.importorskip("timm")
    model = build_model("deit_tiny_distilled_patch16_224", 3, seed=0, img_size=32)
    assert classifier_layers(model) == ("head", "head_dist")


@pytest.mark.parametrize("name", ["fixup_resnet50", "resnet50"])
def test_features_of_a_resnet_are_the_five_of_the_paper(name: str) -> None:
    """conv1 and the ends of the four stages; 16 blocks and the stem as block layers."""
    model = build_model(name, 3, seed=0)
    assert feature_layers(model) == {layer: layer for layer in ("conv1", "layer1", "layer2", "layer3", "layer4")}
    blocks = [f"layer{stage}.{i}" for stage, n in enumerate((3, 4, 6, 3), start=1) for i in range(n)]
    assert list(block_layers(model)) == ["conv1", *blocks]


@pytest.mark.parametrize("name", OTHERS)
def test_features_of_other_architectures_are_blocks_that_put_out_a_tensor(name: str) -> None:
    """At most five in order of the blocks, first and last among them, each called in the forward pass; no classifier."""
    model = build_model(name, 3, seed=0).eval()
    blocks, features = list(block_layers(model)), list(feature_layers(model))
    assert features == sorted(features, key=blocks.index)
    assert len(features) == 5
    assert {blocks[0], blocks[-1]} <= set(features)
    assert not set(classifier_layers(model)) & set(blocks)
    outputs = []
    for path in blocks:
        model.get_submodule(path).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    model(torch.rand(1, 3, 64, 64))
    assert len(outputs) == len(blocks)
    assert all(isinstance(output, torch.Tensor) for output in outputs)


def small_transformer() -> nn.Module:
    """torchvision's, for 32 pixels."""
    return VisionTransformer(image_size=32, patch_size=16, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16)


def test_units_of_a_transformer_are_its_blocks() -> None:
    """Patch embedding, every encoder block, classifier; whatever holds the blocks is divided."""
    assert units(small_transformer()) == [
        "conv_proj",
        *(f"encoder.layers.encoder_layer_{i}" for i in range(3)),
        "heads.head",
    ]


def test_units_of_a_plain_stack_are_its_convolutions() -> None:
    """As in a VGG: norms and activations are no units."""
    stack = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    assert units(nn.Sequential(stack, nn.Flatten(), nn.Linear(4, 2))) == ["0.0", "0.3", "2"]


def test_units_are_whole_residual_blocks() -> None:
    """The first convolution of an inverted residual block is no unit of its own."""
    blocks = units(build_model("mobilenet_v3_small", 3, seed=0))
    assert blocks == [*(f"features.{i}" for i in range(13)), "classifier.0", "classifier.3"]


class Odd(nn.Module):
    """Uses one layer twice, another never."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=(2, 1), padding="valid")
        self.twice = nn.Conv2d(4, 4, 3, padding=1, dilation=2, groups=2)
        self.never = nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.twice(self.twice(self.first(x))).mean((2, 3)))


def test_inputs_are_traced_by_what_really_runs() -> None:
    """Size, stride, padding, dilation and groups; the first of two calls; a layer that is not called is left out."""
    assert trace_conv_inputs(Odd(), (11, 11)) == {
        "first": LayerInput("conv", 11, 11, stride=(2, 1), padding="valid"),
        "twice": LayerInput("conv", 5, 9, padding=(1, 1), dilation=(2, 2), groups=2),
        "last": LayerInput("linear", 1, 1),
    }


def test_inputs_of_resnet50_at_224_pixels_have_the_published_sizes() -> None:
    """224, then 56, 28, 14 and 7; a stage's first 3x3 convolution and its shortcut still see the larger map."""
    sizes = {name: layer.height for name, layer in trace_conv_inputs(build_model("fixup_resnet50", 2), 224).items()}
    assert len(sizes) == 54
    assert sizes["conv1"] == 224
    assert [sizes[f"layer{stage}.1.conv2"] for stage in (1, 2, 3, 4)] == [56, 28, 14, 7]
    assert [sizes[f"layer{stage}.0.conv2"] for stage in (1, 2, 3, 4)] == [56, 56, 28, 14]
    assert [sizes[f"layer{stage}.0.downsample"] for stage in (1, 2, 3, 4)] == [56, 56, 28, 14]


def test_tracing_leaves_the_model_as_it_was() -> None:
    """Modes of each submodule, BatchNorm's buffers and hooks."""
    model = build_model("resnet18", 2, seed=0)
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    trace_conv_inputs(model, 32)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_an_image_that_does_not_fit_is_named() -> None:
    """The error says the size and why."""
    with pytest.raises(UserError, match="VisionTransformer cannot take images of 30x30 pixels: Wrong image height"):
        trace_conv_inputs(small_transformer(), 30)


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("resnet18", {}, 3),
        ("timm/lcnet_035", {"in_chans": 1}, 1),
        ("timm/vit_tiny_patch16_224", {"in_chans": 4, "depth": 1}, 4),
        ("timm/tresnet_m", {}, 3),
        ("timm/tresnet_m", {"in_chans": 1}, 1),
    ],
)
def test_channels_of_images_are_those_before_the_first_convolution(name: str, options: dict, channels: int) -> None:
    """TResNet's stem makes 16 channels of each by taking blocks of 4 by 4 pixels apart."""
    assert image_channels(build_model(name, 2, seed=0, **options)) == channels


def test_a_transform_of_the_image_before_the_first_convolution_is_allowed_for() -> None:
    """CSATv2's first convolution takes 64 frequencies of a colour image; a network of 4 channels stays one of 4."""
    pytest.importorskip("timm")
    assert image_channels(build_model("csatv2", 2, seed=0)) == 3
    assert image_channels(build_model("resnet18", 2, seed=0)) == 3
    assert image_channels(nn.Sequential(nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1))) == 4


def test_pixels_that_become_channels_are_counted() -> None:
    """torch's own layer for it; a network without convolutions is taken to see colour."""
    assert image_channels(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1))) == 3
    assert image_channels(nn.Sequential(nn.Flatten(), nn.Linear(12, 2))) == 3
