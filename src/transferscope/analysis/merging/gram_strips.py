"""Gram matrices of layers in strips of rows, so that a matrix larger than memory can be summed, factored and solved.

A strip holds some rows of a symmetric matrix from their diagonal on, in float64: together they are its upper triangle.
A strip that waits lies in a file without a name and is mapped from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transferscope.system.scratch import scratch_array

TALLEST = 256
"""Rows of a strip; the blocks of its diagonal are squares, so that higher ones take more than a triangle."""
COLUMNS = 64
"""Columns of a product at a time, so that it is small beside the matrix."""


@dataclass
class GramStrip:
    """Rows `start` to `stop` of the Gram matrices of `groups` groups of `size` inputs, from column `start` on."""

    start: int
    stop: int
    size: int
    groups: int
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    """(groups, stop - start, size - start), float64; empty before `begin`."""

    @property
    def num_bytes(self) -> int:
        """The size of its values."""
        return 8 * self.groups * (self.stop - self.start) * (self.size - self.start)

    @property
    def rows(self) -> slice:
        """Its place in a vector of the inputs."""
        return slice(self.start, self.stop)

    def begin(self, device: torch.device) -> None:
        """Start from zeros in memory."""
        shape = (self.groups, self.stop - self.start, self.size - self.start)
        self.values = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, inputs: Tensor) -> None:
        """Add the products of examples, which are the columns of (groups, size, examples)."""
        self.values.baddbmm_(inputs[:, self.rows], inputs[:, self.start :].mT)

    def diagonal(self) -> Tensor:
        """(groups, stop - start), a view."""
        return self.values.diagonal(dim1=1, dim2=2)

    def add_product(self, right: Tensor, non_diagonal: float, total: Tensor) -> None:
        """Add this part of the matrix times `right` to `total`, both (groups, size, columns) in float64.

        Entries off the diagonal count `non_diagonal` times.
        """
        for first in range(0, right.shape[2], COLUMNS):
            columns = slice(first, first + COLUMNS)
            some, own = right[:, self.start :, columns], right[:, self.rows, columns]
            upper = non_diagonal * (self.values @ some)
            upper += (1 - non_diagonal) * self.diagonal()[..., None] * own
            total[:, self.rows, columns] += upper.to(total.device)
            lower = self.values[:, :, self.stop - self.start :].mT @ own
            total[:, self.stop :, columns] += lower.mul_(non_diagonal).to(total.device)

    def scale_off_diagonal(self, factor: float) -> None:
        """Multiply what is not on the diagonal."""
        kept = self.diagonal().clone()
        self.values *= factor
        self.diagonal().copy_(kept)

    def set_aside(self) -> None:
        """Move the values to a file, from which they are mapped."""
        self.values = in_a_file(self.values)


def strips_of(size: int, groups: int, largest: int) -> list[GramStrip]:
    """The strips of a matrix, none of which takes more than `largest` bytes, a single row aside."""
    height = max(1, min(TALLEST, largest // (8 * groups * size)))
    return [GramStrip(start, min(start + height, size), size, groups) for start in range(0, size, height)]


def in_a_file(tensor: Tensor) -> Tensor:
    """The same values on the CPU, mapped from a file without a name."""
    kept = zeros_in_a_file(tensor.shape, tensor.dtype)
    kept.copy_(tensor)
    return kept


def zeros_in_a_file(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros on the CPU, mapped from a file without a name."""
    return torch.from_numpy(scratch_array(shape, torch.empty(0, dtype=dtype).numpy().dtype))


def factor(strips: Sequence[GramStrip], device: torch.device) -> None:
    """Replace a positive definite matrix G by the upper triangular U with U^T U = G, strip by strip.

    The left-looking blocked Cholesky factorisation (Golub and Van Loan, *Matrix Computations*, section 4.2): two strips
    are in memory at a time. Groups whose matrix is not positive definite, as that of overflowed inputs is not, become
    NaN.
    """
    for place, strip in enumerate(strips):
        own = strip.values.to(device)
        for above, columns in _above(strips[:place], strip, device):
            own.baddbmm_(above[:, :, columns].mT, above[:, :, columns.start :], alpha=-1)
        height = strip.stop - strip.start
        corner, faults = torch.linalg.cholesky_ex(own[:, :, :height], upper=True)
        own[:, :, :height] = corner.masked_fill_((faults != 0)[:, None, None], torch.nan)
        if strip.stop < strip.size:
            own[:, :, height:] = torch.linalg.solve_triangular(corner.mT, own[:, :, height:], upper=False)
        strip.values.copy_(own)


def _above(strips: Sequence[GramStrip], below: GramStrip, device: torch.device) -> Iterator[tuple[Tensor, slice]]:
    """Each earlier strip, and its columns that are the rows of `below`."""
    for strip in strips:
        yield strip.values.to(device), slice(below.start - strip.start, below.stop - strip.start)


def solve_factored(strips: Sequence[GramStrip], right: Tensor) -> Tensor:
    """Solve U^T U x = `right`, (groups, size, columns) in float64, which is overwritten by x."""
    for strip in strips:
        values, height = strip.values.to(right.device), strip.stop - strip.start
        own = torch.linalg.solve_triangular(values[:, :, :height].mT, right[:, strip.rows], upper=False)
        right[:, strip.rows] = own
        right[:, strip.stop :].baddbmm_(values[:, :, height:].mT, own, alpha=-1)
    for strip in reversed(strips):
        values, height = strip.values.to(right.device), strip.stop - strip.start
        right[:, strip.rows].baddbmm_(values[:, :, height:], right[:, strip.stop :], alpha=-1)
        own = torch.linalg.solve_triangular(values[:, :, :height], right[:, strip.rows], upper=True)
        right[:, strip.rows] = own
    return right
