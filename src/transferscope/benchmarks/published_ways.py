"""Published ways, written as their papers give them, to measure against."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from transferscope.analysis.alignment import PermutationGroups


def published_matching(
    groups: PermutationGroups, a: Mapping[str, Tensor], b: Mapping[str, Tensor], seed: int = 0
) -> float:
    """The objective that the loop of Git Re-Basin reaches, for networks whose groups are free (no blocks).

    For every group in random order, all its tensors are permuted anew along their other axes, one assignment is solved,
    and the loop goes on until a whole round brings nothing. It takes its table of axes from `groups`.
    """
    axes = {(axis.key, axis.axis): (group.name, axis.positions) for group in groups for axis in group.axes}
    weights = [key for key, _ in groups.model.named_parameters() if any((key, axis) in axes for axis in range(4))]
    order = {group.name: np.arange(group.size) for group in groups}
    generator = np.random.default_rng(seed)

    def index(key: str, axis: int) -> Tensor:
        name, positions = axes[key, axis]
        return torch.from_numpy(positions[order[name]].ravel())[torch.from_numpy(np.argsort(positions.ravel()))]

    def permuted(key: str, without: int | None = None) -> Tensor:
        tensor = b[key]
        for axis in range(tensor.dim()):
            if axis != without and (key, axis) in axes:
                tensor = tensor.index_select(axis, index(key, axis))
        return tensor

    moved = True
    while moved:
        moved = False
        for number in generator.permutation(len(groups)):
            group = groups.groups[number]
            gain = np.zeros((group.size, group.size))
            for axis in group.axes:
                if axis.key in weights:
                    rows = torch.from_numpy(axis.positions)
                    one = a[axis.key].movedim(axis.axis, 0)[rows].reshape(group.size, -1)
                    other = permuted(axis.key, axis.axis).movedim(axis.axis, 0)[rows].reshape(group.size, -1)
                    gain += (one @ other.T).numpy()
            _, columns = linear_sum_assignment(gain, maximize=True)
            before = gain[np.arange(group.size), order[group.name]].sum()
            if gain[np.arange(group.size), columns].sum() > before + 1e-12 * abs(before) + 1e-6:
                order[group.name], moved = columns, True
    return sum(float((a[key].double() * permuted(key)).sum()) for key in weights)
