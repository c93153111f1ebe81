"""A circular convolution as a set of small matrices, one for each frequency.

A convolution with circular padding commutes with shifts by the stride, so the Fourier transform splits it into blocks.
For stride 1 the block of a frequency is the transformed kernel there, c_out x c_in (Sedghi, Gupta and Long 2019).
For stride s the input is first sorted by its position modulo s (its phase): this is a permutation, so singular values
stay, and it leaves a convolution of stride 1 on the grid of outputs with up to s*s times as many input channels.
Equally, the s*s input frequencies that alias onto one output frequency form one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConvOperator:
    """A convolution of stride 1 on a torus; its blocks hold all singular values but repeats and structural zeros."""

    taps: Tensor
    """float64 (groups, num_taps, rows, columns): the matrix at each tap; rows are outputs, columns (phase, channel)."""
    positions: Tensor
    """int64 (num_taps, num_axes): where the taps lie on the grid."""
    grid: tuple[int, ...]
    """Frequencies that differ along each axis."""
    repeats: int
    """Number of times that each block occurs; above 1 where an axis has one tap, so that all its frequencies agree."""
    num_structural_zeros: int
    """Singular values that are 0 for any weights, since the stride skips inputs that no tap reads."""


def conv_operator(
    weight: Tensor, input_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> ConvOperator:
    """Sort the taps of `weight` (c_out, c_in/groups, *kernel) by phase and wrap them around the torus.

    The stride must divide the input size. The padding's offset is a cyclic shift and drops out.
    """
    rows, channels = weight.shape[0] // groups, weight.shape[1]
    outputs = tuple(size // step for size, step in zip(input_size, stride, strict=True))
    tap_index = phase_index = torch.zeros((), dtype=torch.int64)
    distinct, num_phases = [], 1
    for kernel, size, step, gap in zip(weight.shape[2:], input_size, stride, dilation, strict=True):
        taps_here, phases_here = _sort_axis(kernel, size, step, gap)
        distinct_here, tap_here = taps_here.unique(return_inverse=True)
        used_here, phase_here = phases_here.unique(return_inverse=True)
        tap_index = tap_index[..., None] * len(distinct_here) + tap_here
        phase_index = phase_index[..., None] * len(used_here) + phase_here
        distinct.append(distinct_here)
        num_phases *= len(used_here)

    num_taps = prod(len(positions) for positions in distinct)
    kernel_taps = weight.to(torch.float64).flatten(2).movedim(-1, 0)
    sorted_taps = kernel_taps.new_zeros(num_taps * num_phases, *kernel_taps.shape[1:])
    place = (tap_index * num_phases + phase_index).flatten().to(weight.device)
    sorted_taps.index_add_(0, place, kernel_taps.contiguous())
    taps = sorted_taps.reshape(num_taps, num_phases, groups, rows, channels).permute(2, 0, 3, 1, 4).flatten(3)

    grid = tuple(size if len(positions) > 1 else 1 for size, positions in zip(outputs, distinct, strict=True))
    num_missing = min(rows, channels * prod(stride)) - min(rows, taps.shape[-1])
    return ConvOperator(
        taps=taps,
        positions=_all_pairs(distinct).to(weight.device),
        grid=grid,
        repeats=prod(outputs) // prod(grid),
        num_structural_zeros=groups * prod(outputs) * num_missing,
    )


def _all_pairs(axes: list[Tensor]) -> Tensor:
    """Every combination of one number from each axis, the last axis first to change: (num, num_axes)."""
    return torch.cartesian_prod(*axes).reshape(-1, len(axes))


def _places(grid: tuple[int, ...]) -> Tensor:
    """Weight of each axis in the number of a grid's position: int64 (num_axes,)."""
    return torch.tensor([prod(grid[axis + 1 :]) for axis in range(len(grid))])


