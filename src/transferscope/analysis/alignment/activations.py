"""Permutations that make the channels of one network correlate with those of another on given inputs.

Which tensors hold a channel's activations follows from the network: what its convolutions, linear layers and attention
read (Li et al. 2016, "Convergent learning"; Ainsworth et al., arXiv 2209.04836, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from transferscope.analysis.alignment.assignment import Gains, best_assignment
from transferscope.analysis.alignment.follow import Watcher, plain_attention
from transferscope.analysis.alignment.groups import Group, Order, Permutation, PermutationGroups, check_state
from transferscope.analysis.alignment.labelled_tensors import Tap
from transferscope.analysis.alignment.rules import CONTRACTIONS
from transferscope.analysis.evaluator import Batches, iterate
from transferscope.analysis.states import State
from transferscope.models.layers import evaluation_mode
from transferscope.system.errors import UserError


def match_activations(
    groups: PermutationGroups, model: nn.Module, state_a: State, state_b: State, batches: Batches
) -> Permutation:
    """The permutation of b's channels with the largest sum of correlations with a's, on the inputs of `batches`.

    A channel that several layers read counts once for each. Values at all positions of an image are samples. Only sums
    are kept, so memory grows with the batch and not with the number of batches. Groups do not depend on each other
    here, so the optimum is exact; there is no start and no seed. A channel that does not vary in one of the networks
    correlates with none (`Permutation.dead`).

    Args:
        model: The network whose groups these are, or one like it; its own weights do not matter and stay.
        batches: (inputs, labels) as for `Evaluator`; labels are not used.

    Raises:
        UserError: For weights of another architecture or non-finite ones, no batches, and fewer than two values a
            channel.
    """
    check_state(groups, state_a, "checkpoint a")
    check_state(groups, state_b, "checkpoint b")
    state_a, state_b = (dict(groups.as_computed(state)) for state in (state_a, state_b))
    sums = _sums(groups)
    with torch.no_grad(), evaluation_mode(model):
        for inputs, _ in iterate(batches):
            ours: dict[tuple[int, int], Tensor] = {}
            _run(model, state_a, inputs, sums, ours.__setitem__)
            _run(model, state_b, inputs, sums, partial(_add, sums, ours))
    if not sums or any(each.count < 2 for group_sums in sums.values() for each in group_sums):
        raise UserError("match_activations: correlations need at least two values of every channel; give more inputs")
    return _assign(groups, [each for group_sums in sums.values() for each in group_sums])


@dataclass
class _Sum:
    """Sums over samples of one group's channels at one tap."""

    tap: Tap
    group: Group
    positions: Tensor
    """(channels, repeats) in the tap's flattened axes of channels."""
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    count: int = 0
    shift: list[Tensor] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    """Of a, b, a squared, b squared (channels,), and products (channels, channels)."""

    def samples(self, tensor: Tensor) -> Tensor:
        """(samples, channels) of the tap's tensor, which may hold more examples than the one that was followed."""
        rest = [axis for axis in range(tensor.dim()) if axis not in self.axes]
        flat = tensor.permute(*rest, *self.axes)
        for place, size in enumerate(self.sizes):
            axis = len(rest) + place
            if flat.shape[axis] != size:  # examples in front of channels in one axis
                flat = flat.unflatten(axis, (-1, size)).movedim(axis, 0)
                rest.append(-1)
        flat = flat.flatten(len(rest)).flatten(0, len(rest) - 1) if rest else flat.flatten().unsqueeze(0)
        picked = flat[:, self.positions.to(flat.device).flatten()].float()
        return picked.reshape(len(flat), *self.positions.shape).movedim(1, 2).flatten(0, 1)

    def add(self, a: Tensor, b: Tensor) -> None:
        """Add samples of both networks; sums are of differences from the first batch's means."""
        if not self.shift:
            self.shift = [a.mean(0), b.mean(0)]
        a, b = a - self.shift[0], b - self.shift[1]
        sums = [a.sum(0), b.sum(0), a.square().sum(0), b.square().sum(0), a.T @ b]
        sums = [each.double() for each in sums]
        if self.sums:
            sums = [new + old for new, old in zip(sums, self.sums, strict=True)]
        self.sums = sums
        self.count += len(a)

    def correlations(self) -> tuple[np.ndarray, np.ndarray]:
        """(channels of a, channels of b) correlations, and which channels vary in both at the same place."""
        *means, square_a, square_b, cross = (each / self.count for each in self.sums)
        variances = [(s - m.square()).clamp(min=0) for s, m in zip((square_a, square_b), means, strict=True)]
        floor = [1e-12 * (v + m.square()).max() for v, m in zip(variances, means, strict=True)]
        alive = [v > f for v, f in zip(variances, floor, strict=True)]
        scales = [torch.where(on, v, 1).rsqrt() * on for v, on in zip(variances, alive, strict=True)]
        covariance = cross - means[0][:, None] * means[1]
        correlation = covariance * scales[0][:, None] * scales[1]
        return correlation.cpu().numpy(), (alive[0] & alive[1]).cpu().numpy()


