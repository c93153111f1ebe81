"""All singular values of convolutions and linear layers (appendix C; Sedghi, Gupta and Long, ICLR 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from transferscope.analysis.conv_operator import (
    ConvOperator,
    blocks,
    conv_operator,
    gram_matrices,
    half_of_the_frequencies,
    lag_sums,
)
from transferscope.analysis.decompositions import hermitian_eigenvalues, singular_values
from transferscope.errors import UserError

Method = Literal["auto", "gram", "svd", "published"]
METHODS = ("auto", "gram", "svd", "published")

GRAM_LIMIT = 1e-6
"""Below this part of a block's largest singular value its Gram eigenvalues are not trusted and `auto` takes the SVD.

The error of an eigenvalue is about 1e-15 of the largest one, so at 1e-6 a singular value is still good to about 1e-3.
"""
CHUNK_BYTES = 32 * 2**20
"""Largest size of the complex matrices held at once."""


def conv_singular_values(
    weight: Tensor,
    input_size: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    method: Method = "auto",
) -> tuple[Tensor, Tensor]:
    """All singular values of a convolution with circular padding, as the linear map of a whole image.

    weight: (c_out, c_in/groups, k_h, k_w); input_size: height and width of the layer's input in pixels (one number for
    a square). Kernels may be larger than the input: they wrap around. The stride must divide the input size, since the
    map is block-diagonal only then.

    Returns values, float64 and descending, and how often each occurs, int64. The multiplicities add up to the smaller
    side of the map's matrix: min(c_out*outputs, c_in*inputs). Where a stride skips inputs that no tap reads (a 1x1
    kernel of stride 2) the map's zeros are among them.

    method: "svd" decomposes the block of every frequency; "gram" takes the eigenvalues of its Gram matrix, about twice
    as fast and good to 1 % down to about 1e-7 of the block's largest value; "auto" is "gram" with "svd" for the blocks
    that reach below 1e-6. All are float64. "published" ignores stride and dilation and crops kernels to the input, as
    the two NumPy lines of Sedghi et al. do: another map wherever these are not 1.
    """
    size, stride, dilation = _pair("input_size", input_size), _pair("stride", stride), _pair("dilation", dilation)
    _check_conv(weight, size, stride, groups, method)
    if method == "published":
        weight, stride, dilation, method = weight[..., : size[0], : size[1]], (1, 1), (1, 1), "auto"
    operator = conv_operator(weight.detach(), size, stride, dilation, groups)
    values, multiplicities = _operator_values(operator, method)
    if operator.num_structural_zeros:
        values = torch.cat([values, values.new_zeros(1)])
        multiplicities = torch.cat([multiplicities, torch.tensor([operator.num_structural_zeros])])
    order = torch.argsort(values, descending=True, stable=True)
    return values[order], multiplicities[order]


def linear_singular_values(weight: Tensor, *, method: Method = "auto") -> tuple[Tensor, Tensor]:
    """All singular values of a linear layer's weight (num_outputs, num_inputs), as `conv_singular_values` does."""
    if weight.ndim != 2:
        raise UserError(f"weight of shape {tuple(weight.shape)}: a linear layer's has two dimensions")
    return conv_singular_values(weight[:, :, None, None], 1, method=method)


def _operator_values(operator: ConvOperator, method: Method) -> tuple[Tensor, Tensor]:
    """Values of all blocks, unsorted, on the CPU, with their multiplicities."""
    frequencies, weights = half_of_the_frequencies(operator.grid)
    rows, columns = operator.taps.shape[2:]
    if min(rows, columns) == 1:
        block_values = _in_chunks(operator, frequencies, _norms)
    elif method == "svd":
        block_values = _in_chunks(operator, frequencies, _by_svd)
    else:
        block_values = _by_gram(operator, frequencies)
        if method == "auto":
            _settle_by_svd(operator, frequencies, block_values)
    multiplicities = (weights * operator.repeats)[None, :, None].expand(block_values.shape)
    return block_values.flatten(), multiplicities.flatten()


