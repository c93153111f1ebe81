"""Wires: the channels that the entries of a tensor belong to, tied together by the operations of a network.

A *wire* is one channel. A tensor's labels are *factors*, integer arrays that broadcast to its shape and hold the wire
of every entry: the output of a convolution has one factor, (1, C, 1, 1); the weight of a linear layer has two,
(C_out, 1) and (1, C_in); queries of attention have one over two axes, (1, heads, 1, dims). What only moves entries
(views, permutations, slices, concatenation) moves labels alike. What combines tensors element by element ties their
wires (`Wires.tie`), and what sums over an axis makes the sum's own wire a *parent* of those that it sums over
(`Wires.nest`): a permutation must map children of one parent to children of one parent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Labels:
    """Factors of a tensor of `shape`: each has size 1 along the axes on which its wire does not depend."""

    shape: tuple[int, ...]
    factors: tuple[Tensor, ...] = ()
    live: bool = True
    """Whether the tensor depends on the network's input."""

    def covers(self, axis: int) -> bool:
        """Whether some factor varies along `axis`."""
        return any(factor.shape[axis] > 1 for factor in self.factors)

    def moved(self, move: Callable[[Tensor], Tensor]) -> Labels:
        """Labels after an operation that only moves entries, applied to every factor."""
        moved = [move(factor.expand(self.shape)) for factor in self.factors]
        shape = tuple(move(torch.zeros((), dtype=torch.int64).expand(self.shape)).shape)
        return Labels(shape, tuple(collapse(factor) for factor in moved), self.live)


@dataclass
class Wires:
    """All wires of a network, and what ties them."""

    count: int = 0
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    nestings: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """(children, parents), one pair of arrays an operation."""
    fixed: list[np.ndarray] = field(default_factory=list)
    reasons: list[tuple[str, np.ndarray]] = field(default_factory=list)
    """Operations that could not be followed, and the wires that stay in place for it."""
    positions: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    operation: str = "the network's input"

    def fresh(self, number: int) -> Tensor:
        """`number` new wires."""
        self.count += number
        return torch.arange(self.count - number, self.count)

    def places(self, number: int) -> Tensor:
        """Wires that stay in place, one for each of `number` positions of an axis that no permutation may move."""
        if number > len(self.positions):
            more = self.fresh(number - len(self.positions))
            self.fixed.append(more.numpy())
            self.positions = torch.cat([self.positions, more])
        return self.positions[:number]

    def keep(self, factor: Tensor, *, reason: bool = False) -> None:
        """Keep the wires of a factor in place; with `reason`, because the operation cannot be followed."""
        wires = np.unique(factor.numpy())
        self.fixed.append(wires)
        if reason:
            self.reasons.append((self.operation, wires))

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Entry by entry, the wires of two factors of one shape are permuted alike."""
        pairs = np.unique(np.stack([one.numpy().ravel(), other.numpy().ravel()]), axis=1)
        self.ties.append((pairs[0], pairs[1]))

    def nest(self, children: Tensor, parents: Tensor) -> None:
        """Entry by entry, the wires of the second factor are parents of those of the first."""
        one, other = torch.broadcast_tensors(children, parents)
        pairs = np.unique(np.stack([one.numpy().ravel(), other.numpy().ravel()]), axis=1)
        self.nestings.append((pairs[0], pairs[1]))

    def parents(self, factor: Tensor, axes: Sequence[int]) -> Tensor:
        """One new parent for each set of wires that a factor has along `axes`; size 1 along them."""
        kept = [axis for axis in range(factor.dim()) if axis not in axes]
        rows = factor.permute(*kept, *axes).reshape([factor.shape[axis] for axis in kept] + [-1])
        sets = np.sort(rows.numpy().reshape(-1, rows.shape[-1]), axis=1)
        _, which = np.unique(sets, axis=0, return_inverse=True)
        new = self.fresh(int(which.max()) + 1)[torch.from_numpy(which.ravel())]
        shape = [1 if axis in axes else factor.shape[axis] for axis in range(factor.dim())]
        parents = new.reshape(shape)
        self.nest(factor, parents)
        return parents

    def combine(self, operands: Sequence[Labels], constants: Sequence[Tensor] = ()) -> Labels:
        """Labels of an element-wise function of tensors that broadcast together.

        An axis that has wires in one operand and several entries but no wires in another (an axis of positions, or a
        constant that varies) keeps those wires in place.
        """
        shape = np.broadcast_shapes(*(labels.shape for labels in operands), *(tuple(c.shape) for c in constants))
        wide = [_aligned(labels, len(shape)) for labels in operands]
        wide += [_aligned(_constant_labels(constant), len(shape)) for constant in constants]
        factors: list[Tensor] = []
        for index, labels in enumerate(wide):
            others = wide[:index] + wide[index + 1 :]
            for factor in labels.factors:
                axes = _axes(factor)
                placed = [axis for axis in axes if any(o.shape[axis] > 1 and not o.covers(axis) for o in others)]
                if axes and len(placed) == len(axes):
                    self.keep(factor)
                    continue
                factors.append(factor)
                factors += [_along(self.places(factor.shape[axis]), axis, len(shape)) for axis in placed]
        live = any(labels.live for labels in operands)
        return Labels(shape, self.normalised(factors), live)

    def normalised(self, factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Factors of which no two are over the same axes, and none over a part of another's.

        Two over the same axes are tied. One over a part of another's axes is its parent. Two that share some of their
        axes get a common parent over those.
        """
        by_axes: dict[tuple[int, ...], Tensor] = {}
        for factor in factors:
            axes = _axes(factor)
            if axes in by_axes:
                self.tie(by_axes[axes], factor)
            else:
                by_axes[axes] = factor
        kept = dict(by_axes)
        for (axes, factor), (other_axes, other) in combinations(by_axes.items(), 2):
            if set(axes) <= set(other_axes):
                self.nest(other, factor)
                kept.pop(axes, None)
            elif set(other_axes) <= set(axes):
                self.nest(factor, other)
                kept.pop(other_axes, None)
            elif shared := set(axes) & set(other_axes):
                parents = self.parents(factor, [axis for axis in axes if axis not in shared])
                self.tie(parents, self.parents(other, [axis for axis in other_axes if axis not in shared]))
        return tuple(kept.values())

    def reduced(self, labels: Labels, axes: Sequence[int], *, keepdim: bool = True) -> Labels:
        """Labels of a sum, mean, maximum, ... over `axes`, whose order does not matter to the result."""
        axes = [axis % len(labels.shape) for axis in axes]
        factors = []
        for factor in labels.factors:
            along = [axis for axis in axes if factor.shape[axis] > 1]
            reduced = self.parents(factor, along) if along else factor
            if not along or reduced.numel() > 1:
                factors.append(reduced)
        normal = self.normalised(factors)
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(labels.shape))
        result = Labels(shape, normal, labels.live)
        return result if keepdim else result.moved(lambda factor: _squeezed(factor, axes))


