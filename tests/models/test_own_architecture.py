"""Networks that a function of the user's own builds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint, save_checkpoint
from transferscope.models.compatible import infer_num_classes
from transferscope.models.layers import classifier_layers
from transferscope.models.parametrised import analysed_state
from transferscope.models.zoo import build_model, build_skeleton
from transferscope.system.errors import UserError
from transferscope.system.references import ALLOWED

NETS = """
from torch import nn
ran = []
def build(num_classes, width=4):
    ran.append(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, num_classes))
def nothing(num_classes): return 3
class Net(nn.Module):  # made for ten classes, with the classifier registered first
    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(width, 10)
        self.conv = nn.Conv2d(3, width, 3)
    def forward(self, images):
        return self.fc(self.conv(images).relu().mean(dim=(2, 3)))
class Early(nn.Module):  # the same with BatchNorm, whose buffers have memory where parameters have none
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 10)
        self.last = nn.Linear(4, 4)
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, images):
        return self.head(self.last(nn.functional.dropout(self.conv(self.norm(images)).mean(dim=(2, 3)), .5)))
def fully():
    return nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
constant = 4
def quits():
    import sys
    sys.exit(3)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(ALLOWED, "{}")
    (tmp_path / "nets.py").write_text(NETS)
    return f"{tmp_path / 'nets.py'}"


def test_a_function_of_ones_own_builds_by_seed(nets: str) -> None:
    """The same seed gives the same weights, options reach the function, and the classifier fits."""
    first, second = (build_model(f"{nets}:build", 5, seed=1, width=6) for _ in range(2))
    assert first(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert first.get_parameter("0.weight").shape[0] == 6
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_network_that_knows_its_classes_itself_is_taken(nets: str) -> None:
    """Its own ten outputs stay as they are made; for others the layer that classifies is fresh, wherever it is made."""
    own = build_model(f"{nets}:Net", 10, seed=1, width=6)
    torch.manual_seed(0)
    other = build_model(f"{nets}:Net", 3, seed=1, width=6)
    assert [tuple(model(torch.zeros(2, 3, 8, 8)).shape) for model in (own, other)] == [(2, 10), (2, 3)]
    assert torch.equal(own.conv.weight, other.conv.weight)
    assert classifier_layers(own) == classifier_layers(other) == ("fc",)
    assert infer_num_classes(own.state_dict(), f"{nets}:Net", {"width": 6}) == 10
    assert classifier_layers(build_skeleton(f"{nets}:Net", 10)) == ("fc",)


def test_the_classifier_is_found_by_an_image_also_without_memory(nets: str) -> None:
    """Not the layer that is registered last; and the draws of a seed are the same whether it is found or known."""
    assert tuple(build_skeleton(f"{nets}:Early", 3).head.weight.shape) == (3, 4)
    models = [build_model(f"{nets}:Early", 3, seed=1) for _ in range(2)]
    assert [tuple(model.head.weight.shape) for model in models] == [(3, 4)] * 2
    assert torch.equal(models[0].head.weight, models[1].head.weight)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing", {}, "returned an object of type int, not a torch.nn.Module"),
        ("constant", {}, "is an object of type int, not a function that returns a network"),
        ("build", {"depth": 3}, "has no option 'depth'"),
        ("Net", {"depth": 3}, "has no option 'depth'"),
        ("fully", {}, "classifies by a convolution that is not 1 by 1"),
        ("quits", {}, "ends the program .sys.exit.: let it return the network"),
        ("biuld", {}, "has no 'biuld': near matches are build"),
    ],
)
def test_what_does_not_build_is_one_line(nets: str, name: str, options: dict[str, int], message: str) -> None:
    """Every mistake names the reference and what is wrong."""
    with pytest.raises(UserError, match=message):
        build_model(f"{nets}:{name}", 5, **options)


def test_a_file_without_its_function_is_one_line(nets: str) -> None:
    """The message says how the function is named."""
    with pytest.raises(UserError, match=r"nets.py' is a file: name the function or class in it .* nets?.*.py:function"):
        build_model(nets, 5)


def test_a_file_that_names_code_runs_nothing_until_the_user_names_it(
    nets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint from elsewhere is refused with its reference, and built once that is named."""
    reference = f"{nets}:build"
    model = build_model(reference, 5, seed=1)
    metadata = CheckpointMetadata(architecture=reference, num_classes=5)
    save_checkpoint(Checkpoint(model.state_dict(), metadata), tmp_path / "own.safetensors")
    monkeypatch.setenv(ALLOWED, "{}")
    (tmp_path / "nets.py").write_text("raise SystemExit\n")
    received = load_checkpoint(tmp_path / "own.safetensors")
    for use in (Checkpoint.build, analysed_state):
        with pytest.raises(UserError, match=r"its network is made by the code .*nets.py:build: if you trust that code"):
            use(received)
    (tmp_path / "nets.py").write_text(NETS)
    build_model(reference, 5)
    assert torch.equal(received.build().get_parameter("0.weight"), model.get_parameter("0.weight"))
