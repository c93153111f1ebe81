"""Packed images that are compared with their digests when they are first read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from transferscope.images.image_array import View, take_into
from transferscope.system.stored import DamagedError, Stamp, stamp

IMAGES = "images.npy"
REPACK = "`kedro run --pipelines data_prep` packs it again"
_HEADER_BYTES = 128
_CHUNK = 1024

_read: dict[Path, tuple[Stamp, np.ndarray]] = {}
"""By file, and as it was then: which of its images this process has found whole."""


class VerifiedImages(View):
    """uint8 images (N, C, H, W) in a .npy file, memory-mapped, with the sha256 of each.

    An image is hashed when this process reads it for the first time, so opening costs nothing that grows with the
    number of images but a bit for each. DamagedError names the first that is not as it was packed.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int], digests: np.ndarray) -> None:
        """digests: uint8 (N, 32). DamagedError where the file has another size or header than `shape` asks for."""
        self.path = path
        self.shape = shape
        size = _HEADER_BYTES + int(np.prod(shape))
        with path.open("rb") as file:
            if file.read(_HEADER_BYTES) != npy_header(shape) or path.stat().st_size != size:
                raise DamagedError(path, f"it is not of {size} bytes with the header of a uint8 array {shape}", REPACK)
        # A plain view of the mapped memory: every access through np.memmap costs microseconds.
        mapped = np.memmap(path, np.uint8, mode="r", offset=_HEADER_BYTES, shape=shape)
        self._images = mapped.view(np.ndarray)
        self._digests = digests
        now = stamp(path)
        known = _read.get(path.absolute())
        if known is None or known[0] != now:
            known = _read[path.absolute()] = (now, np.zeros(len(self), dtype=bool))
        self._verified = known[1]

    def _take(self, rows: np.ndarray) -> np.ndarray:
        if not self._verified[rows].all():
            self._verify(rows)
        return np.take(self._images, rows, axis=0)

    def _take_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        if not self._verified[rows].all():
            self._verify(rows)
        take_into(self._images, rows, out)

    def verify(self, num_workers: int, progress: Callable[[int], None]) -> None:
        """Read all images that were not read yet, in threads; `progress` is called with the number of images done."""
        chunks = [np.arange(start, min(start + _CHUNK, len(self))) for start in range(0, len(self), _CHUNK)]
        with ThreadPoolExecutor(num_workers, thread_name_prefix="verify") as executor:
            for chunk, _ in zip(chunks, executor.map(self._verify, chunks), strict=True):
                progress(len(chunk))

    def _verify(self, rows: np.ndarray) -> None:
        for row in rows[~self._verified[rows]].tolist():
            if hashlib.sha256(self._images[row]).digest() != self._digests[row].tobytes():
                with suppress(OSError):
                    os.utime(self.path)  # whoever asks next whether the split is whole reads all images
                raise DamagedError(self.path, f"image {row} is not what was packed", REPACK)
            self._verified[row] = True


def npy_header(shape: tuple[int, ...]) -> bytes:
    """A .npy header of 128 bytes, whatever the shape, so that the shape can be changed in place."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {tuple(int(n) for n in shape)}, }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"
