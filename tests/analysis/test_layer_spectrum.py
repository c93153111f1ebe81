"""Spectra of the maps that layers compute, against dense matrices that torch's own forward pass fills."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transferscope.analysis.spectrum import conv_singular_values, layer_spectrum
from transferscope.analysis.spectrum.layer import bounds
from transferscope.analysis.spectrum.layer_map import linear_map, projections
from transferscope.system.errors import UserError

TOLERANCE = 1e-6


def pads(pad: nn.Module, layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(pad, layer)


C1, C2, C3 = nn.Conv1d, nn.Conv2d, nn.Conv3d
T1, T2, T3 = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
CASES = {
    "3x3": (C2(4, 6, 3, padding=1), (4, 9, 8)),
    "3x3 valid": (C2(4, 4, 3), (4, 9, 8)),
    "3x3 wide": (C2(8, 3, 3, padding=1), (8, 7, 7)),
    "stride 2": (C2(4, 6, 3, stride=2, padding=1), (4, 9, 8)),
    "stride 2 odd input": (C2(3, 5, 3, stride=2, padding=1), (3, 11, 7)),
    "unequal strides": (C2(3, 5, 3, stride=(1, 3), padding=1), (3, 8, 9)),
    "stem": (C2(3, 8, 7, stride=2, padding=3), (3, 16, 17)),
    "unread pixels": (C2(3, 4, 2, stride=2), (3, 9, 7)),
    "dilation": (C2(3, 4, 3, dilation=2, padding=2), (3, 9, 8)),
    "dilation and stride": (C2(3, 4, 3, dilation=(1, 3), stride=2, padding=2), (3, 9, 10)),
    "groups": (C2(6, 9, 3, groups=3, padding=1), (6, 7, 8)),
    "groups and stride": (C2(8, 4, 3, groups=4, stride=2, padding=1), (8, 9, 8)),
    "depthwise": (C2(6, 6, 3, groups=6, padding=1), (6, 8, 8)),
    "depthwise 7x7": (C2(4, 4, 7, groups=4, padding=3), (4, 9, 9)),
    "depthwise stride 2": (C2(6, 6, 3, groups=6, stride=2, padding=1), (6, 9, 9)),
    "depth multiplier": (C2(4, 12, 3, groups=4, padding=1), (4, 7, 7)),
    "even kernel": (C2(3, 4, 4, padding=1), (3, 8, 9)),
    "even kernel same": (C2(3, 4, 4, padding="same"), (3, 8, 9)),
    "same with dilation": (C2(3, 4, 2, padding="same", dilation=3), (3, 8, 9)),
    "string valid": (C2(3, 4, 3, padding="valid"), (3, 8, 9)),
    "unequal padding": (C2(3, 4, 3, padding=(0, 2)), (3, 8, 6)),
    "asymmetric zeros": (pads(nn.ZeroPad2d((0, 1, 2, 0)), C2(3, 5, 3, stride=2)), (3, 9, 8)),
    "cropped by padding": (pads(nn.ZeroPad2d((-1, 1, 0, -2)), C2(3, 5, 3)), (3, 9, 8)),
    "padded twice": (pads(nn.ReflectionPad2d((2, 0, 1, 1)), C2(3, 4, 3, padding=1)), (3, 7, 6)),
    "replication layer": (pads(nn.ReplicationPad2d((1, 2, 0, 3)), C2(3, 4, 3)), (3, 7, 6)),
    "circular layer": (pads(nn.CircularPad2d((1, 0, 2, 1)), C2(3, 4, 3)), (3, 7, 6)),
    "circular": (C2(4, 5, 3, padding=1, padding_mode="circular"), (4, 8, 7)),
    "circular stride 2": (C2(4, 5, 3, padding=1, stride=2, padding_mode="circular"), (4, 8, 8)),
    "circular odd input": (C2(4, 5, 3, padding=1, stride=2, padding_mode="circular"), (4, 9, 7)),
    "circular wide": (C2(3, 4, 3, padding=2, padding_mode="circular"), (3, 6, 7)),
    "reflect": (C2(4, 5, 3, padding=1, padding_mode="reflect"), (4, 8, 7)),
    "reflect 5x5": (C2(3, 4, 5, padding=2, stride=2, padding_mode="reflect"), (3, 9, 8)),
    "reflect even same": (C2(3, 4, 4, padding="same", padding_mode="reflect"), (3, 8, 9)),
    "replicate": (C2(4, 5, 3, padding=2, padding_mode="replicate"), (4, 7, 7)),
    "1x1": (C2(5, 7, 1), (5, 6, 6)),
    "1x1 stride 2": (C2(5, 7, 1, stride=2), (5, 7, 6)),
    "1x1 padded": (C2(5, 3, 1, padding=1), (5, 4, 4)),
    "patches": (C2(3, 20, 4, stride=4), (3, 16, 12)),
    "padded patches": (C2(3, 20, 4, stride=4, padding=2), (3, 14, 12)),
    "patches in groups": (C2(6, 8, 2, stride=3, padding=1, groups=2), (6, 9, 8)),
    "dilated patches": (C2(3, 8, 2, stride=4, dilation=2), (3, 12, 9)),
    "1-d": (C1(4, 6, 5, padding=2), (4, 40)),
    "1-d stride and groups": (C1(6, 8, 4, stride=3, padding=1, groups=2), (6, 40)),
    "1-d circular": (C1(4, 4, 3, padding=1, padding_mode="circular"), (4, 24)),
    "1-d reflect same": (C1(3, 4, 6, padding="same", padding_mode="reflect"), (3, 21)),
    "1-d padding layer": (pads(nn.ConstantPad1d((2, 0), 0.0), C1(3, 4, 3)), (3, 21)),
    "3-d": (C3(2, 3, 3, padding=1), (2, 5, 4, 6)),
    "3-d stride and dilation": (C3(2, 4, (1, 3, 2), stride=(2, 1, 2), dilation=(1, 2, 1), padding=(0, 2, 1)), (2, 5, 5, 6)),
    "3-d circular": (C3(2, 2, 3, padding=1, stride=(1, 2, 1), padding_mode="circular"), (2, 3, 4, 5)),
    "3-d depthwise": (C3(4, 4, 3, padding=1, groups=4), (4, 4, 5, 4)),
    "transposed": (T2(4, 3, 3, padding=1), (4, 6, 7)),
    "transposed stride 2": (T2(4, 3, 4, stride=2, padding=1), (4, 6, 5)),
    "transposed output padding": (T2(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (4, 5, 6)),
    "transposed dilation": (T2(3, 3, 3, stride=2, dilation=3, output_padding=2), (3, 4, 5)),
    "transposed patches": (T2(5, 3, 2, stride=2), (5, 6, 6)),
    "transposed 1-d": (T1(4, 3, 5, stride=3, padding=2), (4, 12)),
    "transposed 3-d": (T3(2, 3, 3, stride=2, padding=1), (2, 3, 3, 4)),
    "linear": (nn.Linear(17, 11), (17,)),
    "linear tokens": (nn.Linear(7, 19), (5, 7)),
    "query": (dict(projections(nn.MultiheadAttention(12, 3)))["q_proj"], (12,)),
    "value of another width": (dict(projections(nn.MultiheadAttention(12, 3, vdim=5)))["v_proj"], (5,)),
}  # fmt: skip


def drawn(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A case's layer with normal weights of its own, in float64."""
    layer, shape = CASES[name]
    generator = torch.Generator().manual_seed(list(CASES).index(name))
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return layer, shape


