"""Features of named layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transferscope.analysis.features import FeatureExtractor
from transferscope.system.errors import UserError


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 5))


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_features_are_the_layers_outputs():
    """Flattened features hold every value, pooled ones the mean over pixels; a later in-place ReLU changes neither."""
    model = small_model()
    expected = model[0](IMAGES).detach()
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
