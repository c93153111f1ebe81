"""The best permutation of one level of channels, given how well each channel of one network suits each of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from transferscope.analysis.alignment.structure import Level

Array = np.ndarray

_TIE = 1e-7
"""A gain below this part of the largest one does not move a channel."""


@dataclass(frozen=True)
class Gains:
    """Gain of putting a channel of b into the place of a channel of a, for channels of one colour."""

    channels: Array
    """(n,) sorted components."""
    values: Array
    """(n, n) float64: places of a by channels of b."""

    def between(self, places: Array, channels: Array) -> Array:
        """The part of some places and channels; without a copy where these are all."""
        if np.array_equal(places, self.channels) and np.array_equal(channels, self.channels):
            return self.values
        rows, columns = np.searchsorted(self.channels, places), np.searchsorted(self.channels, channels)
        return self.values[np.ix_(rows, columns)]


@dataclass
class Assignment:
    """Origin of the channel of each place: `source[places[i]] = channels[i]`."""

    gain: float = 0.0
    tied: int = 0
    pairs: list[tuple[Array, Array]] = field(default_factory=list)

    def write(self, source: Array) -> None:
        for places, channels in self.pairs:
            source[places] = channels


def best_assignment(level: Level, gains: Mapping[int, Gains], *, ties: bool = False) -> Assignment:
    """The permutation of a level, its blocks and what is within them, of the largest sum of gains.

    Blocks are assigned by the sums of the best assignments within them, so the optimum is exact where gains within
    blocks do not depend on each other. Among equally good ones the one that moves least. `ties` counts those that could
    change places.
    """
    return _best(level, level, gains, ties)


def _best(places: Level, channels: Level, gains: Mapping[int, Gains], ties: bool) -> Assignment:
    if places.children:
        return _best_blocks(places, channels, gains, ties)
    value = _own(places, channels, gains)
    rows, columns = _assign(value)
    tied = _tied(value, columns) if ties else 0
    pair = (places.units[rows], channels.units[columns])
    return Assignment(float(value[rows, columns].sum()), tied, [pair])


def _best_blocks(places: Level, channels: Level, gains: Mapping[int, Gains], ties: bool) -> Assignment:
    """Blocks and what is within them: pairs of blocks are solved only where a bound says that they may be chosen.

    Chosen by their bounds, then solved; once all that are chosen are solved, no other choice can be better.
    """
    count = len(places.units)
    own = _own(places, channels, gains)
    value = own + _bounds(places, channels, gains)
    within: dict[tuple[int, int], list[Assignment]] = {}
    while True:
        rows, columns = _assign(value)
        open_pairs = [pair for pair in zip(rows.tolist(), columns.tolist(), strict=True) if pair not in within]
        if not open_pairs:
            break
        for row, column in open_pairs:
            kinds = zip(places.children, channels.children, strict=True)
            chosen = within[row, column] = [_best(into[row], out_of[column], gains, ties) for into, out_of in kinds]
            value[row, column] = own[row, column] + sum(each.gain for each in chosen)
    result = Assignment(float(value[rows, columns].sum()), 0, [(places.units[rows], channels.units[columns])])
    for row, column in zip(range(count), columns.tolist(), strict=True):
        for inner in within[row, column]:
            result.pairs += inner.pairs
            result.tied += inner.tied
    return result


def _own(places: Level, channels: Level, gains: Mapping[int, Gains]) -> Array:
    """Gains of the units themselves; 0 where they stand on no axis."""
    count = len(places.units)
    own = gains.get(places.colour)
    return np.zeros((count, count)) if own is None else own.between(places.units, channels.units)


def _bounds(places: Level, channels: Level, gains: Mapping[int, Gains]) -> Array:
    """For each pair of blocks no less than the best assignment within: every place takes its best channel."""
    count = len(places.units)
    bounds = np.zeros((count, count))
    for into, out_of in zip(places.children, channels.children, strict=True):
        own = gains.get(into[0].colour)
        if own is not None:
            rows = np.concatenate([cell.units for cell in into])
            columns = np.concatenate([cell.units for cell in out_of])
            size = len(into[0].units)
            block = own.between(rows, columns).reshape(count, size, count, size)
            bounds += np.minimum(block.max(3).sum(1), block.max(1).sum(2))
        if into[0].children:
            for row in range(count):
                for column in range(count):
                    bounds[row, column] += _bounds(into[row], out_of[column], gains).max(1).sum()
    return bounds


def _assign(value: Array) -> tuple[Array, Array]:
    """The assignment of the largest sum; `value` is as before afterwards, but was not copied, for it may be large."""
    diagonal = np.diag(value).copy()
    np.fill_diagonal(value, diagonal + _TIE * max(float(value.max()), -float(value.min())))
    rows, columns = linear_sum_assignment(value, maximize=True)
    np.fill_diagonal(value, diagonal)
    return rows, columns


def _tied(value: Array, columns: Array) -> int:
    """Channels that could change places with another at no loss."""
    if len(value) < 2:
        return 0
    value = value[:, columns]
    own = np.diag(value)
    bound = 1e-9 * max(float(value.max()), -float(value.min()), 1e-300)
    tied = 0
    for start in range(0, len(value), 256):
        part = slice(start, start + 256)
        loss = own[part, None] + own[None, :] - value[part] - value.T[part]
        loss[np.arange(len(loss)), np.arange(start, start + len(loss))] = np.inf
        tied += int((loss.min(axis=1) <= bound).sum())
    return tied
