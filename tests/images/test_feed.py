"""Batches of a split come in order, whoever reads them and however late their copies are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from toy_split import toy_split
from transferscope.images.feed import Feed, Ring
from transferscope.images.image_array import ConcatenatedImages


class LateCopies:
    """A way to a device on which copies are made some time after they were asked for, each by a thread of its own."""

    def __init__(self) -> None:
        self.memories: list[int] = []
        self.threads: list[threading.Thread] = []
        self.in_use = self.most_in_use = 0

    def memory(self, shape: tuple[int, ...]) -> torch.Tensor:
        self.memories.append(shape[0])
        return torch.empty(shape, dtype=torch.uint8)

    def send(self, memory: torch.Tensor) -> tuple[torch.Tensor, Callable[[], None]]:
        copied = torch.empty_like(memory)

        def copy() -> None:
            time.sleep(0.003 * (len(self.threads) % 3))
            copied.copy_(memory)

        self.threads.append(threading.Thread(target=copy))
        self.threads[-1].start()
        self.in_use += 1
        self.most_in_use = max(self.most_in_use, self.in_use)
        return copied, self.threads[-1].join

    def queued(self) -> Callable[[], None]:
        def wait() -> None:
            self.in_use -= 1

        return wait


@pytest.mark.parametrize("slots", [1, 2, 6])
@pytest.mark.parametrize("kind", ["array", "packed", "subset", "union"])
def test_a_ring_gives_every_batch_though_copies_are_late(kind: str, slots: int, tmp_path: Path) -> None:
    """Memory is not written again before its copy is made, batches come in order, and no more memory than slots.

    Neither on the host nor on the device, though the host never waits for the device itself.
    """
    split = toy_split(40, folder=None if kind == "array" else tmp_path / "split")
    split = split.subset(np.arange(39, 3, -1)) if kind == "subset" else split
    if kind == "union":
        split.images = ConcatenatedImages([split.images, toy_split(9, seed=1).images])
    batches = [np.random.default_rng(seed).integers(0, 36, 5 + seed % 3) for seed in range(30)]
    copies = LateCopies()
    given = list(Ring(split, copies, readers=3, slots=slots).batches(iter(batches)))
    for thread in copies.threads:
        thread.join()
    assert len(given) == len(batches)
    for indices, images in zip(batches, given, strict=True):
        assert torch.equal(images, split.gather(indices))
    assert len(copies.memories) <= 3 * slots  # one for each slot, or a larger one for a larger batch
    assert copies.most_in_use == slots


def test_a_ring_passes_on_the_error_of_a_reader() -> None:
    """And ends its threads."""
    with pytest.raises(IndexError, match="index outside"):
        list(Ring(toy_split(4), LateCopies()).batches([np.array([0]), np.array([7])]))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


@pytest.mark.parametrize("num_batches", [0, 1, 2, 7])
def test_batches_read_ahead_are_the_same(num_batches: int) -> None:
    """What is read ahead comes in order, and equals what is gathered on the spot."""
    split = toy_split(40)
    feed, copies = Feed(split, torch.device("cpu")), LateCopies()
    wanted = [np.arange(5) + 3 * number for number in range(num_batches)]
    ahead = list(Ring(split, copies).batches(iter(wanted)))
    for thread in copies.threads:
        thread.join()
    assert len(ahead) == num_batches
    for batch, plain, indices in zip(ahead, feed.batches(wanted), wanted, strict=True):
        assert torch.equal(batch, plain)
        assert torch.equal(batch, split.gather(indices))
