"""Networks as scripts define them: the images that they take, and the layer that classifies."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from transferscope.analysis.evaluator import prepare
from transferscope.answers.given_networks import name_of, num_outputs
from transferscope.models.image_input import common_side, fixed_side, in_fast_layout
from transferscope.models.layers import classifier_layers, image_channels
from transferscope.models.memory_layout import lay_out
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError
from transferscope.system.references import ALLOWED

NETS = '''
import torch
from torch import nn
from torch.nn import functional


class Flat(nn.Module):
    """Grey images of 28 pixels, flattened by view after convolutions, as in tutorials."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 5), nn.Conv2d(4, 6, 5)
        self.fc1, self.fc2 = nn.Linear(6 * 16, 8), nn.Linear(8, num_classes)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return functional.log_softmax(self.fc2(functional.relu(self.fc1(x.view(-1, 6 * 16)))), dim=1)


class HeadFirst(nn.Module):
    """A residual network whose classifier is registered before its body, which ends in more channels."""

    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(6, num_classes)
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3))

    def forward(self, x):
        return self.fc(self.layers(x).mean(dim=(2, 3)))


class Viewed(nn.Module):
    """Of an image of 32 pixels the view makes nine outputs, and nothing fails."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 5, 3), nn.Linear(500, num_classes)

    def forward(self, x):
        return self.fc(functional.relu(self.conv(x)).view(-1, 500))


def test_parameters_of_five_axes_keep_their_layout() -> None:
    """`channels_last` is for 4 axes: a network with a 3d convolution, too, computes the same in it."""
    torch.manual_seed(0)

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.deep, self.fc = nn.Conv2d(3, 4, 3), nn.Conv3d(1, 1, 3, padding=1), nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.deep(self.flat(images)[:, None])[:, 0].mean((2, 3)))

    model, images = Mixed().eval(), torch.rand(2, 3, 16, 16)
    expected = model(images)
    fast = prepare(model)
    assert fast.flat.weight.is_contiguous(memory_format=torch.channels_last)
    assert not fast.flat.weight.is_contiguous()
    assert fast.deep.weight.is_contiguous()
    assert torch.allclose(fast(images), expected, atol=1e-6)


def perceptron(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 9), nn.ReLU(), nn.Linear(9, num_classes))


def colour_perceptron(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 9), nn.ReLU(), nn.Linear(9, num_classes))


def pooled(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


def pooled_late(num_classes):
    """Nothing below 75 pixels."""
    return nn.Sequential(nn.Conv2d(3, 4, 75), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
'''


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(ALLOWED, "{}")
    (tmp_path / "nets.py").write_text(NETS)
    return f"{tmp_path / 'nets.py'}"


@pytest.mark.parametrize(
    ("name", "channels", "only", "some"),
    [
        ("Flat", 1, 28, 28),
        ("Viewed", 1, 12, 12),
        ("HeadFirst", 3, None, 64),
        ("perceptron", 1, 28, 28),
        ("colour_perceptron", 3, 32, 32),
        ("pooled", 3, None, 64),
        ("pooled_late", 3, None, 224),
    ],
)
def test_size_and_channels_follow_from_trying(nets: str, name: str, channels: int, only: int | None, some: int) -> None:
    """A network that flattens takes one size only; the side found is one that the network computes with."""
    model = build_model(f"{nets}:{name}", 3, seed=0).eval()
    assert (image_channels(model), fixed_side(model)) == (channels, only)
    assert common_side([model], [only]) == some
    assert model(torch.zeros(2, channels, some, some)).shape == (2, 3)


def test_networks_without_a_size_in_common_have_none(nets: str) -> None:
    """Grey images of 28 pixels and colour images of 75 or more."""
    models = [build_model(f"{nets}:{name}", 3, seed=0) for name in ("Flat", "pooled_late")]
    assert common_side(models) is None


@pytest.mark.parametrize("num_classes", [5, 6])
def test_a_classifier_that_is_registered_first_is_the_classifier(nets: str, num_classes: int) -> None:
    """Also where the last convolution has as many channels as there are classes."""
    model = build_model(f"{nets}:HeadFirst", num_classes, seed=0)
    assert classifier_layers(model) == ("fc",)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, num_classes)


def test_a_network_without_so_many_outputs_is_refused(nets: str, tmp_path: Path) -> None:
    """No layer follows the number of classes."""
    (tmp_path / "nets.py").write_text("from torch import nn\ndef ten(num_classes): return nn.Linear(12, 10)\n")
    with pytest.raises(UserError, match="has no classifier for 7 classes: its last layer has 10"):
        build_model(f"{tmp_path / 'nets.py'}:ten", 7)


def test_a_network_that_views_features_is_measured_in_the_usual_layout(nets: str) -> None:
    """Images that come in channels_last give the logits of the network itself; others stay in the faster layout."""
    model = build_model(f"{nets}:Flat", 3, seed=0).eval()
    images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images)
        with pytest.raises(RuntimeError, match="view"):
            deepcopy(model).to(memory_format=torch.channels_last)(images)
        given = images.contiguous(memory_format=torch.channels_last)
        assert torch.allclose(prepare(model)(given), expected, atol=1e-6)
    fast = prepare(build_model(f"{nets}:pooled", 3, seed=0))
    assert fast.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
    assert not fast._forward_pre_hooks


class GivenHeadFirst(nn.Module):
    """As a notebook gives it, with more channels than classes in the layer that is registered last."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)
        self.conv = nn.Conv2d(3, 6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(functional.relu(self.conv(images)).mean(dim=(2, 3)))


def test_the_classifier_of_a_given_network_is_the_layer_that_is_called_last() -> None:
    """A notebook's network has no function that builds it for other classes."""
    reference = name_of(GivenHeadFirst())
    assert num_outputs(reference) == 4
    assert classifier_layers(build_model(reference, 4)) == ("fc",)
    assert build_model(reference, 7)(torch.zeros(1, 3, 8, 8)).shape == (1, 7)


@pytest.mark.parametrize(("capability", "safe"), [("AVX2", False), ("AVX512", True)])
def test_networks_that_torch_corrupts_memory_with_stay_in_the_usual_layout(
    capability: str, safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shortcut of a Fixup network of 4 channels, in the layout of training and of analyses; 8 channels are sound."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for widths, sound in (((4, 8), safe), ((8, 16), True)):
        network = build_model("fixup_resnet_small", 3, seed=0, blocks=(1, 1), widths=widths)
        images = torch.rand(2, 3, 8, 8)
        expected = network(images)
        lay_out(network, torch.channels_last)
        last = [not one.is_contiguous() for one in network.parameters() if one.ndim == 4 and one.shape[2] > 1]
        assert set(last) == {sound}
        given = images.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(in_fast_layout(network)(given), expected)
