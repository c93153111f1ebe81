"""One network for the weights of many models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transferscope.analysis.batchnorm import recompute_statistics
from transferscope.measure.reused_network import ReusedNetwork
from transferscope.models import build_model
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata

OPTIONS = {"widths": [4, 8, 8]}
IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def made(seed: int, name: str = "fixup_resnet_small", **options: object) -> Checkpoint:
    state = {key: tensor.clone() for key, tensor in build_model(name, 3, seed=seed, **options).state_dict().items()}
    state |= {key: tensor + 0.1 for key, tensor in state.items() if tensor.is_floating_point() and "var" not in key}
    return Checkpoint(state, CheckpointMetadata(architecture=name, model_options=options, num_classes=3))


@torch.no_grad()
def test_it_holds_weights_only_while_they_are_worn(tmp_path: Path) -> None:
    """Then it is the checkpoint's own network, in memory or mapped; before and after its tensors take no memory."""
    first, second = made(0, **OPTIONS), made(1, **OPTIONS)
    reused = ReusedNetwork(first)
    file = tmp_path / "weights.pt"
    for one in (second, first):
        expected = one.build().eval()(IMAGES)
        with reused.worn(one.state_dict) as network:
            assert torch.allclose(network.eval()(IMAGES), expected, atol=1e-5)
            assert network.get_parameter("conv1.weight").data_ptr() == one.state_dict["conv1.weight"].data_ptr()
        with reused.mapped(one.state_dict, file) as network:
            assert torch.allclose(network.eval()(IMAGES), expected, atol=1e-5)
        with reused.worn(one.state_dict, copy=True) as network:
            network.get_parameter("conv1.weight").zero_()
        assert bool(one.state_dict["conv1.weight"].any())
        assert {tensor.device.type for tensor in reused.network.state_dict().values()} == {"meta"}
    assert not file.exists()
    with pytest.raises(KeyError), reused.worn({}):
        pass


@torch.no_grad()
def test_settled_writes_the_statistics_of_training_images() -> None:
    """Of BatchNorm they are those that one pass gives; without BatchNorm no training image is asked for."""
    given = made(0, "mobilenet_v3_small")
    state = {key: tensor.clone() for key, tensor in given.state_dict.items()}
    with ReusedNetwork(given).settled(state, lambda: [(IMAGES, torch.zeros(6))]):
        pass
    expected = given.build()
    recompute_statistics(expected, [(IMAGES, torch.zeros(6))])
    own = expected.state_dict()
    changed = {key for key in state if "running" in key}
    assert changed
    assert all(torch.allclose(state[key], own[key], rtol=1e-4, atol=1e-5) for key in state)
    assert not all(torch.equal(state[key], given.state_dict[key]) for key in changed)
    with ReusedNetwork(made(0, **OPTIONS)).settled(dict(made(1, **OPTIONS).state_dict), lambda: pytest.fail("asked")):
        pass
