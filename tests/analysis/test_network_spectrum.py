"""Spectra of whole networks with their own padding, and power laws of their eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from transferscope.analysis.spectrum import layer_spectrum, network_spectrum, top_vectors
from transferscope.analysis.spectrum.heavy_tail import fit_power_law, layer_eigenvalues
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError


class Network(nn.Module):
    """A convolution with BatchNorm, one with a gain, attention, a linear layer, an embedding and an idle layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.gain = nn.Parameter(torch.tensor([2.0]))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.fc = nn.Linear(4, 2)
        self.places = nn.Embedding(5, 4)
        self.idle = nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(torch.relu(self.norm(self.first(images)))) * self.gain.view(())
        tokens = features.flatten(2).mT
        return self.fc(self.attention(tokens, tokens, tokens)[0].mean(1))


def drawn() -> Network:
    torch.manual_seed(0)
    model = Network()
    nn.init.normal_(model.norm.weight)
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    return model


def test_every_layer_has_a_row() -> None:
    """What has a spectrum has that of the layer alone; what has none says why."""
    model = drawn()
    table = network_spectrum(model, 9).set_index("module")
    assert list(table.index) == [
        "first", "second", "fc", "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj",
        "places", "idle", "all",
    ]  # fmt: skip
    alone = layer_spectrum(model.first, (3, 9, 9))
    assert table.loc["first", "spectral_norm"] == float(alone.top_values[0])
    assert table.loc["second", "num_values"] == 4 * 5 * 5
    assert table.loc["places", "method"] == table.loc["idle", "method"] == "none"
    assert "Embedding" in table.loc["places", "note"]
    assert "skips" in table.loc["idle", "note"]
    layers = table.drop("all")
    assert table.loc["all", "num_values"] == layers["num_values"].sum()
    assert table.loc["all", "count_below_0.1"] == layers["count_below_0.1"].sum()


def test_what_multiplies_a_layer_can_be_folded_in() -> None:
    """A BatchNorm's scale for each channel, and a gain of one value."""
    model = drawn()
    plain, folded = (network_spectrum(model, 8, folded=option).set_index("module") for option in (False, True))
    assert list(folded.index[folded["folded"]]) == ["first", "second", "all"]
    assert folded.loc["second", "spectral_norm"] == pytest.approx(2 * plain.loc["second", "spectral_norm"])
    scale = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    scaled = nn.Conv2d(3, 4, 3, padding=1, stride=2)
    scaled.weight.data = model.first.weight.data.double() * scale.data.double()[:, None, None, None]
    expected = layer_spectrum(scaled, (3, 8, 8))
    assert folded.loc["first", "spectral_norm"] == pytest.approx(float(expected.top_values[0]))


def test_circular_padding_takes_the_next_size() -> None:
    """And says so."""
    table = network_spectrum(drawn(), 9, padding="circular").set_index("module")
    assert table.loc["first", "num_values"] == 4 * 5 * 5
    assert "taken as (10, 10)" in table.loc["first", "note"]


def test_a_layer_with_a_forward_pass_of_its_own() -> None:
    """timm's "same" padding, more on one side than on the other, is followed."""
    torch.manual_seed(0)
    same = Conv2dSame(3, 8, 3, stride=2, bias=False)
    table = network_spectrum(nn.Sequential(same), 12).set_index("module")
    layer = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, stride=2, bias=False))
    layer[1].weight = same.weight
    assert table.loc["0", "spectral_norm"] == pytest.approx(float(layer_spectrum(layer, (3, 12, 12)).top_values[0]))


