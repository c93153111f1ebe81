"""Batches of stored images on the device, by index, without waiting for them.

The order of the examples is that of `experiment.seeds.epoch_order`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from transferscope.images.split import PackedSplit

RESIDENT_SHARE = 0.4
"""Largest part of the GPU's free memory that a split may take to stay on it whole."""

LOOK_AHEAD = 3
"""Batches that are read and copied while the GPU computes."""


class Feed:
    """Give uint8 batches `(n, channels, height, width)` of a split on a device.

    On the CPU they are gathered from the memory map, which takes far less time than an optimizer step. On a GPU a
    split that fits is copied there once; a larger one is gathered by a thread, ahead of its use, through pinned memory.
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
            yield from self._ahead(batches_of_indices)
        else:
            for indices in batches_of_indices:
                yield self.split.gather(indices).to(self.device)

    def _ahead(self, batches_of_indices: Iterable[np.ndarray]) -> Iterator[Tensor]:
        remaining = iter(batches_of_indices)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed") as reader:
            waiting: list[Future[Tensor]] = [reader.submit(self._read, item) for item in islice(remaining, LOOK_AHEAD)]
            while waiting:
                batch = waiting.pop(0).result()
                waiting += [reader.submit(self._read, item) for item in islice(remaining, 1)]
                yield batch.to(self.device, non_blocking=True)

    def _read(self, indices: np.ndarray) -> Tensor:
        batch = self.split.gather(indices)
        return batch.pin_memory() if self.device.type == "cuda" else batch


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
