"""Permutations that bring the weights of one network near those of another.

Coordinate descent over groups of channels, each move one linear assignment (Ainsworth, Hayase, Srinivasa, "Git
Re-Basin", arXiv 2209.04836): the sum over all weights of a times permuted b, equivalently minus their squared distance,
does not fall at any move. It finds a local optimum; several orders are tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from transferscope.analysis.alignment.assignment import Gains, best_assignment
from transferscope.analysis.alignment.groups import (
    Order,
    Permutation,
    PermutationGroups,
    apply,
    check_state,
    in_one_block,
)
from transferscope.analysis.alignment.structure import Level
from transferscope.analysis.states import ComputedState, State
from transferscope.system.errors import UserError

_NO_GAIN = 1e-7
"""A move must raise the objective by this part of |a| |b| of the tensors that it touches: more than rounding."""
_FIRST = 2
"""Rounds after which a descent that lies behind another is given up."""
_ENOUGH = 0.003
"""Part of all that was gained that a later round must gain to be followed by another."""


def match_weights(
    groups: PermutationGroups, state_a: State, state_b: State, seed: int = 0, *, restarts: int = 3
) -> Permutation:
    """The permutation of b's channels that brings its parameters nearest to a's, in the sense of least squares.

    Needs no data. The first descent starts from a pass in order of the network, in which every group is matched by the
    tensors whose other channels are matched already; the others start from the identity and go through the groups in
    random orders from `seed`, and one that lies behind the best one's first rounds is given up. The best is kept, and
    none is worse than the identity. Running statistics are not compared. The same arguments give the same permutation.

    Memory: b's parameters as they are permuted, the tensors of one level of the network, and the products of a group's
    channels. Tensors of the states are read
    when they are needed, so these may lie in files.

    Raises:
        UserError: For weights of another architecture or non-finite ones, and for restarts < 1.
    """
    if restarts < 1:
        raise UserError(f"restarts is {restarts}: give at least 1")
    check_state(groups, state_a, "checkpoint a")
    check_state(groups, state_b, "checkpoint b")
    state_a, state_b = groups.as_computed(state_a), groups.as_computed(state_b)
    problem = _Problem.of(groups)
    target = problem.weights(state_a)
    generator = np.random.default_rng(seed)
    identity = np.arange(problem.components)
    best = (problem.objective_of(target, state_b), identity)
    bar: list[float] = []
    for restart in range(restarts):
        order = np.arange(len(problem.levels))
        start = identity
        if restart:
            generator.shuffle(order)
        else:
            start = problem.pass_forward(target, state_b)
        descent = problem.descend(target, state_b, start, order, bar)
        if descent.objective > best[0] + 1e-9 * abs(best[0]):
            best, bar = (descent.objective, descent.source), descent.rounds
    return _result(problem, target, state_b, *best)


def match_many(groups: PermutationGroups, states: Sequence[State], seed: int = 0) -> list[Permutation]:
    """Permutations of several networks to one common order of channels, that of the first to begin with.

    Cycle-consistent by construction: network i is brought onto j by i's permutation followed by the inverse of j's, so
    any way round through other networks gives the same. Each network in turn is matched with the sum of the others
    (coordinate descent on the sum over all pairs of their inner products) until none moves.

    Raises UserError for fewer than two networks, weights of another architecture and non-finite ones.
    """
    if len(states) < 2:
        raise UserError(f"match_many needs at least two networks, not {len(states)}")
    for number, state in enumerate(states, start=1):
        check_state(groups, state, f"checkpoint {number}")
    states = [groups.as_computed(state) for state in states]
    problem = _Problem.of(groups)
    order = np.arange(len(problem.levels))
    sources = [np.arange(problem.components)]
    sources += [groups.source(match_weights(groups, states[0], state, seed)) for state in states[1:]]
    generator = np.random.default_rng(seed)
    total = _sum(problem.permuted(state, source) for state, source in zip(states, sources, strict=True))
    moved = True
    while moved:
        moved = False
        for number in generator.permutation(len(states)).tolist():
            own = problem.permuted(states[number], sources[number])
            others = {key: total[key] - tensor for key, tensor in own.items()}
            better = problem.descend(others, states[number], sources[number], order).source
            if not np.array_equal(better, sources[number]):
                sources[number], moved = better, True
                new = problem.permuted(states[number], better)
                total = {key: others[key] + tensor for key, tensor in new.items()}
    return [groups.permutation(source) for source in sources]


def _sum(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for state in states:
        total = {key: total[key] + tensor if key in total else tensor for key, tensor in state.items()}
    return total


@dataclass
class _Descent:
    source: np.ndarray
    objective: float
    rounds: list[float]
    """The objective after each round through the levels."""


@dataclass(frozen=True)
class _Axis:
    """An axis of a parameter with channels of one colour of a level."""

    key: str
    axis: int
    groups: int
    positions: np.ndarray
    """(channels, repeats)."""
    whole: bool
    """True if the channels are the whole axis in order."""

    def rows(self, tensor: Tensor) -> Tensor:
        """(channels, the rest of the tensor)."""
        if self.groups > 1:
            split = tensor.reshape(self.groups, -1, *tensor.shape[1:]).transpose(1, 2)
            rows = split.reshape(self.groups * tensor.shape[1], -1)
        else:
            rows = tensor.movedim(self.axis, 0).reshape(tensor.shape[self.axis], -1)
        if not self.whole:
            rows = rows[torch.from_numpy(self.positions).to(rows.device)]
        return rows.reshape(len(self.positions), -1)


@dataclass(frozen=True)
class _Problem:
    """The objective of `match_weights`, by level."""

    groups: PermutationGroups
    levels: tuple[Level, ...]
    axes: tuple[Mapping[int, tuple[np.ndarray, tuple[_Axis, ...]]], ...]
    """For each level, by colour: its channels and the axes that they stand on."""
    keys: tuple[frozenset[str], ...]
    neighbours: tuple[frozenset[int], ...]
    components: int

    @classmethod
    def of(cls, groups: PermutationGroups) -> _Problem:
        parameters = {key for key, _ in groups.model.named_parameters(remove_duplicate=False)}
        orders = {place: order for place, order in groups.orders.items() if place[0] in parameters}
        levels = groups.structure.levels
        axes = tuple(_axes_of(level, orders) for level in levels)
        keys = tuple(frozenset(axis.key for _, places in each.values() for axis in places) for each in axes)
        near = tuple(frozenset(i for i, other in enumerate(keys) if other & own) for own in keys)
        return cls(groups, levels, axes, keys, near, int(groups.structure.component.max()) + 1)

    def weights(self, state: State) -> State:
        """The parameters that count, in float32 or better, each read when it is asked for."""
        keys = dict.fromkeys(sorted(frozenset[str]().union(*self.keys)))
        return ComputedState(keys, lambda key: _precise(state[key]))

    def permuted(self, state: State, source: np.ndarray) -> dict[str, Tensor]:
        """The parameters that count, permuted, as tensors that may be overwritten."""
        keys = sorted(frozenset[str]().union(*self.keys))
        device = state[keys[0]].device if keys else torch.device("cpu")
        room = in_one_block({key: state[key].to("meta") for key in keys}, torch.float32, device)
        return {key: room[key].copy_(apply(self.groups, source, state, [key])[key]) for key in keys}

    def objective_of(self, target: Mapping[str, Tensor], state: State) -> float:
        """That of a state as it is, whose tensors are read one at a time."""
        return sum(_dot(own, _precise(state[key])) for key, own in target.items())

    def objective(self, target: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> float:
        """Sum of products."""
        return sum(_dot(target[key], tensor) for key, tensor in weights.items())

    def descend(
        self,
        target: Mapping[str, Tensor],
        state: State,
        source: np.ndarray,
        order: np.ndarray,
        bar: Sequence[float] = (),
    ) -> _Descent:
        """Coordinate descent from `source`; a level is looked at again after one that shares a tensor has moved.

        It ends when nothing moves, or when after `_FIRST` rounds a round brings less than `_ENOUGH` of all that was
        gained, or when it lies behind `bar`, the objectives of another descent, after that many rounds.
        """
        current = self.permuted(state, source)
        descent = _Descent(source.copy(), self.objective(target, current), [])
        beginning = self.objective_of(target, state)
        waiting = set(range(len(self.levels)))
        while waiting:
            for index in order.tolist():
                if index in waiting:
                    waiting.discard(index)
                    if self._step(index, target, current, descent.source):
                        waiting |= self.neighbours[index] - {index}
            before, descent.objective = descent.objective, self.objective(target, current)
            descent.rounds.append(descent.objective)
            number = len(descent.rounds)
            if number == min(_FIRST, len(bar)) and descent.objective < bar[number - 1]:
                break
            if number >= 2 * _FIRST and descent.objective - before < _ENOUGH * (descent.objective - beginning):
                break
        return descent

    def pass_forward(self, target: Mapping[str, Tensor], state: State) -> np.ndarray:
        """Match each level in turn by the tensors on which all other channels are fixed or matched before."""
        current = self.permuted(state, np.arange(self.components))
        source = np.arange(self.components)
        matched: set[int] = set()
        for index in range(len(self.levels)):
            matched.add(index)
            known = {
                key for key in self.keys[index] if self._levels_of[key] <= matched and key not in self._twice[index]
            }
            move = np.arange(self.components)
            best_assignment(self.levels[index], self.gains(index, target, current, known or None)).write(move)
            _overwrite(current, apply(self.groups, move, current, sorted(self.keys[index])))
            source = source[move]
        return source

    @cached_property
    def _levels_of(self) -> dict[str, set[int]]:
        levels: dict[str, set[int]] = {}
        for index, keys in enumerate(self.keys):
            for key in keys:
                levels.setdefault(key, set()).add(index)
        return levels

    @cached_property
    def _twice(self) -> tuple[frozenset[str], ...]:
        """For each level, tensors of whose axes several go with it: its gains there depend on itself."""
        result = []
        for each in self.axes:
            count = Counter(key for key, _ in {(axis.key, axis.axis) for _, axes in each.values() for axis in axes})
            result.append(frozenset(key for key, number in count.items() if number > 1))
        return tuple(result)

    def _step(self, index: int, target: Mapping[str, Tensor], current: dict[str, Tensor], source: np.ndarray) -> bool:
        """Assign one level; True where that raised the objective, and then `current` and `source` are changed."""
        best = best_assignment(self.levels[index], self.gains(index, target, current))
        move = np.arange(self.components)
        best.write(move)
        if np.array_equal(move, np.arange(self.components)):
            return False
        keys = sorted(self.keys[index])
        moved = apply(self.groups, move, current, keys)
        before = after = scale = 0.0
        for key in keys:
            own = target[key]
            before += _dot(own, current[key])
            after += _dot(own, moved[key])
            scale += float(own.norm()) * float(current[key].norm())
        if not after > before + _NO_GAIN * scale:
            return False
        _overwrite(current, moved)
        source[:] = source[move]
        return True

    def gains(
        self,
        index: int,
        target: Mapping[str, Tensor],
        current: Mapping[str, Tensor],
        keys: Collection[str] | None = None,
    ) -> dict[int, Gains]:
        """Products of channels of a and b on all axes of a level, or those of `keys`, all else as it is now."""
        gains = {}
        for colour, (channels, axes) in self.axes[index].items():
            values = np.zeros((len(channels), len(channels)))
            for axis in axes:
                if keys is not None and axis.key not in keys:
                    continue
                values += (axis.rows(target[axis.key]) @ axis.rows(current[axis.key]).T).cpu().numpy()
            gains[colour] = Gains(channels, values)
        return gains


def _axes_of(level: Level, orders: Mapping[tuple[str, int], Order]) -> dict[int, tuple[np.ndarray, tuple[_Axis, ...]]]:
    by_colour: dict[int, list[np.ndarray]] = {}
    for colour, cell in level.cells():
        by_colour.setdefault(colour, []).append(cell)
    result = {}
    for colour, cells in by_colour.items():
        channels = np.sort(np.concatenate(cells))
        axes = []
        for (key, axis), order in orders.items():
            positions = order.of_components(channels)
            if positions is not None:
                whole = np.array_equal(positions.ravel(), np.arange(len(order.positions)))
                axes.append(_Axis(key, axis, order.groups, positions, whole))
        result[colour] = (channels, tuple(axes))
    return result


def _result(
    problem: _Problem, target: Mapping[str, Tensor], state: State, objective: float, source: np.ndarray
) -> Permutation:
    current = problem.permuted(state, source)
    tied = dead = 0
    for index, level in enumerate(problem.levels):
        tied += best_assignment(level, problem.gains(index, target, current), ties=True).tied
        for _, axes in problem.axes[index].values():
            if axes:
                sizes = [_largest(axes, weights) for weights in (target, current)]
                dead += int((torch.minimum(*sizes) == 0).sum())
    identity = problem.objective_of(target, state)
    permutation = problem.groups.permutation(source)
    return replace(permutation, objective=objective, objective_of_identity=identity, dead=dead, tied=tied)


def _largest(axes: Iterable[_Axis], weights: Mapping[str, Tensor]) -> Tensor:
    """(channels,) the largest absolute weight of each."""
    return torch.stack([axis.rows(weights[axis.key]).abs().amax(1) for axis in axes]).amax(0)


def _overwrite(current: Mapping[str, Tensor], moved: Mapping[str, Tensor]) -> None:
    for key, tensor in moved.items():
        current[key].copy_(tensor)


def _precise(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _dot(one: Tensor, other: Tensor) -> float:
    """Sum of products, accumulated in parts so that rounding does not grow with the size."""
    products = one.reshape(-1) * other.reshape(-1)
    return float(products.sum(dtype=torch.float64))
