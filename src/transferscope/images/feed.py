"""Batches of stored images on the device, by index, without waiting for them.

The order of the examples is that of `experiment.seeds.epoch_order`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from transferscope.images.split import PackedSplit

RESIDENT_SHARE = 0.4
"""Largest part of the GPU's free memory that a split may take to stay on it whole."""

READERS = 3
"""Threads that gather images: one keeps up with some 10,000 images of 256 pixels a second from a warm memory map."""

SLOTS = 2 * READERS
"""Batches that are read or copied while the GPU computes."""


class Feed:
    """Give uint8 batches `(n, channels, height, width)` of a split on a device.

    On the CPU they are gathered from the memory map, which takes far less time than an optimizer step. On a GPU a
    split that fits is copied there once; a larger one comes through a `Ring`, ahead of its use.
    """

    def __init__(self, split: PackedSplit, device: torch.device, *, keep_resident: bool = True) -> None:
        self.split = split
        self.device = device
        self.resident = _resident(split, device) if keep_resident and device.type == "cuda" else None

    def batches(self, batches_of_indices: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Yield one tensor per array of indices, in order."""
        if self.resident is not None:
            for indices in batches_of_indices:
                yield self.resident[torch.from_numpy(np.ascontiguousarray(indices)).to(self.device, non_blocking=True)]
        elif self.device.type == "cuda":
            yield from Ring(self.split, side_stream(self.device)).batches(batches_of_indices)
        else:
            for indices in batches_of_indices:
                yield self.split.gather(indices).to(self.device)


class Copies(Protocol):
    """The way to a device, asynchronous: memory may be written again only after a copy has come to its end."""

    def memory(self, shape: tuple[int, ...]) -> Tensor:
        """uint8 memory to copy from."""
        ...

    def send(self, memory: Tensor) -> tuple[Tensor, Callable[[], None]]:
        """A copy on the device, for work that is queued there now, and a function that waits until it is made."""
        ...

    def queued(self) -> Callable[[], None]:
        """A function that waits until the work is done that is queued on the device now."""
        ...


class SideStream:
    """Copies from pinned memory beside the computations of a GPU, which wait for what they use alone."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def memory(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)

    def send(self, memory: Tensor) -> tuple[Tensor, Callable[[], None]]:
        using, done = torch.cuda.current_stream(self.device), torch.cuda.Event()
        with torch.cuda.stream(self.stream):
            copied = memory.to(self.device, non_blocking=True)
            done.record(self.stream)
        using.wait_event(done)
        copied.record_stream(using)  # its memory is not given to another copy before that work is done
        return copied, done.synchronize

    def queued(self) -> Callable[[], None]:
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))
        return done.synchronize


@cache
def side_stream(device: torch.device) -> SideStream:
    """The one side stream of a device: memory of copies is kept for the stream that it was made on."""
    return SideStream(device)


class Ring:
    """Batches that several threads gather straight into memory which is used again and again, ahead of their use.

    Pinning memory anew for each batch would cost more than gathering it. At most `slots` batches lie on the device
    whose use has not ended, however far the host queues its work ahead.
    """

    def __init__(self, split: PackedSplit, copies: Copies, *, readers: int = READERS, slots: int = SLOTS) -> None:
        self.split, self.copies, self.readers, self.slots = split, copies, readers, slots

    def batches(self, batches_of_indices: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Yield one tensor per array of indices, in order."""
        remaining = iter(batches_of_indices)
        uses: deque[Callable[[], None]] = deque()
        with ThreadPoolExecutor(max_workers=self.readers, thread_name_prefix="feed") as readers:
            waiting = deque(
                (slot, readers.submit(self._read, slot, indices))
                for slot, indices in zip(_slots(self.slots), remaining, strict=False)
            )
            while waiting:
                slot, reading = waiting.popleft()
                if len(uses) == self.slots:
                    uses.popleft()()
                copied, slot.wait = self.copies.send(reading.result())
                for indices in islice(remaining, 1):
                    waiting.append((slot, readers.submit(self._read, slot, indices)))
                yield copied
                uses.append(self.copies.queued())

    def _read(self, slot: _Slot, indices: np.ndarray) -> Tensor:
        slot.wait()
        shape = (len(indices), *self.split.images.shape[1:])
        if slot.memory is None or len(slot.memory) < len(indices):
            slot.memory = self.copies.memory(shape)
        return self.split.gather(indices, out=slot.memory[: len(indices)])


@dataclass
class _Slot:
    """Memory of one batch, and a function that waits until it may be written again."""

    memory: Tensor | None = None
    wait: Callable[[], None] = lambda: None


def _slots(number: int) -> Iterator[_Slot]:
    return (_Slot() for _ in range(number))


def _resident(split: PackedSplit, device: torch.device) -> Tensor | None:
    """All images on the GPU, or None where they would take more than their share of its free memory."""
    free, _ = torch.cuda.mem_get_info(device)
    shape = tuple(split.images.shape)
    if int(np.prod(shape)) * split.images.dtype.itemsize > RESIDENT_SHARE * free:
        return None
    images = torch.empty(shape, dtype=torch.from_numpy(np.empty(0, split.images.dtype)).dtype, device=device)
    for start in range(0, len(split), 4096):
        images[start : start + 4096] = torch.from_numpy(np.array(split.images[start : start + 4096])).to(device)
    return images
