"""From wires and what ties them to permutation groups.

Tied wires become one. Then wires are coloured: two have one colour if they stand on the same axes of the same tensors
equally often, and if their parents and children have the same colours (colour refinement, as in tests of isomorphism of
graphs). Wires of one colour under one parent may be permuted freely; wires of one colour with children may be permuted
together with all of their children: heads of attention, groups of a grouped convolution or of a GroupNorm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from transferscope.analysis.alignment.labelled_tensors import Placement
from transferscope.analysis.alignment.wires import Wires

Array = np.ndarray


@dataclass(frozen=True)
class Level:
    """Wires that may be permuted among each other, each together with its children.

    `children[c][u]` are the children of colour c of the wire `units[u]`. Without children the level is free.
    """

    colour: int
    units: Array
    children: tuple[tuple[Level, ...], ...] = ()

    def cells(self) -> Iterator[tuple[int, Array]]:
        """Colour and wires of the level, and of all levels below it."""
        yield self.colour, self.units
        for kind in self.children:
            for level in kind:
                yield from level.cells()

    def wires(self) -> Array:
        """All wires of the level, children included."""
        return np.concatenate([units for _, units in self.cells()])


@dataclass(frozen=True)
class Structure:
    """Axes that may be permuted: `component` of every wire, and the levels that are independent of each other."""

    component: Array
    levels: tuple[Level, ...]
    nestings: tuple[tuple[Array, Array], ...]
    """(children, parents) as components, for checking permutations."""
    reasons: tuple[tuple[str, int], ...]
    """Reasons that kept channels in place, with their numbers, other than the network's input and output."""


class _Graph:
    """Components, and the maps from children to parents, under changes that only restrict."""

    def __init__(self, wires: Wires, placements: Sequence[Placement]) -> None:
        self.wires, self.placements = wires, placements
        self.ties = list(wires.ties)
        self.nestings = list(wires.nestings)
        self.fixed = list(wires.fixed)
        self.reasons: list[tuple[str, Array]] = list(wires.reasons)

    def settle(self) -> None:
        """Merge, refine and restrict until every wire has at most one parent that may move."""
        while True:
            self._merge()
            self._colour()
            if not self._restrict():
                return

    def _merge(self) -> None:
        count = self.wires.count
        ones = np.concatenate([one for one, _ in self.ties]) if self.ties else np.empty(0, dtype=np.int64)
        others = np.concatenate([other for _, other in self.ties]) if self.ties else np.empty(0, dtype=np.int64)
        graph = coo_array((np.ones(len(ones), dtype=np.int8), (ones, others)), shape=(count, count))
        self.number, component = connected_components(graph, directed=False)
        self.component = component.astype(np.int64)
        self.is_fixed = np.zeros(self.number, dtype=bool)
        for wires in self.fixed:
            self.is_fixed[self.component[wires]] = True
        self.relations = [self._pairs(children, parents) for children, parents in self.nestings]

    def _pairs(self, children: Array, parents: Array) -> tuple[Array, Array]:
        pairs = np.unique(np.stack([self.component[children], self.component[parents]]), axis=1)
        apart = pairs[0] != pairs[1]
        return pairs[0][apart], pairs[1][apart]

    def _colour(self) -> None:
        """Colour refinement with sums of hashes for multisets."""
        colour = np.zeros(self.number, dtype=np.uint64)
        for place in self.placements:
            seed = _hash(np.uint64(_seed(place.key, place.axis)))
            np.add.at(colour, self.component[place.wires.numpy()], seed)
        own = np.flatnonzero(self.is_fixed).astype(np.uint64)
        colour[self.is_fixed] = _hash(own + np.uint64(1 << 40))
        colours = len(np.unique(colour))
        while True:
            mixed = _hash(colour)
            for index, (children, parents) in enumerate(self.relations):
                down, up = np.uint64(_seed("down", index)), np.uint64(_seed("up", index))
                np.add.at(mixed, children, _hash(colour[parents] ^ down))
                np.add.at(mixed, parents, _hash(colour[children] ^ up))
            colour = _hash(mixed)
            now = len(np.unique(colour))
            if now == colours:
                break
            colours = now
        _, self.colour = np.unique(colour, return_inverse=True)
        size = np.bincount(self.colour)
        self.movable = (size[self.colour] > 1) & ~self.is_fixed

    def _restrict(self) -> bool:
        """Tie what determines each other and fix what cannot be followed; whether anything changed."""
        maps: dict[int, list[tuple[int, Array, Array]]] = {}
        changed = False
        for index, (children, parents) in enumerate(self.relations):
            moving = self.movable[children] & self.movable[parents]
            children, parents = children[moving], parents[moving]
            if len(np.unique(children)) < len(children):
                self._fix(parents, "a channel that belongs to several blocks")
                return True
            for colour in np.unique(self.colour[children]):
                of_colour = self.colour[children] == colour
                one, other = children[of_colour], parents[of_colour]
                if len(np.unique(other)) == len(other):
                    changed |= self._tie(one, other)
                else:
                    maps.setdefault(int(colour), []).append((index, one, other))
        if changed:
            return True
        for lifted in maps.values():
            if len(lifted) > 1:
                changed |= self._one_parent(lifted)
        return changed

    def _one_parent(self, candidates: list[tuple[int, Array, Array]]) -> bool:
        """Of several parents keep the finest; a coarser one becomes its parent; what crosses it is fixed."""
        candidates = sorted(candidates, key=lambda entry: -len(np.unique(entry[2])))
        _, children, finest = candidates[0]
        changed = False
        for index, one, parents in candidates[1:]:
            assert np.array_equal(children, one)
            pairs = np.unique(np.stack([finest, parents]), axis=1)
            if pairs.shape[1] > len(np.unique(finest)):
                self._fix(np.concatenate([finest, parents]), "blocks that cross other blocks")
                return True
            if len(np.unique(pairs[1])) == pairs.shape[1]:
                changed |= self._tie(pairs[0], pairs[1])
            else:
                self.nestings.append((self._a_wire(pairs[0]), self._a_wire(pairs[1])))
                changed = True
            kept = self.nestings[index]
            away = np.isin(self.component[kept[0]], children)
            self.nestings[index] = (kept[0][~away], kept[1][~away])
        return changed

    def _a_wire(self, components: Array) -> Array:
        _, first = np.unique(self.component, return_index=True)
        return first[components]

    def _tie(self, one: Array, other: Array) -> bool:
        if np.array_equal(one, other):
            return False
        self.ties.append((self._a_wire(one), self._a_wire(other)))
        return True

    def _fix(self, components: Array, reason: str) -> None:
        wires = self._a_wire(np.unique(components))
        self.fixed.append(wires)
        self.reasons.append((reason, wires))


