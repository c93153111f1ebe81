"""Singular values of convolutions against dense matrices, the published method, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from transferscope.analysis.spectrum import circular as spectrum
from transferscope.analysis.spectrum import conv_singular_values, linear_singular_values
from transferscope.system.errors import UserError


def dense_matrix(
    weight: Tensor,
    size: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """The map's matrix, by pushing every basis image through conv2d with circular padding.

    The padding is made by indexing modulo the size, since torch's own refuses to wrap around more than once.
    """
    channels = weight.shape[1] * groups
    images = torch.eye(channels * size[0] * size[1], dtype=torch.float64).reshape(-1, channels, *size)
    for axis in (0, 1):
        reach = (weight.shape[2 + axis] - 1) * dilation[axis]
        images = images.index_select(2 + axis, torch.arange(size[axis] + reach) % size[axis])
    outputs = functional.conv2d(images, weight, stride=stride, dilation=dilation, groups=groups)
    return outputs.flatten(1).T


def random_weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_values(result: tuple[Tensor, Tensor]) -> Tensor:
    return torch.repeat_interleave(*result)


def assert_equal_spectrum(result: tuple[Tensor, Tensor], expected: Tensor, tolerance: float = 1e-10) -> None:
    values = all_values(result)
    assert values.shape == expected.shape
    assert (values - expected).abs().max() <= tolerance * expected.max()


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3), (1, 3), (7, 5)])
@pytest.mark.parametrize(("c_out", "c_in", "groups"), [(3, 2, 1), (2, 5, 1), (4, 4, 2), (4, 4, 4), (6, 3, 3)])
def test_values_equal_those_of_the_dense_matrix(stride, dilation, kernel, c_out, c_in, groups):
    """Every option and method, on a rectangular input smaller than the largest kernel: equal to 1e-10 of the largest."""
    weight = random_weight(c_out, c_in // groups, *kernel)
    expected = torch.linalg.svdvals(dense_matrix(weight, (4, 6), stride, dilation, groups))
    for method in ("auto", "svd", "gram"):
        result = conv_singular_values(weight, (4, 6), stride=stride, dilation=dilation, groups=groups, method=method)
        assert_equal_spectrum(result, expected)


@pytest.mark.parametrize(("size", "stride"), [(5, 1), (6, 3), (8, 4), (1, 1), (2, 2), ((9, 3), (3, 1))])
def test_other_sizes_and_strides(size, stride):
    """Odd sizes, one pixel, and strides up to the kernel's size and beyond."""
    weight = random_weight(3, 2, 3, 3)
    pair = (size, size) if isinstance(size, int) else size
    steps = (stride, stride) if isinstance(stride, int) else stride
    expected = torch.linalg.svdvals(dense_matrix(weight, pair, steps))
    assert_equal_spectrum(conv_singular_values(weight, size, stride=stride), expected)


def test_torchs_own_circular_padding_is_the_same_map():
    """nn.Conv2d with padding_mode="circular" has these singular values: the padding's offset does not matter."""
    layer = torch.nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="circular", bias=False, dtype=torch.float64)
    with torch.no_grad():
        matrix = layer(torch.eye(2 * 36, dtype=torch.float64).reshape(-1, 2, 6, 6)).flatten(1).T
    assert_equal_spectrum(conv_singular_values(layer.weight, 6, stride=2), torch.linalg.svdvals(matrix))


def test_published_is_the_two_numpy_lines():
    """The method of Sedghi et al., which ignores stride and crops a kernel that is larger than the input."""
    for weight, size in ((random_weight(4, 3, 3, 3), (6, 5)), (random_weight(2, 3, 7, 7), (4, 5))):
        kernel = weight.permute(2, 3, 1, 0).numpy()
        expected = np.linalg.svd(np.fft.fft2(kernel, size, axes=[0, 1]), compute_uv=False)
        result = conv_singular_values(weight, size, stride=2, method="published")
        assert_equal_spectrum(result, torch.from_numpy(np.sort(expected.ravel())[::-1].copy()))


