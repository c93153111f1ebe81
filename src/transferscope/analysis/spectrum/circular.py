"""All singular values of convolutions and linear layers (appendix C; Sedghi, Gupta and Long, ICLR 2019)."""

from __future__ import annotations

from collections.abc import Iterator
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
from transferscope.system.errors import UserError

Method = Literal["auto", "gram", "svd", "published"]
METHODS = ("auto", "gram", "svd", "published")
AXES = {2: "two", 3: "three"}

GRAM_LIMIT = 1e-6
"""Below this part of a block's largest singular value its Gram eigenvalues are not trusted and `auto` takes the SVD.

The error of an eigenvalue is about 1e-15 of the largest one, so at 1e-6 a singular value is still good to about 1e-3.
"""
CHUNK_BYTES = 16 * 2**20
"""Largest size of the complex matrices that are made at once; as many are being decomposed meanwhile."""


def conv_singular_values(
    weight: Tensor,
    input_size: int | tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    method: Method = "auto",
) -> tuple[Tensor, Tensor]:
    """All singular values of a convolution with circular padding, as the linear map of a whole image.

    weight: (c_out, c_in/groups, k_h, k_w), or with three axes; input_size: height and width of the layer's input in
    pixels (one number for a square). Kernels may be larger than the input: they wrap around. The stride must divide the
    input size, since the map is block-diagonal only then.

    Returns values, float64 and descending, and how often each occurs, int64. The multiplicities add up to the smaller
    side of the map's matrix: min(c_out*outputs, c_in*inputs). Where a stride skips inputs that no tap reads (a 1x1
    kernel of stride 2) the map's zeros are among them.

    method: "svd" decomposes the block of every frequency; "gram" takes the eigenvalues of its Gram matrix, about twice
    as fast and good to 1 % down to about 1e-7 of the block's largest value; "auto" is "gram" with "svd" for the blocks
    that reach below 1e-6. All are float64. "published" ignores stride and dilation and crops kernels to the input, as
    the two NumPy lines of Sedghi et al. do: another map wherever these are not 1.
    """
    axes = weight.ndim - 2
    if axes not in (2, 3):
        raise UserError(f"weight of shape {tuple(weight.shape)}: expected (c_out, c_in/groups, height, width)")
    size, stride, dilation = (
        _each_axis(name, value, axes)
        for name, value in (("input_size", input_size), ("stride", stride), ("dilation", dilation))
    )
    _check_conv(weight, size, stride, groups, method)
    if method == "published":
        cropped = weight
        for axis, length in enumerate(size):
            cropped = cropped.narrow(2 + axis, 0, min(length, cropped.shape[2 + axis]))
        weight, stride, dilation, method = cropped, (1,) * axes, (1,) * axes, "auto"
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
        # Blocks of one row or column (depthwise convolutions) have their norm as the only singular value.
        norms = [torch.linalg.vector_norm(part, dim=(2, 3)) for part in _blocks(operator, frequencies)]
        block_values = torch.cat(norms, dim=1).unsqueeze(-1).cpu()
    elif method == "svd":
        block_values = _by_svd(operator, frequencies)
    else:
        block_values = _by_gram(operator, frequencies)
        if method == "auto":
            _settle_by_svd(operator, frequencies, block_values)
    multiplicities = (weights * operator.repeats)[None, :, None].expand(block_values.shape)
    return block_values.flatten(), multiplicities.flatten()


def _by_svd(operator: ConvOperator, frequencies: Tensor) -> Tensor:
    return singular_values(_blocks(operator, frequencies)).cpu()


def _by_gram(operator: ConvOperator, frequencies: Tensor) -> Tensor:
    """Square roots of the eigenvalues of the blocks' Gram matrices, descending; rounding may leave some below 0."""
    eigenvalues = hermitian_eigenvalues(_gram_matrices(operator, frequencies))
    return eigenvalues.cpu().clamp_min(0).sqrt().flip(-1)


def _gram_matrices(operator: ConvOperator, frequencies: Tensor) -> Iterator[Tensor]:
    """The blocks' Gram matrices, a few frequencies at a time.

    They come from the taps' autocorrelation, where that is cheaper than multiplying the blocks: t taps need t*t/2 real
    products of matrices once, the blocks a complex one (worth four) at each frequency.
    """
    groups, num_taps, rows, columns = operator.taps.shape
    if num_taps**2 > 8 * len(frequencies):
        for part in _blocks(operator, frequencies):
            matrices = part.mH if rows > columns else part
            yield matrices @ matrices.mH
        return
    lags, even, odd = lag_sums(operator)
    for chunk in _chunks(frequencies, groups * min(rows, columns) ** 2):
        yield _real_if_single(operator, gram_matrices(lags, even, odd, chunk, operator.grid))


def _blocks(operator: ConvOperator, frequencies: Tensor) -> Iterator[Tensor]:
    """The blocks of all groups, a few frequencies at a time: (groups, num_frequencies, rows, columns)."""
    groups, _, rows, columns = operator.taps.shape
    for chunk in _chunks(frequencies, groups * rows * columns):
        yield _real_if_single(operator, blocks(operator, chunk))


def _chunks(frequencies: Tensor, num_values: int) -> tuple[Tensor, ...]:
    """As many frequencies at a time as their complex values may take memory."""
    return frequencies.split(max(1, CHUNK_BYTES // (16 * num_values)))


def _real_if_single(operator: ConvOperator, matrices: Tensor) -> Tensor:
    """With a single tap every block is that tap: real, at a quarter of the cost."""
    return matrices.real.contiguous() if operator.taps.shape[1] == 1 else matrices


def _settle_by_svd(operator: ConvOperator, frequencies: Tensor, block_values: Tensor) -> None:
    """Replace, in place, the values of the blocks whose smallest one is beyond the reach of a Gram matrix."""
    doubtful = block_values[..., -1] < GRAM_LIMIT * block_values[..., 0]
    for group in doubtful.any(dim=1).nonzero().flatten().tolist():
        one_group = ConvOperator(
            operator.taps[group : group + 1], operator.positions, operator.grid, operator.repeats, 0
        )
        chosen = doubtful[group]
        block_values[group, chosen] = _by_svd(one_group, frequencies[chosen])[0]


def _each_axis(name: str, value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    numbers = (value,) * axes if isinstance(value, int) else tuple(int(part) for part in value)
    if len(numbers) != axes or min(numbers) < 1:
        raise UserError(f"{name} {value}: expected one or {AXES[axes]} whole numbers of at least 1")
    return numbers


def _check_conv(weight: Tensor, size: tuple[int, ...], stride: tuple[int, ...], groups: int, method: str) -> None:
    if method not in METHODS:
        raise UserError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    if weight.numel() == 0:
        raise UserError(f"weight of shape {tuple(weight.shape)} is empty")
    if not torch.isfinite(weight).all():
        raise UserError("weight holds values that are not finite: the training has diverged or the file is damaged")
    if groups < 1 or weight.shape[0] % groups:
        raise UserError(f"groups {groups}: must divide the {weight.shape[0]} output channels")
    if method != "published" and any(length % step for length, step in zip(size, stride, strict=True)):
        multiple = next_multiples(size, stride)
        raise UserError(f"input_size {size} is no multiple of stride {stride}: give {multiple}, the next one that is")


def next_multiples(size: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    """The smallest lengths of at least `size` that the stride divides."""
    return tuple(-(-length // step) * step for length, step in zip(size, stride, strict=True))
