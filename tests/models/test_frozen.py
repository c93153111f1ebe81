"""Parts of a network that are not trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transferscope.models.frozen import freeze, frozen_keys
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError


def after_steps(network: nn.Module, frozen: object) -> dict[str, torch.Tensor]:
    """The state after three SGD steps of large rate with weight decay."""
    freeze(network, frozen)  # type: ignore[arg-type]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0, weight_decay=0.1)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        network.train()
        freeze(network, frozen)  # type: ignore[arg-type]
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("name", ["fixup_resnet_small", "resnet18"])
@pytest.mark.parametrize("frozen", ["features", ("stem", "layer1.0"), ("layer*.0.*",)])
def test_no_tensor_of_a_frozen_part_changes(name: str, frozen: object) -> None:
    """To the bit, BatchNorm's statistics and counters among them; the others' weights all change."""
    network = build_model(name, 3, seed=0)
    # Fixup begins with zeros behind which no gradient comes through.
    for index, parameter in enumerate(network.parameters()):
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    keys = frozen_keys(network, frozen)  # type: ignore[arg-type]
    after = after_steps(network, frozen)
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == set(after) - keys
    if frozen == "features":
        assert changed == {"fc.weight", "fc.bias"}


def test_what_is_frozen_is_evaluated_and_the_rest_trained() -> None:
    """Dropout inside a frozen part is off, before the classifier it is on."""
    network = nn.Sequential()
    network.features = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    network.dropout = nn.Dropout()
    network.fc = nn.Linear(4, 2)
    network.train()
    freeze(network, "features")
    assert [module.training for module in network.features] == [False, False, False]
    assert network.dropout.training
    assert network.fc.training


def test_nothing_frozen_leaves_the_network_alone() -> None:
    """Neither mode nor gradients change."""
    network = build_model("fixup_resnet_small", 3, seed=0)
    freeze(network, ())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("layer7",), r"'layer7' matches no tensor; modules are stem, layer1.0"),
        (("*",), r"\* are all parameters: nothing is left to train"),
    ],
)
def test_names_that_freeze_nothing_or_all(frozen: tuple[str, ...], message: str) -> None:
    """One line with what there is."""
    with pytest.raises(UserError, match=message):
        frozen_keys(build_model("fixup_resnet_small", 3, seed=0), frozen)
