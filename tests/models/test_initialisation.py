"""What a run starts from."""

from __future__ import annotations

import pytest
import torch

from transferscope.experiment.options import ModelOptions
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.models.initialisation import initialise
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

NAME = "fixup_resnet_small"


def pretrained(name: str = NAME, num_classes: int = 12, **options: object) -> Checkpoint:
    """Weights that no fresh model has."""
    state = build_model(name, num_classes, seed=99, **options).state_dict()
    state = {key: value + 1 if value.is_floating_point() else value + 7 for key, value in state.items()}
    return Checkpoint(state, CheckpointMetadata(architecture=name, task="shapes", run="p_1"))


def test_random_initialisation_is_the_model_drawn_by_the_seed() -> None:
    """In training mode."""
    model, fresh = initialise(NAME, 3, init_seed=4), build_model(NAME, 3, seed=4)
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize("name", [NAME, "resnet18"])
def test_everything_but_the_classifier_is_taken(name: str) -> None:
    """Scalars, BatchNorm's buffers and counters too; the classifier is the one that the seed draws anyway."""
    source = pretrained(name)
    state, fresh = (
        m.state_dict() for m in (initialise(name, 3, init_seed=4, pretrained=source), build_model(name, 3, seed=4))
    )
    for key, value in state.items():
        assert torch.equal(value, fresh[key] if key.startswith("fc.") else source.state_dict[key])


def test_pretrained_weights_are_copied() -> None:
    """Training does not write into the checkpoint."""
    source = pretrained()
    model = initialise(NAME, 3, init_seed=4, pretrained=source)
    model.conv1.weight.data.zero_()
    assert source.state_dict["conv1.weight"].abs().max() > 0


def test_a_checkpoint_without_classifier_will_do() -> None:
    """It is not used."""
    source = pretrained()
    headless = Checkpoint({key: value for key, value in source.state_dict.items() if not key.startswith("fc.")})
    model = initialise(NAME, 3, init_seed=4, pretrained=headless)
    assert torch.equal(model.conv1.weight, source.state_dict["conv1.weight"])


def test_options_of_the_architecture_are_used() -> None:
    """Given as ModelOptions."""
    model = ModelOptions(name=NAME, options={"widths": [4, 8, 16]})
    network = initialise(model, 3, init_seed=4, pretrained=pretrained(widths=[4, 8, 16]))
    assert network.fc.in_features == 16


def test_what_does_not_match_is_listed() -> None:
    """Shapes of a wider network."""
    with pytest.raises(
        UserError, match=r"checkpoint shapes\.p_1 does not fit fixup_resnet_small: of another shape: conv1\.weight"
    ):
        initialise(NAME, 3, init_seed=4, pretrained=pretrained(widths=[32, 64, 128]))


def test_another_architecture_is_named() -> None:
    """Both names."""
    with pytest.raises(UserError, match=r"checkpoint shapes\.p_1 is of resnet18, not of fixup_resnet_small"):
        initialise(NAME, 3, init_seed=4, pretrained=pretrained("resnet18"))
