"""Weights that forward computes from what is stored."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from transferscope.analysis.distance import l2_distance
from transferscope.analysis.interpolation import interpolate
from transferscope.analysis.spectrum_tables import layer_singular_values
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.models.layers import trace_conv_inputs
from transferscope.models.linear_calls import computed_weight, computing_layers
from transferscope.models.parametrised import analysed_model, analysed_state
from transferscope.models.plain_layers import layers_of_unknown_map, make_plain
from transferscope.models.zoo import build_model

IMAGES = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Standardised(nn.Conv2d):
    """Weight standardisation with a gain, computed in forward."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        return F.conv2d(
            F.pad(x, (0, 1, 1, 1)),
            self.gain * (self.weight - mean) / deviation,
            self.bias,
            self.stride,
            0,
            self.dilation,
        )


def networks() -> dict[str, nn.Module]:
    conv = lambda: nn.Conv2d(3, 6, 3, padding=1)  # noqa: E731
    return {
        "spectral norm": spectral_norm(conv()),
        "spectral norm, parametrised": parametrizations.spectral_norm(conv()),
        "weight norm": weight_norm(conv()),
        "weight norm, parametrised": parametrizations.weight_norm(conv()),
        "weight standardisation": Standardised(3, 6, 3),
    }


def names_of_scaled_tensors(layer: nn.Module) -> list[str]:
    """Stored tensors whose scale the function does not see."""
    known = ("weight", "weight_orig", "weight_v", "original", "original1")
    return [name for name, _ in layer.named_parameters() if name.rpartition(".")[2] in known]


@pytest.mark.parametrize("kind", list(networks()))
def test_ten_times_the_weights_of_the_same_function_are_the_same_layer(kind: str) -> None:
    """Spectrum, distance and points between: all from the weight that is applied, which a plain layer then holds."""
    torch.manual_seed(0)
    layer = networks()[kind].eval()
    scaled = networks()[kind].eval()
    scaled.load_state_dict(layer.state_dict())
    with torch.no_grad():
        stored = dict(scaled.named_parameters())
        assert len(names_of_scaled_tensors(scaled)) == 1
        stored[names_of_scaled_tensors(scaled)[0]].mul_(10)
    expected = layer(IMAGES)
    torch.testing.assert_close(scaled(IMAGES), expected, rtol=1e-4, atol=1e-5)
    states = []
    for given in (layer, scaled):
        model = make_plain(nn.Sequential(given))
        torch.testing.assert_close(model(IMAGES), expected, rtol=1e-4, atol=1e-5)
        assert set(model.state_dict()) == {"0.weight", "0.bias"}
        torch.testing.assert_close(computed_weight(model[0]).float(), model.state_dict()["0.weight"])
        states.append({key: value.clone() for key, value in model.state_dict().items()})
    assert l2_distance(*states) < 1e-5
    spectra = [layer_singular_values(state, trace_conv_inputs(model, 12))["value"] for state in states]
    assert spectra[0].max() == pytest.approx(spectra[1].max(), rel=1e-5)
    torch.testing.assert_close(interpolate(*states, 0.5)["0.weight"], states[0]["0.weight"])


def test_the_spectrum_is_that_of_the_map() -> None:
    """The norms of a standardised 1x1 layer are those of the matrix that its outputs on unit vectors make."""
    layer = Standardised(3, 6, 1, bias=False)
    units = torch.eye(3)[:, :, None, None].expand(3, 3, 2, 2)
    matrix = layer(units)[:, :, 1, 0].T.double()
    model = make_plain(nn.Sequential(layer))
    singular = layer_singular_values(model.state_dict(), trace_conv_inputs(model, 4))
    torch.testing.assert_close(
        torch.tensor(sorted(singular["value"]), dtype=torch.float64),
        torch.linalg.svdvals(matrix).sort().values,
        rtol=1e-5,
        atol=1e-6,
    )


# timm's ScaledStdConv2d divides by the root of the variance plus this. With 1e-5, its default, ten times the weights are
# another function: of a variance of 2e-3 the applied weight grows by .25 percent. With next to nothing they are the same.
THIN_NF_RESNET = {"channels": (8, 16, 16, 16), "depths": (1, 1, 1, 1), "stem_chs": 8, "group_size": 4}
NO_EPSILON = 1e-30