def _sort_axis(kernel: int, size: int, stride: int, dilation: int) -> tuple[Tensor, Tensor]:
    """Position on the output grid and phase of every tap along one axis."""
    positions = (dilation * torch.arange(kernel)) % size
    return positions // stride, positions % stride


def half_of_the_frequencies(grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """One frequency of each pair f, -f, with how many it stands for: int64 (n, num_axes) and (n,) in {1, 2}.

    The kernel is real, so the blocks of f and -f are conjugate and have the same singular values.
    """
    frequencies = _all_pairs([torch.arange(length) for length in grid])
    size = torch.tensor(grid)
    index = frequencies @ _places(grid)
    partner = (-frequencies % size) @ _places(grid)
    kept = index <= partner
    return frequencies[kept], torch.where(index == partner, 1, 2)[kept]


def phase_angles(frequencies: Tensor, positions: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Angles 2 pi f.q of all frequencies and positions, reduced modulo one turn in integers: (n, num_positions)."""
    turns = torch.zeros(len(frequencies), len(positions), dtype=torch.float64, device=positions.device)
    for axis, size in enumerate(grid):
        product = frequencies[:, axis, None].to(positions.device) * positions[None, :, axis]
        turns += (product % size).to(torch.float64) / size
    return 2 * torch.pi * turns


def blocks(operator: ConvOperator, frequencies: Tensor) -> Tensor:
    """The blocks of all groups at n frequencies: complex128 (groups, n, rows, columns)."""
    angles = phase_angles(frequencies, operator.positions, operator.grid)
    return _fourier_sum(angles, operator.taps, operator.taps)


def lag_sums(operator: ConvOperator) -> tuple[Tensor, Tensor, Tensor]:
    """The autocorrelation R of the taps: B(f) B(f)^H = sum over lags of R(lag) exp(-2 pi i f.lag).

    Returns one lag of each pair lag, -lag as int64 (n, num_axes), and R + R^T and R - R^T as float64 (groups, n, size,
    size), where size is the smaller of rows and columns (for columns it is B^H B). R(-lag) is the transpose of R(lag),
    so half of them suffice; lags that are their own negative are halved, so that adding the transpose restores them.
    """
    taps, positions, grid = operator.taps, operator.positions, operator.grid
    if taps.shape[2] > taps.shape[3]:
        taps, positions = taps.mT, -positions
    size = torch.tensor(grid, device=positions.device)
    strides = _places(grid).to(positions.device)
    differences = positions[:, None] - positions
    index = (differences % size * strides).sum(-1)
    partner = (-differences % size * strides).sum(-1)
    distinct, number = torch.minimum(index, partner).unique(return_inverse=True)

    groups, num_taps, rows, _ = taps.shape
    sums = taps.new_zeros(groups, len(distinct), rows, rows)
    of_pair, mirrored = number.tolist(), (partner < index).tolist()
    for t in range(num_taps):
        for other in range(t + 1):
            first, second = (other, t) if mirrored[t][other] else (t, other)
            of_lag = sums[:, of_pair[t][other]]
            of_lag.baddbmm_(taps[:, first], taps[:, second].mT, alpha=0.5 if t == other else 1.0)
    lags = torch.stack([distinct // place % length for place, length in zip(strides, grid, strict=True)], dim=-1)
    return lags, sums + sums.mT, sums - sums.mT


def gram_matrices(lags: Tensor, even: Tensor, odd: Tensor, frequencies: Tensor, grid: tuple[int, ...]) -> Tensor:
    """B B^H (or B^H B) at n frequencies from `lag_sums`: complex128 (groups, n, size, size)."""
    return _fourier_sum(phase_angles(frequencies, lags, grid), even, odd)


def _fourier_sum(angles: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """Sum over positions of cos(angle) even - i sin(angle) odd: (groups, n, rows, columns)."""
    shape = even.shape[2:]
    real = torch.cos(angles) @ even.flatten(2)
    imaginary = -torch.sin(angles) @ odd.flatten(2)
    return torch.complex(real, imaginary).unflatten(-1, shape)
