"""Features of named layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.analysis.features import FeatureExtractor
from transferscope.system.errors import UserError


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 5))


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_features_are_the_layers_outputs():
    """Flattened features hold every value, pooled ones the mean over pixels, both after the activation."""
    model = small_model()
    expected = model[0](IMAGES).detach().relu()
    layers = {"conv": "0", "logits": "3"}
    flattened = FeatureExtractor(model, layers, features="flattened")(IMAGES)
    pooled = FeatureExtractor(model, layers)(IMAGES)
    np.testing.assert_allclose(flattened["conv"], expected.flatten(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled["conv"], expected.mean(dim=(2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled["logits"], model(IMAGES).detach(), rtol=1e-5, atol=1e-6)
    assert list(pooled) == ["conv", "logits"]


def test_tokens_are_pooled():
    """A transformer's output (examples, tokens, width) becomes the mean over tokens."""
    model = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    tokens = torch.randn(3, 5, 8)
    features = FeatureExtractor(model, ["norm2"])(tokens)["norm2"]
    np.testing.assert_allclose(features, model.eval()(tokens).detach().mean(dim=1), rtol=1e-5, atol=1e-6)


def test_the_model_is_left_as_it_was():
    """Training mode, hooks and gradients: nothing stays behind, and dropout does not act."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train()
    images = torch.randn(5, 4)
    first, second = (FeatureExtractor(model, ["1"])(images)["1"] for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert model.training
    assert not model[0]._forward_hooks


def test_reduce_sees_each_layer_while_the_model_runs():
    """What `reduce` returns is all that is kept."""
    shapes = FeatureExtractor(small_model(), ["0", "3"], features="flattened")(IMAGES, lambda value: value.shape)
    assert shapes == {"0": (6, 144), "3": (6, 5)}


def test_the_first_tensor_of_several_is_taken():
    """A layer that returns a tuple counts with its first tensor."""
    features = FeatureExtractor(nn.Sequential(nn.LSTM(4, 3, batch_first=True)), ["0"])(torch.randn(2, 7, 4))
    assert features["0"].shape == (2, 3)


def test_bad_layers_are_named():
    """The error for a layer that does not exist lists those that do; one that does not run is named too."""
    with pytest.raises(UserError, match="no layer layer9 in Sequential; its layers are: 0, 1, 2, 3"):
        FeatureExtractor(small_model(), ["layer9", "0"])
    with pytest.raises(UserError, match="expected one of pooled, flattened"):
        FeatureExtractor(small_model(), ["0"], features="averaged")

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with pytest.raises(UserError, match="layer idle took no part in the forward pass of Idle"):
        FeatureExtractor(Idle(), ["idle"])(torch.randn(5, 4))


class Stem(nn.Module):
    """A convolution whose activation is a call in forward, behind a scalar bias, as in Fixup's ResNets."""

    def __init__(self, activation) -> None:
        super().__init__()
        self.conv, self.bias, self.activation = nn.Conv2d(3, 4, 3), nn.Parameter(torch.full((1,), 0.3)), activation
        self.conv2, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.conv(x) + self.bias.view(()))
        return self.fc((x + self.conv2(x)).mean((2, 3)))


@pytest.mark.parametrize(
    "activation",
    [F.relu, torch.tanh, Tensor.relu_, nn.GELU(), nn.Sequential(nn.BatchNorm2d(4), nn.SiLU(inplace=True))],
)
def test_features_are_taken_after_the_activation_that_follows(activation):
    """A call, a method, a module, also behind a bias or a normalisation; a residual sum and the logits have none."""
    model = Stem(activation).eval()
    extractor = FeatureExtractor(model, ["conv", "conv2", "fc"], features="flattened")
    features = extractor(IMAGES)
    with torch.no_grad():
        after = activation(model.conv(IMAGES) + model.bias)
        expected = {"conv": after, "conv2": model.conv2(after), "fc": model(IMAGES)}
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value.flatten(1), rtol=1e-5, atol=1e-6)
    assert extractor.linear == set()


def test_features_without_activation_are_linear_in_the_image():
    """A patch embedding has no activation of its own: its pooled features are the mean colour, and it is named."""
    model = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 2))
    extractor = FeatureExtractor(model, ["0", "2", "4"], features="flattened")
    features = extractor(IMAGES)
    assert extractor.linear == {"0"}
    np.testing.assert_allclose(features["2"], model[:4](IMAGES).detach(), rtol=1e-5, atol=1e-6)
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    pooled = FeatureExtractor(model, ["0"])(images)["0"]
    colours = images.unfold(2, 2, 2).unfold(3, 2, 2).mean((2, 3)).flatten(1)  # of each place in a patch
    design = torch.cat([colours, torch.ones(40, 1)], dim=1)
    left = pooled - design @ torch.linalg.lstsq(design, pooled).solution
    assert left.abs().max() < 1e-5
