"""Permutation groups of a network, and permutations of its weights that keep its function.

Sources: Ainsworth, Hayase, Srinivasa, "Git Re-Basin" (arXiv 2209.04836) for permutation symmetries of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten

from transferscope.analysis.alignment.follow import plain_attention
from transferscope.analysis.alignment.labelled_tensors import Placement, Tap
from transferscope.analysis.alignment.structure import Level, Structure
from transferscope.analysis.states import ComputedState, State, check_same_tensors, describe_nonfinite
from transferscope.models.layers import evaluation_mode
from transferscope.system.errors import UserError

TOLERANCE = 1e-5
"""Largest relative l2 error of the output. One that is larger in float32 is computed again in float64."""


@dataclass(frozen=True)
class PermutedAxis:
    """An axis of a tensor of the state_dict, or a part of it, that goes with a group."""

    key: str
    axis: int
    positions: np.ndarray
    """(size of the group, repeats): positions along the axis of each channel."""


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that may be permuted among each other, and all axes of tensors that they stand on."""

    name: str
    """The first tensor and axis that goes with it, as in `layer1.0.conv1.weight[0]`."""
    size: int
    blocks: int
    """1: any permutation. More: blocks of size / blocks channels may be permuted, and channels within a block."""
    axes: tuple[PermutedAxis, ...]
    channels: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Permutation(Mapping[str, Tensor]):
    """By group: (size,) int64; channel i of the permuted network is the given one's channel number `[group][i]`."""

    sources: Mapping[str, Tensor]
    objective: float = float("nan")
    """Agreement of the weights, or activations, of the ends after the permutation; larger is better."""
    objective_of_identity: float = float("nan")
    dead: int = 0
    """Channels without weight, or without variance, in one of the networks: they say nothing."""
    tied: int = 0
    """Channels for which another partner would have been as good."""

    def __getitem__(self, group: str) -> Tensor:
        return self.sources[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def moved(self) -> float:
        """Fraction of channels that do not stay where they were."""
        moved = sum(int((source != torch.arange(len(source))).sum()) for source in self.sources.values())
        return moved / max(1, sum(len(source) for source in self.sources.values()))

    def inverse(self) -> Permutation:
        """The permutation that undoes this one."""
        return Permutation({name: torch.argsort(source) for name, source in self.sources.items()})

    def then(self, other: Permutation) -> Permutation:
        """This permutation followed by another."""
        return Permutation({name: source[other[name]] for name, source in self.sources.items()})


@dataclass(frozen=True)
class PermutationGroups:
    """Axes of the tensors of a network by the group of channels that they belong to."""

    groups: tuple[Group, ...]
    model: nn.Module = field(repr=False)
    image: Tensor = field(repr=False)
    structure: Structure = field(repr=False)
    placements: tuple[Placement, ...] = field(repr=False)
    taps: tuple[Tap, ...] = field(repr=False)
    unused: tuple[str, ...] = ()
    """Floating-point tensors of the state_dict that the output does not depend on; they are not permuted."""
    reasons: tuple[str, ...] = ()
    """Reasons for which channels were kept in place: operations that could not be followed."""

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise UserError(f"no permutation group {name!r}: there are {', '.join(group.name for group in self.groups)}")

    def identity(self) -> Permutation:
        """The permutation that moves nothing."""
        return Permutation({group.name: torch.arange(group.size) for group in self.groups})

    def random(self, seed: int = 0) -> Permutation:
        """A random permutation of every group, blocks and channels within blocks."""
        generator = np.random.default_rng(seed)
        source = np.arange(self.structure.component.max() + 1)
        for level in self.structure.levels:
            shuffle(level, level, generator, source)
        return self.permutation(source)

    def permutation(self, source: np.ndarray) -> Permutation:
        """The permutation by groups from an array over all components of wires."""
        sources = {}
        for group in self.groups:
            place = np.argsort(group.channels)
            order = place[np.searchsorted(group.channels[place], source[group.channels])]
            sources[group.name] = torch.from_numpy(order)
        return Permutation(sources)

    def source(self, permutation: Mapping[str, Tensor]) -> np.ndarray:
        """The array over all components of wires; UserError for what is no permutation of the groups."""
        source = np.arange(self.structure.component.max() + 1)
        if set(permutation) != {group.name for group in self.groups}:
            raise UserError("the permutation is of other groups than the network's: derive both from one model")
        for group in self.groups:
            given = np.asarray(permutation[group.name])
            if given.shape != (group.size,) or not np.array_equal(np.sort(given), np.arange(group.size)):
                raise UserError(f"the permutation of {group.name} is no order of its {group.size} channels")
            source[group.channels] = group.channels[given]
        return self._with_parents(source)

    def _with_parents(self, source: np.ndarray) -> np.ndarray:
        """Parents follow their children; UserError where children of one parent come from several."""
        known = {int(channel) for group in self.groups for channel in group.channels}
        for level in self.structure.levels:
            _lift(level, source, known, self._parent)
        return source

    @cached_property
    def _parent(self) -> np.ndarray:
        parent = np.full(self.structure.component.max() + 1, -1)
        for level in self.structure.levels:
            _note_parents(level, parent)
        return parent

    @cached_property
    def orders(self) -> dict[tuple[str, int], Order]:
        """For each permuted axis: positions of every component, and back."""
        component = self.structure.component
        moving = np.zeros(component.max() + 1, dtype=bool)
        for level in self.structure.levels:
            moving[level.wires()] = True
        by_axis = {}
        for place in self.placements:
            components = component[place.wires.numpy()]
            if moving[components].any():
                by_axis[place.key, place.axis] = Order.of(components, place.groups)
        return by_axis

    def as_computed(self, state: State) -> State:
        """The state in the precision in which the network computes, to which float64 is rounded, tensor by tensor."""
        return ComputedState(state.keys(), lambda key: _as(state[key], self.image.dtype))

    def output(self, state: State, *, dtype: torch.dtype | None = None) -> Tensor:
        """The network's output for its example with the weights of `state`, flattened to one vector."""
        given = {key: _as(tensor, dtype or self.image.dtype) for key, tensor in state.items()}
        given |= {key: _as(tensor, dtype) for key, tensor in self._unsaved.items()}
        with torch.no_grad(), evaluation_mode(self.model), plain_attention():
            result = functional_call(self.model, given, (_as(self.image, dtype),), tie_weights=False)
        parts = [part.flatten() for part in tree_flatten(result)[0] if isinstance(part, Tensor)]
        return torch.cat(parts)

    @cached_property
    def _unsaved(self) -> dict[str, Tensor]:
        saved = self.model.state_dict().keys()
        return {key: tensor for key, tensor in self.model.named_buffers() if key not in saved}

    def error(self, state: State, permuted: State) -> float:
        """Relative l2 error of the output with `permuted` weights, in float64 where float32 leaves it in doubt."""
        error = difference(self.output(state), self.output(permuted))
        if error <= TOLERANCE:
            return error
        try:
            return difference(*(self.output(each, dtype=torch.float64) for each in (state, permuted)))
        except RuntimeError:  # a network that mixes in float32 numbers of its own
            return error


@dataclass(frozen=True)
class Order:
    """Positions along an axis by component, in order: those of component c are `positions[starts[c]:starts[c + 1]]`."""

    components: np.ndarray
    groups: int
    starts: np.ndarray
    positions: np.ndarray
    rank: np.ndarray

    @classmethod
    def of(cls, components: np.ndarray, groups: int) -> Order:
        counts = np.bincount(components)
        starts = np.concatenate([[0], np.cumsum(counts)])
        positions = np.argsort(components, kind="stable")
        rank = np.empty(len(components), dtype=np.int64)
        rank[positions] = np.arange(len(components)) - starts[components[positions]]
        return cls(components, groups, starts, positions, rank)

    def index(self, source: np.ndarray) -> np.ndarray:
        """The position that each position takes its entries from."""
        return self.positions[self.starts[source[self.components]] + self.rank]

    def of_components(self, components: np.ndarray) -> np.ndarray | None:
        """(components, repeats) positions; None where not all stand on the axis equally often."""
        if not len(components) or components.max() + 1 >= len(self.starts):
            return None
        counts = self.starts[components + 1] - self.starts[components]
        count = counts[0]
        if not count or (counts != count).any():
            return None
        return self.positions[self.starts[components][:, None] + np.arange(count)]


def permute(
    groups: PermutationGroups, permutation: Mapping[str, Tensor], state: State, *, verify: bool = True
) -> dict[str, Tensor]:
    """Weights that compute the same function as `state`, their channels permuted. New tensors.

    Raises UserError for weights of another architecture, non-finite ones, what is no permutation of the groups, and,
    unless `verify` is False, where the network's output on its example changes by more than 1e-5.
    """
    check_state(groups, state, "the weights to permute")
    permuted = apply(groups, groups.source(permutation), state)
    if verify and not (error := groups.error(state, permuted)) <= TOLERANCE:
        raise UserError(f"{type(groups.model).__name__}: the permuted weights change the output by {error:.1e}")
    return permuted


def apply(
    groups: PermutationGroups, source: np.ndarray, state: State, keys: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """`permute` by an array over components, unchecked; of the tensors `keys` alone where given."""
    by_key: dict[str, list[tuple[int, Order]]] = {}
    for (key, axis), order in groups.orders.items():
        by_key.setdefault(key, []).append((axis, order))
    wanted = state if keys is None else keys
    return {key: _permuted(state[key].detach(), by_key.get(key, ()), source) for key in wanted}


def _permuted(tensor: Tensor, orders: Iterable[tuple[int, Order]], source: np.ndarray) -> Tensor:
    result = tensor
    for axis, order in sorted(orders, key=lambda entry: entry[0]):
        index = order.index(source)
        if np.array_equal(index, np.arange(len(index))):
            continue
        if order.groups == 1:
            result = result.index_select(axis, torch.from_numpy(index).to(tensor.device))
            continue
        # Along the second axis of a grouped convolution each group has an order of its own; the groups themselves
        # were moved with the first axis.
        within = index.reshape(order.groups, -1) % (len(index) // order.groups)
        rows = torch.from_numpy(np.repeat(within, len(tensor) // order.groups, axis=0)).to(tensor.device)
        rows = rows.reshape(*rows.shape, *(1,) * (tensor.dim() - 2)).expand(tensor.shape)
        result = result.gather(1, rows)
    return result.clone() if result is tensor else result


def check_state(groups: PermutationGroups, state: State, name: str) -> None:
    """Raise a UserError unless the weights are of the network's architecture and finite."""
    check_same_tensors(groups.model.state_dict(), state, "the network", name)
    if fault := describe_nonfinite(state, name):
        raise UserError(f"{fault}: a network that diverged cannot be aligned")


def in_one_block(state: State, least: torch.dtype, device: torch.device | None = None) -> dict[str, Tensor]:
    """Uninitialised tensors like the floating-point ones of `state`, of precision `least` or better, in one block.

    There is one block for each dtype and device; `device` is that of all where the tensors of `state` are only shapes.

    A block of more than 32 MiB goes back to the system when it is freed. Many tensors of some MiB stay in the process
    and leave gaps, so that the peak of a long computation would be half as high again.
    """
    multiple = 16  # elements, so that each tensor is aligned as one of its own
    places: dict[tuple[torch.dtype, torch.device], list[tuple[str, int]]] = {}
    ends: dict[tuple[torch.dtype, torch.device], int] = {}
    for key, tensor in state.items():
        if tensor.is_floating_point():
            kind = (torch.promote_types(tensor.dtype, least), device or tensor.device)
            start = ends.get(kind, 0)
            places.setdefault(kind, []).append((key, start))
            ends[kind] = start + -(-tensor.numel() // multiple) * multiple
    tensors: dict[str, Tensor] = {}
    for kind, entries in places.items():
        block = torch.empty(ends[kind], dtype=kind[0], device=kind[1])
        for key, start in entries:
            tensors[key] = block[start : start + state[key].numel()].view(state[key].shape)
    return tensors


def difference(one: Tensor, other: Tensor) -> float:
    """Relative l2 error."""
    return float((one - other).norm() / one.norm().clamp(min=torch.finfo(one.dtype).tiny))


def _as(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach()
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def shuffle(into: Level, out_of: Level, generator: np.random.Generator, source: np.ndarray) -> None:
    order = generator.permutation(len(into.units))
    source[into.units] = out_of.units[order]
    for cells_into, cells_out in zip(into.children, out_of.children, strict=True):
        for unit, taken in enumerate(order):
            shuffle(cells_into[unit], cells_out[taken], generator, source)


def _note_parents(level: Level, parent: np.ndarray) -> None:
    for cells in level.children:
        for unit, cell in zip(level.units, cells, strict=True):
            parent[cell.units] = unit
            _note_parents(cell, parent)


def _lift(level: Level, source: np.ndarray, known: set[int], parent: np.ndarray) -> None:
    """Write where parents come from, from where their children do, from below; `known` are those that have a place."""
    for cells in level.children:
        for unit, cell in zip(level.units.tolist(), cells, strict=True):
            _lift(cell, source, known, parent)
            origins = np.unique(parent[source[cell.units]])
            if len(origins) > 1 or (unit in known and source[unit] != origins[0]):
                raise UserError("the permutation tears a block of channels apart (a head, or a group of a convolution)")
            source[unit] = origins[0]
            known.add(unit)
