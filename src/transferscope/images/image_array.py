"""Arrays of images that are not one array: several in a row, or some rows of another; nothing is copied until read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np

Index = int | slice | np.ndarray


class ImageArray(Protocol):
    """The interface of a uint8 array (N, C, H, W) and of every view below."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Index) -> np.ndarray: ...


def take(images: ImageArray, rows: np.ndarray) -> np.ndarray:
    """A new array of the rows (int64, not negative), in their order."""
    if isinstance(images, np.ndarray):
        return np.take(images, rows, axis=0)
    return images[rows]


def take_into(images: ImageArray, rows: np.ndarray, out: np.ndarray) -> None:
    """Write the images at `rows` into `out`, of their shape, without memory between where the array allows it."""
    if isinstance(images, np.ndarray):
        np.take(images, rows, axis=0, out=out, mode="clip")  # any other mode goes through a buffer
    elif isinstance(images, View):
        images._take_into(rows, out)
    else:
        out[...] = images[rows]


def resolve_rows(index: Index | Sequence[int], length: int) -> np.ndarray:
    """int64 rows, counted from the start, that a slice, mask or list of indices means; IndexError outside."""
    if isinstance(index, slice):
        return np.arange(length, dtype=np.int64)[index]
    rows = np.asarray(index)
    if rows.dtype == bool:
        if rows.shape != (length,):
            raise IndexError(f"a mask of shape {rows.shape} for {length} examples")
        return np.flatnonzero(rows)
    if rows.size and not np.issubdtype(rows.dtype, np.integer):
        raise IndexError(f"indices of type {rows.dtype}, expected whole numbers")
    rows = rows.astype(np.int64)
    if rows.size and (rows.min() < -length or rows.max() >= length):
        raise IndexError(f"index outside 0..{length - 1}")
    return np.where(rows < 0, rows + length, rows)


class View(ABC):
    """Indexing by a number, a slice or an array, from `_take`."""

    shape: tuple[int, ...]
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> np.ndarray:
        rows = resolve_rows(index, len(self))
        return self._take(rows) if rows.ndim else self._take(rows[None])[0]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All images in memory."""
        return self[:] if dtype is None else self[:].astype(dtype)

    @abstractmethod
    def _take(self, rows: np.ndarray) -> np.ndarray:
        """Copies of the images at `rows`, int64 (n,), in that order."""

    def _take_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        """`_take` into memory that is there."""
        out[...] = self._take(rows)


class ConcatenatedImages(View):
    """Several arrays of images of one size, one after the other."""

    def __init__(self, parts: Sequence[ImageArray]) -> None:
        assert len({part.shape[1:] for part in parts}) == 1
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self._ends[-1]), *parts[0].shape[1:])

    def _take(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        part_of = np.searchsorted(self._ends, rows, side="right")
        for number, part in enumerate(self._parts):
            wanted = np.flatnonzero(part_of == number)
            if len(wanted):
                start = int(self._ends[number]) - len(part)
                images[wanted] = take(part, rows[wanted] - start)
        return images


class SelectedImages(View):
    """Some rows of an array of images."""

    def __init__(self, images: ImageArray, rows: np.ndarray) -> None:
        self._images = images
        self._rows = rows
        self.shape = (len(rows), *images.shape[1:])
        self.dtype = images.dtype

    def _take(self, rows: np.ndarray) -> np.ndarray:
        return take(self._images, self._rows[rows])

    def _take_into(self, rows: np.ndarray, out: np.ndarray) -> None:
        take_into(self._images, self._rows[rows], out)
