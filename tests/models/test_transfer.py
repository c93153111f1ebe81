"""Starts that take a part of what a pre-trained model holds."""

from __future__ import annotations

import pytest
import torch

from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.models.initialisation import initialise
from transferscope.models.modules import find_modules
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

NAMES = ["fixup_resnet_small", "resnet18", "vit_tiny_patch16_224"]


def trained(name: str) -> Checkpoint:
    """Weights with a mean, a scale and tails that no fresh model has, statistics of BatchNorm among them."""
    state = build_model(name, 5, seed=99).state_dict()
    generator = torch.Generator().manual_seed(1)
    for key, value in state.items():
        if value.is_floating_point():
            draws = torch.randn(value.shape, generator=generator)
            state[key] = 0.03 + 0.2 * draws + 0.1 * draws.pow(3)
    return Checkpoint(state, CheckpointMetadata(architecture=name))


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_those_of_the_pre_trained_tensors_and_nothing_else_is(name: str) -> None:
    """Mean and standard deviation of each tensor to 1e-6, no weight equal, no correlation; buffers and classifier new."""
    source = trained(name)
    model = initialise(name, 3, init_seed=4, pretrained=source, transfer="statistics")
    fresh = initialise(name, 3, init_seed=4)
    parameters = dict(model.named_parameters())
    classifier = {"fc.weight", "fc.bias", "head.weight", "head.bias"} & set(parameters)
    assert classifier
    for key, value in model.state_dict().items():
        if key in classifier or key not in parameters:
            assert torch.equal(value, fresh.state_dict()[key]), key
            continue
        taken = source.state_dict[key]
        assert abs(value.double().mean() - taken.double().mean()) < 1e-6, key
        assert abs(value.double().std(correction=0) - taken.double().std(correction=0)) < 1e-6 or value.numel() == 1
        if value.numel() > 2:
            assert not (value == taken).any(), key
        if value.numel() > 1000:
            both = torch.stack([value.flatten(), taken.flatten()]).double()
            assert torch.corrcoef(both)[0, 1].abs() < 6 / value.numel() ** 0.5, key
            # Normal draws, not the heavy tails of the pre-trained values in another order.
            standard = (both[0] - both[0].mean()) / both[0].std()
            assert abs(standard.pow(4).mean() - 3) < 30 / value.numel() ** 0.5, key


def test_statistics_are_drawn_by_the_seed_and_a_constant_tensor_stays() -> None:
    """Another seed gives other weights; zeros stay zeros."""
    source = trained("fixup_resnet_small")
    source.state_dict["conv1.weight"].zero_()
    a, b, c = (
        initialise("fixup_resnet_small", 3, init_seed=seed, pretrained=source, transfer="statistics").state_dict()
        for seed in (4, 4, 5)
    )
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["layer1.0.conv1.weight"], c["layer1.0.conv1.weight"])
    assert not a["conv1.weight"].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("transfer", ["weights", "statistics"])
def test_up_to_a_module_exactly_its_tensors_are_taken(name: str, transfer: str) -> None:
    """Those of the modules up to the named one are as in a whole transfer, all others as drawn."""
    source = trained(name)
    modules = find_modules(build_model(name, 3, seed=0))
    last = list(modules)[len(modules) // 2]
    part, whole, fresh = (
        initialise(name, 3, init_seed=4, **options).state_dict()
        for options in (
            {"pretrained": source, "transfer": transfer, "transfer_until": last},
            {"pretrained": source, "transfer": transfer},
            {},
        )
    )
    first = {key for module in list(modules)[: len(modules) // 2 + 1] for key in modules[module]}
    assert 0 < len(first) < len(part)
    for key, value in part.items():
        assert torch.equal(value, (whole if key in first else fresh)[key]), key
    assert any(not torch.equal(part[key], fresh[key]) for key in first)


def test_a_module_that_does_not_exist() -> None:
    """Those that do are named."""
    with pytest.raises(UserError, match=r"there is no module 'layer9.0'; modules are stem, layer1.0, .*, fc"):
        initialise(
            "fixup_resnet_small", 3, init_seed=4, pretrained=trained("fixup_resnet_small"), transfer_until="layer9.0"
        )
