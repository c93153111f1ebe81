"""Devices granted first in, first out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class DevicePool(Generic[Key]):
    """Grants numbers of devices to requests in the order in which they came.

    The oldest request is served before any younger one, also where a younger one would fit at once: so a large request
    waits for as long as those before it run, and no longer. Not safe across threads: its owner asks and gives back.
    """

    def __init__(self, devices: Iterable[int]) -> None:
        self._free = sorted(devices)
        self.size = len(self._free)
        self._waiting: list[tuple[Key, int]] = []
        self._granted: dict[Key, tuple[int, ...]] = {}

    def request(self, key: Key, count: int) -> None:
        """Queue a request under a name of its own. ValueError where it could never be granted."""
        if not 1 <= count <= self.size:
            raise ValueError(f"{key}: asks for {count} devices of {self.size}")
        self._waiting.append((key, count))

    def grant(self) -> list[tuple[Key, tuple[int, ...]]]:
        """The requests that can be served now, in order, each with its devices."""
        served = []
        while self._waiting and self._waiting[0][1] <= len(self._free):
            key, count = self._waiting.pop(0)
            devices, self._free = tuple(self._free[:count]), self._free[count:]
            self._granted[key] = devices
            served.append((key, devices))
        return served

    def give_back(self, key: Key) -> None:
        """The devices of `key` are free again."""
        self._free = sorted([*self._free, *self._granted.pop(key)])