def _in_chunks(
    operator: ConvOperator, frequencies: Tensor, decompose: Callable[[ConvOperator, Tensor], Tensor]
) -> Tensor:
    """Apply `decompose` to the blocks of a few frequencies at a time: (groups, num_frequencies, num_values)."""
    groups, _, rows, columns = operator.taps.shape
    step = max(1, CHUNK_BYTES // (16 * groups * rows * columns))
    return torch.cat([decompose(operator, part) for part in frequencies.split(step)], dim=1)


def _norms(operator: ConvOperator, frequencies: Tensor) -> Tensor:
    """Blocks of one row or column (depthwise convolutions) have their norm as the only singular value."""
    return torch.linalg.vector_norm(blocks(operator, frequencies), dim=(2, 3)).unsqueeze(-1).cpu()


def _by_svd(operator: ConvOperator, frequencies: Tensor) -> Tensor:
    return singular_values(_real_if_single(operator, blocks(operator, frequencies))).cpu()


def _real_if_single(operator: ConvOperator, matrices: Tensor) -> Tensor:
    """With a single tap every block is that tap: real, at a quarter of the cost."""
    return matrices.real.contiguous() if operator.taps.shape[1] == 1 else matrices


def _by_gram(operator: ConvOperator, frequencies: Tensor) -> Tensor:
    """Square roots of the eigenvalues of the blocks' Gram matrices, descending.

    The matrices come from the taps' autocorrelation, where that is cheaper than multiplying the blocks: t taps need
    t*t/2 real products of matrices once, the blocks a complex one (worth four) at each frequency.
    """
    num_taps = operator.taps.shape[1]
    if num_taps**2 > 8 * len(frequencies):
        return _in_chunks(operator, frequencies, _by_gram_of_blocks)
    lags, even, odd = lag_sums(operator)
    step = max(1, CHUNK_BYTES // (16 * even.shape[0] * even.shape[-1] ** 2))

    def decompose(part: Tensor) -> Tensor:
        gram = _real_if_single(operator, gram_matrices(lags, even, odd, part, operator.grid))
        return _roots(hermitian_eigenvalues(gram))

    return torch.cat([decompose(part) for part in frequencies.split(step)], dim=1)


def _by_gram_of_blocks(operator: ConvOperator, frequencies: Tensor) -> Tensor:
    matrices = blocks(operator, frequencies)
    if matrices.shape[2] > matrices.shape[3]:
        matrices = matrices.mH
    return _roots(hermitian_eigenvalues(matrices @ matrices.mH))


def _roots(eigenvalues: Tensor) -> Tensor:
    """Descending singular values; rounding may leave eigenvalues a little below 0."""
    return eigenvalues.cpu().clamp_min(0).sqrt().flip(-1)


def _settle_by_svd(operator: ConvOperator, frequencies: Tensor, block_values: Tensor) -> None:
    """Replace, in place, the values of the blocks whose smallest one is beyond the reach of a Gram matrix."""
    doubtful = block_values[..., -1] < GRAM_LIMIT * block_values[..., 0]
    for group in doubtful.any(dim=1).nonzero().flatten().tolist():
        one_group = ConvOperator(
            operator.taps[group : group + 1], operator.positions, operator.grid, operator.repeats, 0
        )
        chosen = doubtful[group]
        block_values[group, chosen] = _in_chunks(one_group, frequencies[chosen], _by_svd)[0]


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(int(part) for part in value)
    if len(pair) != 2 or min(pair) < 1:
        raise UserError(f"{name} {value}: expected one or two whole numbers of at least 1")
    return pair


def _check_conv(weight: Tensor, size: tuple[int, int], stride: tuple[int, int], groups: int, method: str) -> None:
    if method not in METHODS:
        raise UserError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    if weight.ndim != 4:
        raise UserError(f"weight of shape {tuple(weight.shape)}: expected (c_out, c_in/groups, height, width)")
    if weight.numel() == 0:
        raise UserError(f"weight of shape {tuple(weight.shape)} is empty")
    if not torch.isfinite(weight).all():
        raise UserError("weight holds values that are not finite: the training has diverged or the file is damaged")
    if groups < 1 or weight.shape[0] % groups:
        raise UserError(f"groups {groups}: must divide the {weight.shape[0]} output channels")
    if method != "published" and (size[0] % stride[0] or size[1] % stride[1]):
        multiple = tuple(-(-length // step) * step for length, step in zip(size, stride, strict=True))
        raise UserError(f"input_size {size} is no multiple of stride {stride}: give {multiple}, the next one that is")
