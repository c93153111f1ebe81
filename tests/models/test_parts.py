"""The forward pass split at the modules of analysis."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from transferscope.models.modules import find_modules
from transferscope.models.parts import split_at_modules
from transferscope.models.zoo import build_model

NAMES = ["fixup_resnet_small", "fixup_resnet18", "fixup_resnet50", "resnet18", "resnet50"]


@pytest.mark.parametrize("name", NAMES)
def test_parts_compose_to_the_model_and_hold_the_keys_of_their_modules(name: str) -> None:
    """Bit for bit; names and order as in find_modules."""
    model = build_model(name, 3, seed=0).eval()
    for parameter in model.parameters():  # no zero layers, no scalars at their neutral value
        parameter.data.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    images = torch.rand(2, 3, 64, 64)
    parts, features = split_at_modules(model), images
    for _, part in parts:
        features = part(features)
    assert torch.equal(features, model(images))
    modules = find_modules(model)
    assert [part_name for part_name, _ in parts] == list(modules)
    assert all(sorted(part.state_dict()) == sorted(modules[part_name]) for part_name, part in parts)


def test_parts_are_the_model_not_a_copy() -> None:
    """What is changed in place in the model changes in its part, its mode too."""
    model = build_model("fixup_resnet_small", 3)
    parts = dict(split_at_modules(model))
    model.load_state_dict({key: value + 1 for key, value in model.state_dict().items()})
    model.eval()
    assert torch.equal(parts["layer2.0"].state_dict()["layer2.0.conv1.weight"], model.layer2[0].conv1.weight)
    assert torch.equal(parts["stem"].state_dict()["bias1"], model.bias1)
    assert not parts["layer2.0"].get_submodule("layer2.0").training


def test_a_part_can_be_called_with_other_weights() -> None:
    """functional_call with a module's tensors equals the model that holds them; the model itself is unchanged."""
    model, other = (build_model("fixup_resnet_small", 3, seed=seed) for seed in (0, 1))
    part = dict(split_at_modules(model))["layer2.0"]
    weights = {key: other.state_dict()[key] for key in find_modules(model)["layer2.0"]}
    features = torch.rand(2, 16, 8, 8)
    before = part(features)
    torch.testing.assert_close(functional_call(part, weights, features), other.layer2[0](features))
    assert torch.equal(part(features), before)


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnext50_32x4d"])
def test_only_known_forward_passes_are_split(name: str) -> None:
    """torchvision's variants of ResNet are of the same class; another architecture stays whole."""
    names = [part_name for part_name, _ in split_at_modules(build_model(name, 3, seed=0))]
    assert (names == ["all"]) == (name == "squeezenet1_1")