def _add(sums: _Sums, ours: dict[tuple[int, int], Tensor], place: tuple[int, int], theirs: Tensor) -> None:
    """Add what b reads at a place to the sums, beside what a has read there, which is then forgotten."""
    a = ours.pop(place)
    for each in sums[place]:
        each.add(each.samples(a), each.samples(theirs))


_Sums = Mapping[tuple[int, int], list[_Sum]]


def _sums(groups: PermutationGroups) -> _Sums:
    """By contraction and argument, the groups whose channels it reads."""
    component = groups.structure.component
    sums: dict[tuple[int, int], list[_Sum]] = {}
    for tap in groups.taps:
        for factor in tap.labels.factors:
            axes = tuple(axis for axis, size in enumerate(factor.shape) if size > 1)
            order = (*axes, *(axis for axis in range(factor.dim()) if axis not in axes))
            places = Order.of(component[factor.permute(order).numpy().ravel()], 1)
            for group in groups.groups:
                positions = places.of_components(group.channels)
                if positions is not None:
                    sizes = tuple(factor.shape[axis] for axis in axes)
                    own = _Sum(tap, group, torch.from_numpy(positions), axes, sizes)
                    sums.setdefault((tap.number, tap.argument), []).append(own)
    return sums


_Seen = Callable[[tuple[int, int], Tensor], None]


class _Listener(Watcher):
    """Hands on what the contractions of a forward pass read."""

    def __init__(self, wanted: _Sums, seen: _Seen) -> None:
        super().__init__()
        self.wanted, self.seen, self.number = wanted, seen, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in CONTRACTIONS:
            self.number += 1
            for argument, value in enumerate(args):
                if (self.number, argument) in self.wanted and isinstance(value, Tensor):
                    # A copy: an operation that follows may overwrite it.
                    self.seen((self.number, argument), value.clone())
        return func(*args, **(kwargs or {}))


def _run(model: nn.Module, state: State, inputs: Tensor, wanted: _Sums, seen: _Seen) -> None:
    with plain_attention(), _Listener(wanted, seen):
        functional_call(model, dict(state), (inputs,), tie_weights=False)


def _assign(groups: PermutationGroups, sums: list[_Sum]) -> Permutation:
    colours = _colours(groups)
    gains: dict[int, Gains] = {}
    dead = 0
    for group, colour in colours.items():
        place = np.argsort(group.channels)
        values = np.zeros((group.size, group.size))
        alive = np.zeros(group.size, dtype=bool)
        for each in sums:
            if each.group is group:
                correlation, varies = each.correlations()
                values += correlation
                alive |= varies
        dead += int((~alive).sum())
        gains[colour] = Gains(group.channels[place], values[np.ix_(place, place)])
    source = np.arange(groups.structure.component.max() + 1)
    objective = 0.0
    tied = 0
    for level in groups.structure.levels:
        best = best_assignment(level, gains, ties=True)
        best.write(source)
        objective, tied = objective + best.gain, tied + best.tied
    identity = sum(float(np.trace(each.values)) for each in gains.values())
    result = groups.permutation(source)
    return replace(result, objective=objective, objective_of_identity=identity, dead=dead, tied=tied)


def _colours(groups: PermutationGroups) -> dict[Group, int]:
    """The colour of each group's channels in the levels."""
    colour_of: dict[int, int] = {}
    for level in groups.structure.levels:
        for colour, channels in level.cells():
            colour_of.update(dict.fromkeys(channels.tolist(), colour))
    return {group: colour_of[int(group.channels[0])] for group in groups.groups}