def test_results_are_float64_descending_with_whole_multiplicities():
    """Types and order of the results; the multiplicities add up to the smaller side of the matrix."""
    values, multiplicities = conv_singular_values(random_weight(5, 3, 3, 3).float(), 8)
    assert (values.dtype, multiplicities.dtype) == (torch.float64, torch.int64)
    assert (values.diff() <= 0).all()
    assert multiplicities.sum() == 3 * 64


def test_a_1x1_convolution_costs_one_decomposition():
    """Its values are the matrix's, once per pixel; with a stride it skips inputs, which gives zeros."""
    weight = random_weight(6, 4, 1, 1)
    values, multiplicities = conv_singular_values(weight, 56)
    np.testing.assert_allclose(values, torch.linalg.svdvals(weight[:, :, 0, 0]))
    assert multiplicities.tolist() == [56 * 56] * 4
    values, multiplicities = conv_singular_values(weight, 56, stride=2)
    np.testing.assert_allclose(values[:4], torch.linalg.svdvals(weight[:, :, 0, 0]))
    assert multiplicities.tolist() == [28 * 28] * 4 + [2 * 28 * 28]
    assert values[4] == 0


def test_patches_that_do_not_overlap_cost_one_decomposition():
    """A vision transformer's patch embedding is one matrix, repeated for each patch."""
    weight = random_weight(5, 3, 4, 4)
    values, multiplicities = conv_singular_values(weight, 32, stride=4)
    np.testing.assert_allclose(values, torch.linalg.svdvals(weight.flatten(1)))
    assert multiplicities.tolist() == [64] * 5


def test_identity_has_only_ones():
    """A delta kernel is a shift of the image, an orthogonal map."""
    weight = torch.zeros(3, 3, 3, 3, dtype=torch.float64)
    weight[range(3), range(3), 1, 2] = 1
    assert_equal_spectrum(conv_singular_values(weight, 7), torch.ones(3 * 49, dtype=torch.float64))


def test_frobenius_norm_of_the_map():
    """The sum of squares is the kernel's, once per output pixel, also with stride, dilation and groups."""
    weight = random_weight(6, 2, 3, 3)
    values, multiplicities = conv_singular_values(weight, 12, stride=2, dilation=2, groups=3)
    np.testing.assert_allclose((multiplicities * values**2).sum(), 36 * (weight**2).sum())


def test_linear_layers_are_decomposed_directly():
    """The values of a matrix, each once."""
    weight = random_weight(4, 9)
    values, multiplicities = linear_singular_values(weight)
    np.testing.assert_allclose(values, torch.linalg.svdvals(weight))
    assert multiplicities.tolist() == [1] * 4