@torch.no_grad()
def dense_matrix(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The matrix (outputs, inputs) by the layer's own forward pass on every unit vector; one position of tokens."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach()
    number = int(np.prod(shape))
    images = torch.eye(number, dtype=torch.float64).reshape(number, *shape)
    zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
    return (layer(images) - zero).flatten(1).T


@pytest.mark.parametrize("name", CASES)
def test_values_equal_those_of_the_dense_matrix(name: str) -> None:
    """Every kind of layer: number, both ends and norms to 1e-6 of the largest value, and a bound that holds."""
    layer, shape = drawn(name)
    expected = torch.linalg.svdvals(dense_matrix(layer, shape))
    spectrum = layer_spectrum(layer, shape)
    assert spectrum.num_values == len(expected)
    assert (spectrum.top_status, spectrum.counts_status) == ("exact", "exact")
    largest = float(expected[0])
    top, least = expected[:20], expected[-20:]
    assert float((spectrum.top_values - top).abs().max()) <= TOLERANCE * largest
    assert float((spectrum.smallest_values - least).abs().max()) <= TOLERANCE * largest
    assert largest <= spectrum.norm_bound <= largest * (1 + 1e-6)
    assert spectrum.frobenius == pytest.approx(float(expected.norm()))
    limits = np.geomspace(0.01, 1.1, 7) * largest
    counts = spectrum.counts_below(limits)
    np.testing.assert_array_equal(counts.estimate, (expected.numpy()[:, None] < limits).sum(0))


LARGE = [name for name, (layer, _) in CASES.items() if not isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("seed", range(6))
def test_equal_values_below_the_edge_converge_from_every_start(seed: int) -> None:
    """Three values of sixteen copies each: the 20 largest reach into the second, far below the first."""
    layer, shape = drawn("1x1 padded")
    expected = torch.linalg.svdvals(dense_matrix(layer, shape))[:20]
    spectrum = layer_spectrum(layer, shape, method="lanczos", seed=seed)
    assert spectrum.top_status == "converged"
    torch.testing.assert_close(spectrum.top_values, expected, atol=TOLERANCE * float(expected[0]), rtol=0)


@pytest.mark.parametrize("name", LARGE)
def test_lanczos_agrees_with_the_dense_matrix(name: str) -> None:
    """The way for large layers, on small ones: the 20 largest to 1e-6, counts within their bars and within 1 %."""
    layer, shape = drawn(name)
    expected = torch.linalg.svdvals(dense_matrix(layer, shape)).numpy()
    spectrum = layer_spectrum(layer, shape, method="lanczos")
    assert (spectrum.method, spectrum.top_status) == ("lanczos", "converged")
    np.testing.assert_allclose(spectrum.top_values.numpy(), expected[:20], atol=TOLERANCE * expected[0], rtol=0)
    assert expected[0] <= spectrum.norm_bound
    assert spectrum.frobenius == pytest.approx(np.linalg.norm(expected))
    assert spectrum.smallest_status == "converged"
    np.testing.assert_allclose(
        spectrum.smallest_values.numpy(),
        expected[-len(spectrum.smallest_values) :],
        atol=TOLERANCE * expected[0],
        rtol=0,
    )


def test_counts_of_some_layers_are_within_their_bars() -> None:
    """Some kinds of layer, seven thresholds each: all but one in twenty inside the bars, errors up to 1 %."""
    check_counts(LARGE[::9])


@pytest.mark.large
def test_counts_of_all_layers_are_within_their_bars() -> None:
    """Every kind of layer, seven thresholds each: all but one in twenty inside the bars, errors up to 1 %."""
    check_counts(LARGE)


def check_counts(names: list[str]) -> None:
    inside, errors = [], []
    for name in names:
        layer, shape = drawn(name)
        if layer_spectrum(layer, shape).method != "dense":
            continue  # few values that occur often; known exactly, at any size
        expected = torch.linalg.svdvals(dense_matrix(layer, shape)).numpy()
        limits = np.unique([free_threshold(expected, share) for share in np.linspace(0.05, 0.95, 7)])
        true = (expected[:, None] < limits).sum(0)
        counts = layer_spectrum(layer, shape, method="lanczos", smallest=0).counts_below(limits)
        errors += list(np.abs(counts.estimate - true) / len(expected))
        inside += list((counts.low - 1e-6 <= true) & (true <= counts.high + 1e-6))
    assert np.mean(inside) >= 0.95
    assert np.quantile(errors, 0.95) <= 0.01


def free_threshold(values: np.ndarray, share: float) -> float:
    """A threshold near a share of the values, in the middle of the widest gap there: float32 has no say in it."""
    ordered = np.append(np.sort(values), 1.1 * values.max())
    first = int(share * len(values))
    gaps = np.diff(ordered[first : first + max(12, len(values) // 50)])
    start = first + int(gaps.argmax())
    return float(ordered[start : start + 2].mean())


def test_the_certified_bounds_hold() -> None:
    """Of each kind of layer: the bound of the norm, and the counts' ends from the larger circular map alone."""
    for name in LARGE:
        layer, shape = drawn(name)
        linear = linear_map(layer, shape)
        expected = torch.linalg.svdvals(dense_matrix(layer, shape)).numpy()
        spectrum = bounds(linear)
        limits = np.geomspace(0.03, 1.2, 9) * expected[0]
        low, high = spectrum.counts_below(limits, len(expected))
        true = (expected[:, None] < limits).sum(0)
        assert expected[0] <= spectrum.norm, name
        assert (low <= true).all(), name
        assert (true <= high).all(), name


def test_circular_padding_is_that_of_conv_singular_values() -> None:
    """padding="circular" takes the layer's options and ignores its padding; sizes that the stride misses are named."""
    layer, _ = drawn("stride 2")
    values, multiplicities = conv_singular_values(layer.weight, (8, 6), stride=2)
    spectrum = layer_spectrum(layer, (4, 8, 6), padding="circular")
    assert spectrum.values is not None
    assert torch.equal(torch.repeat_interleave(values, multiplicities)[:20], spectrum.top_values)
    with pytest.raises(UserError, match=r"input_size \(9, 8\) is no multiple of stride"):
        layer_spectrum(layer, (4, 9, 8), padding="circular")


@pytest.mark.parametrize("name", ["3x3", "stride 2", "3x3 wide", "transposed stride 2", "reflect", "1x1 stride 2"])
@pytest.mark.parametrize("method", ["auto", "lanczos"])
def test_vectors_are_stretched_by_their_values(name: str, method: str) -> None:
    """Right singular vectors are of length 1, and the layer makes each as long as its value."""
    layer, shape = drawn(name)
    spectrum = layer_spectrum(layer, shape, top=3, vectors=True, method=method)
    assert spectrum.top_vectors is not None
    assert tuple(spectrum.top_vectors.shape[1:]) == shape
    with torch.no_grad():
        stretched = layer(spectrum.top_vectors) - layer(torch.zeros_like(spectrum.top_vectors))
    assert spectrum.top_vectors.flatten(1).norm(dim=1).numpy() == pytest.approx(1, abs=1e-6)
    assert stretched.flatten(1).norm(dim=1).numpy() == pytest.approx(spectrum.top_values.numpy(), rel=1e-5)


def test_repeated_values_are_found_as_often_as_they_occur() -> None:
    """Eight equal channels: each value eight times, though a block of the iteration has four vectors."""
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False).double()
    layer.weight.data[:] = layer.weight.data[:1].clone()
    expected = torch.linalg.svdvals(dense_matrix(layer, (8, 7, 7))).numpy()
    spectrum = layer_spectrum(layer, (8, 7, 7), method="lanczos")
    np.testing.assert_allclose(spectrum.top_values.numpy(), expected[:20], atol=TOLERANCE * expected[0], rtol=0)


def test_a_layer_of_zeros_has_zeros() -> None:
    """As large ones, for which no iteration converges; any input is a singular vector of it, so none is given."""
    layer = nn.Conv2d(64, 64, 3, padding=1)
    nn.init.zeros_(layer.weight)
    spectrum = layer_spectrum(layer, (64, 56, 56))
    assert (spectrum.num_values, spectrum.norm_bound, spectrum.frobenius) == (64 * 56 * 56, 0, 0)
    assert spectrum.counts_below([0.1]).estimate == 64 * 56 * 56
    assert float(spectrum.top_values.max()) == 0
    with pytest.raises(UserError, match="the weight is zero"):
        layer_spectrum(layer, (64, 56, 56), vectors=True)


def test_bad_input_is_named() -> None:
    """No linear map, kernels larger than the input, weights that are not finite, empty layers, wrong shapes."""
    conv = nn.Conv2d(3, 4, 3)
    for layer, shape, message in (
        (nn.Embedding(4, 2), (4,), "Embedding has no linear map"),
        (nn.Bilinear(2, 2, 2), (2,), "Bilinear has no linear map"),
        (conv, (3, 2, 9), "a kernel of 3x3 is larger than its padded input of 2x9"),
        (conv, (4, 9, 9), r"input_shape \(4, 9, 9\): expected \(3, length, length\)"),
        (conv, (3, 9), "expected"),
        (nn.Linear(3, 2), (4,), r"expected \(\.\.\., 3\)"),
        (nn.Conv2d(3, 4, 3, padding=4, padding_mode="reflect"), (3, 4, 4), "reflect padding of 4 is more than"),
        (pads(nn.ConstantPad2d(1, 2.0), conv), (3, 9, 9), "adds a constant"),
        (pads(nn.ReLU(), conv), (3, 9, 9), "expected padding layers"),
    ):
        with pytest.raises(UserError, match=message):
            layer_spectrum(layer, shape)
    with torch.no_grad():
        conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        layer_spectrum(conv, (3, 9, 9))
    for option, message in (
        ({"padding": "zeros"}, "padding 'zeros'"),
        ({"method": "qr"}, "method"),
        ({"top": 0}, "top"),
    ):
        with pytest.raises(UserError, match=message):
            layer_spectrum(nn.Linear(3, 2), (3,), **option)
    with pytest.raises(UserError, match="thresholds"):
        layer_spectrum(nn.Linear(3, 2), (3,)).counts_below([-1.0])
