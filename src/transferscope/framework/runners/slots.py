"""Devices granted to the most urgent request first, and to equally urgent ones in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


PATIENCE = 32
"""Number of later requests that may be served before one that waits."""


@dataclass
class _Request(Generic[Key]):
    key: Key
    count: int
    arrival: int
    overtaken: int = 0


class DevicePool(Generic[Key]):
    """Grants numbers of devices to requests, the most urgent first, equals first in, first out.

    The first in this order is served before any other, also where another would fit at once: so a large request waits
    for as long as those before it run, and no longer. Who has been overtaken by `PATIENCE` later requests comes before
    all others, so that more urgent ones that keep coming starve nobody. Not safe across threads: its owner asks and
    gives back.
    """

    def __init__(self, devices: Iterable[int], urgency: Callable[[Key], float] = lambda _: 0.0) -> None:
        """urgency: of a request, by its name; larger is earlier."""
        self._free = sorted(devices)
        self.size = len(self._free)
        self._urgency = urgency
        self._arrivals = 0
        self._waiting: list[_Request[Key]] = []
        self._granted: dict[Key, tuple[int, ...]] = {}

    def request(self, key: Key, count: int) -> None:
        """Queue a request under a name of its own. ValueError where it could never be granted."""
        if not 1 <= count <= self.size:
            raise ValueError(f"{key}: asks for {count} devices of {self.size}")
        self._arrivals += 1
        self._waiting.append(_Request(key, count, self._arrivals))

    def grant(self) -> list[tuple[Key, tuple[int, ...]]]:
        """The requests that can be served now, in order, each with its devices."""
        served = []
        while self._free and self._waiting:
            first = min(self._waiting, key=self._order)
            if first.count > len(self._free):
                break
            self._waiting.remove(first)
            for other in self._waiting:
                other.overtaken += other.arrival < first.arrival
            devices, self._free = tuple(self._free[: first.count]), self._free[first.count :]
            self._granted[first.key] = devices
            served.append((first.key, devices))
        return served

    def give_back(self, key: Key) -> None:
        """The devices of `key` are free again."""
        self._free = sorted([*self._free, *self._granted.pop(key)])

    def add(self, count: int) -> None:
        """More devices are there."""
        self._free += range(self.size, self.size + count)
        self.size += count

    def _order(self, request: _Request[Key]) -> tuple[bool, float, int]:
        starves = request.overtaken >= PATIENCE
        return not starves, 0.0 if starves else -self._urgency(request.key), request.arrival
