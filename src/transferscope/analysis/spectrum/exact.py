"""All singular values of a map by dense decompositions: as a whole, by groups, or by output positions.

Where every input pixel is read by one output position (1x1 convolutions of any stride, patch convolutions), the map is
a direct sum of one small matrix for each output position. Those are the kernel without the taps that fall into the
padding, so as many decompositions suffice as there are ways to fall.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from transferscope.analysis.decompositions import singular_values
from transferscope.analysis.spectrum.linear_map import ZERO, LinearMap

DENSE_FLOPS = 2.2e10
"""Largest cost of a dense decomposition; a square matrix of 2,000 rows takes a second or two."""
DENSE_BYTES = 256 * 2**20
SVD_FLOPS = 8 / 3
"""Operations of the singular values of an n x n matrix, divided by the cube of n."""


def is_direct_sum(linear: LinearMap) -> bool:
    """True if no two output positions, nor two taps of one, read the same input position along any axis."""
    for axis in range(len(linear.in_size)):
        read = linear.read(axis).flatten()
        read = read[read != ZERO]
        if len(read.unique()) < len(read):
            return False
    return True


def direct_sum_values(linear: LinearMap) -> tuple[Tensor, Tensor]:
    """Values (float64, unsorted) and multiplicities (int64) of a map for which `is_direct_sum` holds."""
    kinds: list[tuple[Tensor, int]] = [(torch.ones((), dtype=torch.bool), 1)]
    for axis in range(len(linear.in_size)):
        inside, counts = (linear.read(axis) != ZERO).unique(dim=0, return_counts=True)
        kinds = [
            (taps[..., None] & row, times * int(count))
            for taps, times in kinds
            for row, count in zip(inside, counts, strict=True)
        ]
    grouped = linear.weight.double().unflatten(0, (linear.groups, -1)).flatten(3)
    values, multiplicities, num_values = [], [], 0
    for taps, times in kinds:
        matrices = grouped[..., taps.flatten().to(grouped.device)].flatten(2)
        if not matrices.shape[2]:
            continue
        own = singular_values([matrices[:, None]]).flatten().cpu()
        values.append(own)
        multiplicities.append(torch.full((len(own),), times))
        num_values += len(own) * times
    values.append(torch.zeros(1, dtype=torch.float64))
    multiplicities.append(torch.tensor([linear.num_values - num_values]))
    return _present(torch.cat(values), torch.cat(multiplicities))


def dense_flops(linear: LinearMap) -> float:
    """Operations of `dense_values`: a matrix for each group."""
    rows, columns = linear.num_outputs / linear.groups, linear.num_inputs / linear.groups
    short, long = min(rows, columns), max(rows, columns)
    return linear.groups * SVD_FLOPS * short**2 * (1.5 * long - short / 2)


def dense_bytes(linear: LinearMap) -> int:
    """Bytes of the matrices of all groups."""
    return 8 * linear.num_outputs * linear.num_inputs // linear.groups


def dense_values(linear: LinearMap) -> tuple[Tensor, Tensor]:
    """All values (float64, unsorted) and multiplicities, from the dense matrix of each group."""
    values = singular_values([dense_matrices(linear).unsqueeze(1)]).flatten().cpu()
    missing = linear.num_values - len(values)
    values = torch.cat([values, values.new_zeros(1)])
    multiplicities = torch.ones(len(values), dtype=torch.int64)
    multiplicities[-1] = missing
    return _present(values, multiplicities)


@torch.no_grad()
def dense_matrices(linear: LinearMap) -> Tensor:
    """The matrix of each group: (groups, num_outputs/groups, num_inputs/groups), channels first."""
    exact = linear.to(torch.float64)
    channels = linear.weight.shape[1]
    pixels = linear.num_inputs // (channels * linear.groups)
    columns = []
    for basis in _unit_images(channels * pixels, channels, linear):
        outputs = exact.forward(basis.repeat(1, linear.groups, *[1] * len(linear.in_size)))
        columns.append(outputs.unflatten(1, (linear.groups, -1)).flatten(2))
    return torch.cat(columns).permute(1, 2, 0)


def _unit_images(number: int, channels: int, linear: LinearMap) -> Iterable[Tensor]:
    """The unit vectors of one group's inputs as images, a few hundred at a time."""
    for start in range(0, number, 256):
        rows = torch.arange(start, min(start + 256, number))
        basis = torch.zeros(len(rows), number, dtype=torch.float64, device=linear.weight.device)
        basis[torch.arange(len(rows)), rows] = 1
        yield basis.reshape(len(rows), channels, *linear.in_size)


def dense_top_vectors(linear: LinearMap, num: int) -> tuple[Tensor, Tensor]:
    """The largest values, descending, and right singular vectors (num, *in_shape), of a map small enough for it."""
    matrices = dense_matrices(linear)
    _, values, vectors = torch.linalg.svd(matrices, full_matrices=False)
    order = values.flatten().argsort(descending=True, stable=True)[:num]
    group, place = order // values.shape[1], order % values.shape[1]
    images = torch.zeros(len(order), linear.groups, vectors.shape[2], dtype=torch.float64, device=vectors.device)
    images[torch.arange(len(order)), group] = vectors[group, place]
    return values.flatten()[order], images.reshape(len(order), *linear.in_shape)


def _present(values: Tensor, multiplicities: Tensor) -> tuple[Tensor, Tensor]:
    kept = multiplicities > 0
    return values[kept], multiplicities[kept]