def nf_resnet(seed: int, epsilon: float) -> Checkpoint:
    """With gains away from 0, where half of them start and the weights behind them have no effect."""
    options = THIN_NF_RESNET | {"std_conv_eps": epsilon}
    model = build_model("timm/nf_resnet26", 3, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    for key in state:
        if key.endswith("gain"):
            state[key] += torch.rand(state[key].shape, generator=generator)
    metadata = CheckpointMetadata(architecture="timm/nf_resnet26", num_classes=3, model_options=options)
    return Checkpoint(state, metadata)


def norm(state: dict[str, Tensor]) -> float:
    return sum(value.double().square().sum().item() for value in state.values()) ** 0.5


def test_a_networks_function_stays_and_its_weights_can_be_written() -> None:
    """timm's network with standardised weights and gains: the plain model is the same function and takes weights."""
    states = []
    for seed in (1, 2):
        checkpoint = nf_resnet(seed, NO_EPSILON)
        model, plain = checkpoint.build(), analysed_model(checkpoint)
        with torch.no_grad():
            torch.testing.assert_close(plain(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-5)
        scaled = {k: v * 10 if k.endswith("conv2.weight") else v for k, v in checkpoint.state_dict.items()}
        states.append(analysed_state(checkpoint))
        assert list(states[-1]) == list(plain.state_dict())
        assert not any(key.endswith("gain") for key in states[-1])
        assert l2_distance(states[-1], analysed_state(Checkpoint(scaled, checkpoint.metadata))) < 1e-6 * norm(
            states[-1]
        )
    plain.load_state_dict(interpolate(*states, 0.5))
    half = plain.stages[0][0].conv2
    torch.testing.assert_close(computed_weight(half).float(), half.weight.detach())
    copied = copy.deepcopy(plain).bfloat16()
    assert copied(IMAGES.bfloat16()).isfinite().all()


@pytest.mark.parametrize("factor", [1, 10])
def test_the_applied_weight_is_that_of_the_formula_with_its_epsilon(factor: float) -> None:
    """gain * scale * (w - mean) / sqrt(variance + 1e-5), in timm's network as it comes."""
    checkpoint = nf_resnet(3, 1e-5)
    stored = {k: v * factor if k.endswith("conv2.weight") else v for k, v in checkpoint.state_dict.items()}
    scale = checkpoint.build().stages[1][0].conv2.scale
    applied = analysed_state(Checkpoint(stored, checkpoint.metadata))["stages.1.0.conv2.weight"]
    weight, gain = (stored[f"stages.1.0.conv2.{name}"].double() for name in ("weight", "gain"))
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
    expected = gain * scale * (weight - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(applied.double(), expected, rtol=1e-6, atol=1e-8)


def test_plain_networks_are_left_as_they_are() -> None:
    """The very tensors of the checkpoint; half precision is widened without loss."""
    model = build_model("resnet18", 3, seed=0)
    checkpoint = Checkpoint(model.state_dict(), CheckpointMetadata(architecture="resnet18", num_classes=3))
    state = analysed_state(checkpoint)
    assert all(state[key] is value for key, value in checkpoint.state_dict.items())
    half = {key: v.bfloat16() if v.is_floating_point() else v for key, v in checkpoint.state_dict.items()}
    wide = analysed_state(Checkpoint(half, checkpoint.metadata))
    assert wide["conv1.weight"].dtype == torch.float32
    assert torch.equal(wide["conv1.weight"], half["conv1.weight"].float())
    assert not list(computing_layers(model))


def test_pruned_and_freely_parametrised_weights_are_those_that_are_applied() -> None:
    """A mask and a parametrisation of one's own end in the plain weight, of other types of layers too."""

    class Exponential(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight.exp()

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Embedding(3, 2))
    prune.random_unstructured(model[0], "weight", amount=0.5)
    parametrize.register_parametrization(model[1], "weight", Exponential())
    parametrize.register_parametrization(model[2], "weight", Exponential())
    weights = [layer.weight.clone() for layer in model]
    make_plain(model)
    assert list(model.state_dict()) == ["0.bias", "0.weight", "1.bias", "1.weight", "2.weight"]
    assert (model[0].weight == 0).sum() == 8
    for layer, weight in zip(model, weights, strict=True):
        assert torch.equal(layer.weight, weight)


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight))


class TwoMaps(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight) + F.linear(x, self.weight * 2)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight) * 3


class Dynamic(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * x.mean(), None, self.stride, self.padding)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Cosine(4, 3), "changes its input"),
        (TwoMaps(4, 3), "computes 2 linear maps"),
        (Scaled(4, 3), "changes what its linear map gives"),
        (Dynamic(4, 3, 1), "computes its weight from its input"),
    ],
)
def test_a_layer_that_is_no_one_linear_map_is_named(
    layer: nn.Module, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its spectrum is left out with the reason, and a warning says that its stored tensors are compared."""
    model = nn.Sequential(nn.Linear(4, 4), layer)
    assert list(layers_of_unknown_map(model)) == ["1"]
    assert reason in layers_of_unknown_map(model)["1"]
    before = layer.weight.clone()
    with caplog.at_level(logging.WARNING):
        make_plain(model)
    assert "layer 1 (" in caplog.text
    assert reason in caplog.text
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float64]
)
def test_weights_of_any_precision_are_analysed_in_float32_at_least(dtype: torch.dtype) -> None:
    """With the values that the file has."""
    state = {key: t.to(dtype) for key, t in build_model("squeezenet1_1", 3, seed=0).state_dict().items()}
    analysed = analysed_state(Checkpoint(state, CheckpointMetadata(architecture="squeezenet1_1", num_classes=3)))
    for key, tensor in analysed.items():
        assert tensor.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(tensor.double(), state[key].double())