def find_structure(wires: Wires, placements: Sequence[Placement]) -> Structure:
    """Components of tied wires and the levels in which they may be permuted."""
    graph = _Graph(wires, placements)
    graph.settle()
    placed = np.zeros(graph.number, dtype=bool)
    for place in placements:
        placed[graph.component[place.wires.numpy()]] = True
    parent = np.full(graph.number, -1)
    for children, parents in graph.relations:
        moving = graph.movable[children] & graph.movable[parents]
        parent[children[moving]] = parents[moving]
    roots = np.flatnonzero(graph.movable & (parent < 0))
    below = _children(parent)
    levels = [_level(graph.colour, below, cell) for cell in _by_colour(graph.colour, roots)]
    kept = [level for level in levels if placed[level.wires()].any()]
    counts = tuple((reason, len(np.unique(graph.component[fixed]))) for reason, fixed in graph.reasons)
    return Structure(graph.component, tuple(kept), tuple(graph.relations), counts)


def _children(parent: Array) -> dict[int, Array]:
    having = np.flatnonzero(parent >= 0)
    if not len(having):
        return {}
    order = having[np.argsort(parent[having], kind="stable")]
    parents, starts = np.unique(parent[order], return_index=True)
    return dict(zip(parents.tolist(), np.split(order, starts[1:]), strict=True))


def _by_colour(colour: Array, wires: Array) -> list[Array]:
    """Cells of one colour, by their first wire."""
    order = wires[np.argsort(colour[wires], kind="stable")]
    _, starts = np.unique(colour[order], return_index=True)
    return sorted(np.split(order, starts[1:]), key=lambda cell: int(cell[0])) if len(order) else []


def _level(colour: Array, below: dict[int, Array], units: Array) -> Level:
    cells = [_by_colour(colour, below.get(int(unit), np.empty(0, dtype=np.int64))) for unit in units]
    cells = [sorted(members, key=lambda cell: int(colour[cell[0]])) for members in cells]
    kinds = range(len(cells[0]))
    children = tuple(tuple(_level(colour, below, members[kind]) for members in cells) for kind in kinds)
    return Level(int(colour[units[0]]), units, children)


def _hash(values: Array | np.uint64) -> Array:
    """Mixed bits of 64-bit integers (the finaliser of splitmix64)."""
    mixed = np.atleast_1d(np.asarray(values, dtype=np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _seed(name: str, number: int) -> int:
    """A 64-bit number for a name, the same in every process."""
    value = 1469598103934665603
    for byte in f"{name}/{number}".encode():
        value = ((value ^ byte) * 1099511628211) % (1 << 64)
    return value
