"""The Fixup family: its size, its initial weights, what they make of depth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from transferscope.models.fixup_resnet import FixupBasicBlock, FixupBottleneck
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

SHALLOW = {"blocks": [1, 1], "widths": [16, 32]}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_small_network_has_the_parameters_counted_by_hand() -> None:
    """Convolutions, classifier for 10 classes, 5 scalars a block and 2 beside."""
    stem = 3 * 16 * 25
    stages = 9 * (4 * 16 * 16) + 9 * (16 * 32 + 3 * 32 * 32) + 9 * (32 * 64 + 3 * 64 * 64)
    shortcuts = 16 * 32 + 32 * 64
    assert num_parameters(build_model("fixup_resnet_small", 10)) == stem + stages + shortcuts + 650 + 6 * 5 + 2


@pytest.mark.parametrize(("depth", "blocks", "scalars_a_block"), [(18, 8, 5), (34, 16, 5), (50, 16, 7), (101, 33, 7)])
def test_family_has_the_convolutions_and_classifier_of_torchvision(
    depth: int, blocks: int, scalars_a_block: int
) -> None:
    """Every tensor with two dimensions or more has torchvision's shape; the rest are the scalars and fc's bias."""
    with torch.device("meta"):
        import torchvision

        reference = torchvision.models.get_model(f"resnet{depth}", num_classes=7)
    model = build_model(f"fixup_resnet{depth}", 7)
    shapes = [sorted(tuple(p.shape) for p in network.parameters() if p.ndim > 1) for network in (model, reference)]
    assert shapes[0] == shapes[1]
    assert sum(p.ndim <= 1 for p in model.parameters()) == blocks * scalars_a_block + 2 + 1
    assert all(p.shape == (1,) for name, p in model.named_parameters() if p.ndim <= 1 and name != "fc.bias")


@pytest.mark.parametrize(
    ("name", "exponent", "last"), [("fixup_resnet18", -1 / 2, "conv2"), ("fixup_resnet50", -1 / 4, "conv3")]
)
def test_initial_weights_have_the_statistics_of_fixup(name: str, exponent: float, last: str) -> None:
    """Branch: mean 0, std sqrt(2 / (c_out k²)) L^exponent, normal; last: zero; shortcut: no L; stem and fc: uniform."""
    model = build_model(name, 1000, seed=3)
    num_blocks = 8 if name == "fixup_resnet18" else 16
    for path, conv in model.named_modules():
        if not isinstance(conv, nn.Conv2d) or path == "conv1":
            continue
        if path.endswith(last):
            assert conv.weight.abs().max() == 0
            continue
        expected = math.sqrt(2 / (conv.out_channels * math.prod(conv.kernel_size)))
        expected *= 1 if path.endswith("downsample") else num_blocks**exponent
        standardised = conv.weight.detach().flatten() / expected
        error = 4 / math.sqrt(len(standardised))
        assert abs(standardised.mean()) < error
        assert abs(standardised.std() - 1) < error
        assert abs((standardised.abs() < 1).float().mean() - 0.6827) < error
    for layer, fan_in in ((model.conv1, 3 * 49), (model.fc, model.fc.in_features)):
        bound = 1 / math.sqrt(fan_in)
        assert layer.weight.abs().max() <= bound
        assert layer.weight.detach().std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_scalars_start_as_the_identity() -> None:
    """Biases are 0 and scales are 1."""
    model = build_model("fixup_resnet_small", 10)
    scalars = {name: p.item() for name, p in model.named_parameters() if p.shape == (1,)}
    assert {value for name, value in scalars.items() if "bias" in name} == {0.0}
    assert {value for name, value in scalars.items() if name.endswith("scale")} == {1.0}


@pytest.mark.parametrize("block", [FixupBasicBlock(8, 8, 1, 4), FixupBottleneck(8, 2, 1, 4)])
def test_untrained_block_is_the_identity_on_what_a_relu_puts_out(block: nn.Module) -> None:
    """With a zero last convolution only the shortcut passes."""
    x = torch.rand(2, 8, 5, 5)
    assert torch.equal(block(x), x)


def test_shortcut_convolution_sees_the_first_bias_and_an_identity_shortcut_does_not() -> None:
    """With a zero branch, a block of stride 2 is relu(conv(x + bias1a)); one that keeps its shape is relu(x)."""
    x = torch.randn(2, 4, 6, 6)
    strided, same = FixupBasicBlock(4, 8, 2, 1), FixupBasicBlock(4, 4, 1, 1)
    for block in (strided, same):
        nn.init.constant_(block.bias1a, 0.5)
    assert strided.downsample is not None
    assert torch.equal(strided(x), torch.relu(strided.downsample(x + 0.5)))
    assert torch.equal(same(x), torch.relu(x))


def test_bottleneck_follows_its_formula() -> None:
    """All scalars at work, against the formula written out."""
    block = FixupBottleneck(8, 2, 1, 4).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        parameter.data.normal_(generator=generator)
    x = torch.randn(2, 8, 5, 5, generator=generator, dtype=torch.float64)
    b = {name: p.item() for name, p in block.named_parameters() if p.shape == (1,)}
    conv = nn.functional.conv2d
    out = torch.relu(conv(x + b["bias1a"], block.conv1.weight) + b["bias1b"])
    out = torch.relu(conv(out + b["bias2a"], block.conv2.weight, padding=1) + b["bias2b"])
    out = conv(out + b["bias3a"], block.conv3.weight) * b["scale"] + b["bias3b"]
    torch.testing.assert_close(block(x), torch.relu(out + x))


def first_update(blocks: int, seed: int, trained: str) -> float:
    """Length of the change of the logits by a small step of SGD on the parameters whose names hold `trained`."""
    model = build_model("fixup_resnet_small", 16, seed=seed, blocks=[blocks], widths=[32]).double()
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before = model(images)
    nn.functional.cross_entropy(before, torch.arange(16)).backward()
    with torch.no_grad():
        for name, parameter in model.layer1.named_parameters():
            if trained in name:
                assert parameter.grad is not None
                parameter -= 1e-4 * parameter.grad
        return (model(images) - before).norm().item()


def growth_with_depth(trained: str) -> float:
    """First update of 32 blocks relative to that of 4, mean over seeds."""
    return sum(first_update(32, seed, trained) for seed in range(4)) / sum(
        first_update(4, seed, trained) for seed in range(4)
    )


def test_first_update_by_the_convolutions_does_not_grow_with_depth() -> None:
    """Fixup's aim: L branches each move the output by 1/L of a constant."""
    assert 0.5 < growth_with_depth("conv") < 2