def graded_weight(smallest: float) -> tuple[Tensor, Tensor]:
    """A 3x3 convolution with known values from 1 down to `smallest`: a matrix times shifts along both axes."""
    left, right = (torch.linalg.qr(random_weight(6, 6, seed=seed)).Q for seed in (1, 2))
    known = torch.logspace(0, np.log10(smallest), 6, dtype=torch.float64)
    weight = torch.zeros(6, 6, 3, 3, dtype=torch.float64)
    for i in range(6):
        weight[:, :, i % 3, i // 3] += known[i] * torch.outer(left[:, i], right[:, i])
    return weight, known


@pytest.mark.parametrize(("method", "smallest"), [("gram", 1e-6), ("svd", 1e-12), ("auto", 1e-12)])
def test_small_values_are_accurate(method, smallest):
    """To 1 %: Gram matrices down to 1e-6 of the largest value, the SVD and `auto` down to 1e-12."""
    weight, known = graded_weight(smallest)
    values, multiplicities = conv_singular_values(weight, 6, method=method)
    expected = torch.repeat_interleave(known, 36)
    assert ((torch.repeat_interleave(values, multiplicities) / expected - 1).abs() < 0.01).all()


def test_gram_alone_loses_the_smallest_values():
    """Why `auto` exists: at 1e-12 the Gram matrix's eigenvalues are rounding."""
    weight, known = graded_weight(1e-12)
    values, _ = conv_singular_values(weight, 6, method="gram")
    assert abs(values[-1] / known[-1] - 1) > 1


def test_auto_takes_the_svd_only_where_needed(monkeypatch):
    """A well-conditioned layer is done by Gram matrices alone; a graded one sends all its blocks to the SVD."""
    decomposed = []
    original = spectrum.singular_values

    def counted(batches):
        taken = list(batches)
        decomposed.extend(batch.shape[1] for batch in taken)
        return original(taken)

    monkeypatch.setattr(spectrum, "singular_values", counted)
    conv_singular_values(random_weight(4, 8, 3, 3), 6)
    assert decomposed == []
    conv_singular_values(graded_weight(1e-9)[0], 6)
    assert sum(decomposed) == 20  # of 36 frequencies 4 are their own conjugate, the other 32 are pairs


@pytest.mark.parametrize("method", ["auto", "svd"])
def test_a_few_frequencies_at_a_time_give_what_all_at_once_give(monkeypatch, method):
    """Values and their order do not depend on how much memory is used."""
    weight = random_weight(6, 8, 3, 3)
    together = conv_singular_values(weight, (10, 8), stride=(2, 1), method=method)
    monkeypatch.setattr(spectrum, "CHUNK_BYTES", 7 * 16 * 6 * 6)
    for one, other in zip(together, conv_singular_values(weight, (10, 8), stride=(2, 1), method=method), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=0)


def test_zero_weights_have_zero_values():
    """Fixup's last convolutions are zero at epoch 0."""
    for method in ("auto", "svd"):
        values, multiplicities = conv_singular_values(torch.zeros(3, 4, 3, 3), 6, method=method)
        assert values.max() == 0
        assert multiplicities.sum() == 3 * 36


def test_chunks_do_not_change_the_values(monkeypatch):
    """Blocks are decomposed a few at a time to bound memory."""
    weight = random_weight(4, 3, 3, 3)
    whole = conv_singular_values(weight, 8)
    monkeypatch.setattr(spectrum, "CHUNK_BYTES", 1000)
    for method in ("auto", "svd"):
        assert_equal_spectrum(conv_singular_values(weight, 8, method=method), all_values(whole), 1e-14)


def test_the_number_of_threads_does_not_change_the_values():
    """Sharing blocks between threads gives the same bytes as one thread."""
    weight = random_weight(8, 8, 3, 3)
    num_threads = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(conv_singular_values(weight, 10)[0])
    finally:
        torch.set_num_threads(num_threads)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("shape", "size", "options", "message"),
    [
        ((3, 3), 4, {}, r"expected \(c_out, c_in/groups, height, width\)"),
        ((3, 3, 3), 4, {}, r"weight of shape \(3, 3, 3\)"),
        ((0, 3, 3, 3), 4, {}, "is empty"),
        ((3, 3, 3, 3), 0, {}, "input_size 0: expected one or two whole numbers of at least 1"),
        ((3, 3, 3, 3), (4, 4, 4), {}, r"input_size \(4, 4, 4\)"),
        ((3, 3, 3, 3), 4, {"stride": 0}, "stride 0"),
        ((3, 3, 3, 3), 4, {"dilation": (1, 0)}, r"dilation \(1, 0\)"),
        ((3, 3, 3, 3), 4, {"groups": 2}, "groups 2: must divide the 3 output channels"),
        ((3, 3, 3, 3), 7, {"stride": 2}, r"\(7, 7\) is no multiple of stride \(2, 2\): give \(8, 8\)"),
        ((3, 3, 3, 3), 4, {"method": "fft"}, "expected one of auto, gram, svd, published"),
    ],
)
def test_bad_input_is_named(shape, size, options, message):
    """Wrong rank, sizes below 1, a stride that does not divide the input, unknown method: one-line errors."""
    with pytest.raises(UserError, match=message):
        conv_singular_values(torch.ones(shape), size, **options)


def test_weights_that_are_not_finite_are_refused():
    """A diverged run has no spectrum."""
    weight = random_weight(3, 3, 3, 3)
    weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        conv_singular_values(weight, 4)
    with pytest.raises(UserError, match="a linear layer's has two dimensions"):
        linear_singular_values(weight)