def test_vectors_are_those_of_the_dense_matrix() -> None:
    """As images: all channels of a colour image, else the strongest, with its part of the length; others are named."""
    model = drawn()
    table = top_vectors(model, 8, ["first", "second"], top=2)
    for module, layer, size in (("first", model.first, 8), ("second", model.second, 4)):
        images = torch.eye(layer.in_channels * size**2).reshape(-1, layer.in_channels, size, size)
        with torch.no_grad():
            matrix = (layer(images) - layer(torch.zeros_like(images))).flatten(1).T
        _, values, vectors = torch.linalg.svd(matrix)
        for rank, rows in table[table["module"] == module].groupby("rank"):
            expected = vectors[rank - 1].reshape(layer.in_channels, size, size)
            expected = expected * expected.flatten()[expected.abs().argmax()].sign()
            kept = rows["channel"].unique()
            assert list(kept) == ([0, 1, 2] if module == "first" else [int(expected.square().sum((1, 2)).argmax())])
            amplitudes = rows["amplitude"].to_numpy().reshape(-1, size, size)
            np.testing.assert_allclose(amplitudes, expected[kept].numpy(), atol=1e-4)
            share = expected[kept].square().sum((1, 2))
            np.testing.assert_allclose(rows.groupby("channel")["share"].first(), share, atol=1e-4)
            assert rows["value"].iloc[0] == pytest.approx(float(values[rank - 1]), rel=1e-5)
    with pytest.raises(UserError, match="places is no 2-d convolution of Network: there are first, second"):
        top_vectors(model, 8, ["places"])


@pytest.mark.large
@pytest.mark.parametrize(
    "name", ["densenet121", "mobilenet_v3_large", "convnext_tiny", "efficientnet_b0", "vit_tiny_patch16_224"]
)
def test_architectures(name: str) -> None:
    """Every convolution and linear layer has a spectrum, at a small image."""
    model = build_model(name, 10, seed=0)
    table = network_spectrum(model, 224 if name.startswith("vit") else 64, smallest=0, top=1).set_index("module")
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert table.loc[path, "num_values"] > 0, path


def test_bad_networks_are_named() -> None:
    """No layer, a size that the network does not take, weights that are not finite with their layer."""
    with pytest.raises(UserError, match="no layer with a weight"):
        network_spectrum(nn.ReLU(), 8)
    with pytest.raises(UserError, match="cannot take an input of 3x0"):
        network_spectrum(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 0))
    with pytest.raises(UserError, match="no layer with a linear map"):
        network_spectrum(nn.Sequential(nn.PReLU()), 8)
    model = drawn()
    model.second.weight.data[0, 0, 0, 0] = float("inf")
    with pytest.raises(UserError, match="layer second: weight holds values that are not finite"):
        network_spectrum(model, 8)


@pytest.mark.parametrize("alpha", [1.5, 2.5, 4.0])
def test_the_exponent_of_a_power_law_is_found(alpha: float) -> None:
    """Of 20,000 draws of a Pareto distribution from 3 on: within 3 %, from about there on."""
    draws = 3 * (1 - np.random.default_rng(0).random(20_000)) ** (-1 / (alpha - 1))
    body = np.random.default_rng(1).uniform(0, 3, 5_000)
    fit = fit_power_law(np.concatenate([body, draws]))
    assert fit.alpha == pytest.approx(alpha, rel=0.03)
    assert fit.xmin >= 2.5


def test_the_fit_by_another_formulation() -> None:
    """The threshold is the one of least distance, by the definition and one threshold after the other."""
    values = np.sort(np.random.default_rng(0).pareto(2, 200))
    best = (np.inf, 0.0)
    for start in range(len(values) - 2):
        tail = values[start:]
        alpha = 1 + 1 / np.mean(np.log(tail / tail[0]))
        empirical = np.array([(tail < value).mean() for value in tail])
        distance = np.abs(empirical - (1 - (tail / tail[0]) ** (1 - alpha))).max()
        best = min(best, (distance, alpha))
    fit = fit_power_law(values)
    assert (fit.distance, fit.alpha) == pytest.approx(best)
    assert np.isnan(fit_power_law(np.ones(100)).alpha)
    assert np.isnan(fit_power_law(values[:5]).alpha)


def test_eigenvalues_of_a_convolution_are_those_of_its_taps() -> None:
    """Those of one linear map for each place in the kernel, together."""
    weight = torch.randn(3, 5, 2, 2, dtype=torch.float64)
    expected = [torch.linalg.eigvalsh(weight[:, :, i, j] @ weight[:, :, i, j].T) for i in range(2) for j in range(2)]
    eigenvalues = layer_eigenvalues(weight).sort().values
    torch.testing.assert_close(eigenvalues, torch.cat(expected).sort().values)