def test_first_update_by_the_scalars_grows_with_depth() -> None:
    """A bias at the end of each of L branches moves the output by L times a constant: why scalars learn slower."""
    assert growth_with_depth("bias2b") > 5


def test_activations_keep_bfloat16() -> None:
    """Float32 scalars do not lift bfloat16 activations to float32 under autocast."""
    model = build_model("fixup_resnet_small", 4, **SHALLOW)
    seen = []
    for block in model.modules():
        if isinstance(block, FixupBasicBlock):
            block.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.rand(2, 3, 16, 16))
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize(("size", "side"), [(32, 4), (33, 5), (64, 8)])
def test_small_network_halves_the_side_three_times(size: int, side: int) -> None:
    """Stem, second and third stage have stride 2."""
    model = build_model("fixup_resnet_small", 10)
    shapes = []
    model.layer3.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    model(torch.rand(1, 3, size, size))
    assert shapes == [(1, 64, side, side)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": [8]}, "no option 'width': near matches are widths"),
        ({"widths": [8]}, "must name the same number of stages"),
        ({"blocks": [2, 0, 2]}, "blocks is .*positive whole numbers"),
        ({"blocks": 3}, "blocks is 3"),
        ({"block": "wide"}, "must be 'basic' or 'bottleneck'"),
        ({"stem_kernel": 4}, "stem_kernel is 4: must be an odd"),
        ({"stem_stride": 0}, "stem_stride is 0"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    """Each error says which option, and what it may be."""
    with pytest.raises(UserError, match=message):
        build_model("fixup_resnet_small", 10, **options)
