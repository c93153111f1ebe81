"""Copies of networks with computed weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations

from transferscope.answers.given_networks import name_of
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.models.duplicate import duplicate
from transferscope.models.parametrised import analysed_model, make_plain

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))

LAYERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm of old": utils.weight_norm,
    "weight norm of all": lambda layer: utils.weight_norm(layer, dim=None),
    "spectral norm of old": utils.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "two": lambda layer: parametrizations.spectral_norm(parametrizations.weight_norm(layer)),
}


def network(kind: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    stem = LAYERS[kind](nn.Conv2d(3, 4, 1))
    return nn.Sequential(stem, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IMAGES)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_copy_is_the_same_function_and_shares_nothing(kind: str) -> None:
    """Also after one of two copies was made plain, and after the original has computed something with gradients."""
    original = network(kind)
    original.train()(IMAGES).sum().backward()
    expected = outputs(original.eval())
    first, second = duplicate(original), duplicate(original)
    torch.testing.assert_close(outputs(make_plain(first)), expected)
    torch.testing.assert_close(outputs(second), expected)
    torch.testing.assert_close(outputs(original), expected)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    torch.testing.assert_close(outputs(original), expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_two_networks_of_a_notebook_are_analysed(kind: str) -> None:
    """Given as objects of one class they are built as copies of one, and each plain model takes the weights of both."""
    networks = [network(kind, seed) for seed in (1, 2)]
    metadata = CheckpointMetadata(architecture=name_of(networks[0]), num_classes=2)
    plain = [analysed_model(Checkpoint(dict(one.state_dict()), metadata)) for one in networks]
    for one, other in zip(networks, plain, strict=True):
        torch.testing.assert_close(outputs(other), outputs(one))
    plain[0].load_state_dict(plain[1].state_dict())
    torch.testing.assert_close(outputs(plain[0]), outputs(networks[1]))