def collapse(factor: Tensor) -> Tensor:
    """A factor with size 1 along every axis on which it does not depend."""
    for axis, size in enumerate(factor.shape):
        if size > 1:
            first = factor.narrow(axis, 0, 1)
            if factor.stride(axis) == 0 or bool((factor == first).all()):
                factor = first
    return factor


def by_channel(wires: Wires, labels: Labels, axes: Sequence[int], *, reason: bool = True) -> Labels:
    """Labels that do not vary along `axes`, whose positions stay in place.

    Wires that vary along them alone stay in place. Those that vary along a channel's axis as well (behind a pixel
    shuffle, say) get one parent for each channel.
    """
    factors = []
    for factor in labels.factors:
        along = [axis for axis in axes if factor.shape[axis] > 1]
        if not along:
            factors.append(factor)
        elif set(_axes(factor)) <= set(along):
            wires.keep(factor, reason=reason)
        else:
            sizes = [factor.shape[axis] if axis in along else 1 for axis in range(factor.dim())]
            wires.nest(factor, wires.places(int(np.prod(sizes))).reshape(sizes))
            factors.append(wires.parents(factor, along))
    return Labels(labels.shape, tuple(factors), labels.live)


def _axes(factor: Tensor) -> tuple[int, ...]:
    return tuple(axis for axis, size in enumerate(factor.shape) if size > 1)


def _along(values: Tensor, axis: int, dims: int) -> Tensor:
    return values.reshape([-1 if other == axis else 1 for other in range(dims)])


def _aligned(labels: Labels, dims: int) -> Labels:
    """With axes of size 1 in front, so that there are `dims`."""
    ones = (1,) * (dims - len(labels.shape))
    factors = tuple(factor.reshape(ones + tuple(factor.shape)) for factor in labels.factors)
    return Labels(ones + labels.shape, factors, labels.live)


def _constant_labels(constant: Tensor) -> Labels:
    """A constant has positions along the axes on which its values differ, and no wires."""
    return Labels(tuple(collapse(constant.detach().cpu()).shape), (), live=False)


def _squeezed(factor: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in sorted(axes, reverse=True):
        factor = factor.squeeze(axis)
    return factor
