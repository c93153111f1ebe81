"""Half-done packing that a later attempt continues.

A hidden folder beside the split's holds the images packed so far and a journal: for each example the fingerprint of its
file, the sha256 of its stored pixels, the size of the original and a checksum of the row. A row of the journal is
written after its image; an attempt that continues checks rows and stored pixels, so whatever a killed process or a bad
disk left, only whole images are kept.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import zlib
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from transferscope.images.verified import npy_header
from transferscope.system.atomic import replace_folder
from transferscope.system.errors import UserError

JOURNAL_DTYPE = np.dtype([("fingerprint", "<u8"), ("digest", "u1", (32,)), ("size", "<i4", (2,)), ("checksum", "<u4")])
_FULL = (errno.ENOSPC, errno.EDQUOT)


class PartialSplit:
    """The folder in which a split grows; a context manager that holds a lock on it.

    Left by an error or a kill the folder stays for the next attempt, except when the disk is full.
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, int, int, int]) -> None:
        self.target = folder
        self.folder = folder.parent / f".{folder.name}.partial"
        self.shape = shape
        self._key = key
        self._image_bytes = int(np.prod(shape[1:]))
        self._header = npy_header(shape)

    def __enter__(self) -> PartialSplit:
        try:
            self._open()
        except OSError as error:
            self._close()
            raise self._translate(error) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._close()
        if isinstance(error, OSError) and error.errno in _FULL:
            raise self._translate(error) from error

    def _open(self) -> None:
        self._images_file = self._journal_file = self._lock_file = -1
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{self.target}: another process is packing this split: wait for it to end") from error
        continued = self._is_same()
        if not continued:
            for name in ("key.json", "images.npy", "journal.bin"):
                (self.folder / name).unlink(missing_ok=True)
        self._images_file = os.open(self.folder / "images.npy", os.O_RDWR | os.O_CREAT, 0o644)
        self._journal_file = os.open(self.folder / "journal.bin", os.O_RDWR | os.O_CREAT, 0o644)
        if continued:
            stored = os.pread(self._journal_file, self.shape[0] * JOURNAL_DTYPE.itemsize, 0)
            self.journal = np.frombuffer(stored, dtype=JOURNAL_DTYPE).copy()
        else:
            self._reserve()
            self.journal = np.zeros(self.shape[0], dtype=JOURNAL_DTYPE)

    def _reserve(self) -> None:
        """Take all the space at once, so that a full disk shows now and not after hours."""
        os.posix_fallocate(self._images_file, 0, len(self._header) + self.shape[0] * self._image_bytes)
        os.posix_fallocate(self._journal_file, 0, self.shape[0] * JOURNAL_DTYPE.itemsize)
        os.pwrite(self._images_file, self._header, 0)
        (self.folder / "key.json").write_text(self._key)

    def _is_same(self) -> bool:
        sizes = {
            "images.npy": len(self._header) + self.shape[0] * self._image_bytes,
            "journal.bin": self.shape[0] * JOURNAL_DTYPE.itemsize,
        }
        try:
            return (self.folder / "key.json").read_text() == self._key and all(
                (self.folder / name).stat().st_size == size for name, size in sizes.items()
            )
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        for file in (self._images_file, self._journal_file, self._lock_file):
            if file >= 0:
                os.close(file)
        self._images_file = self._journal_file = self._lock_file = -1

    def _translate(self, error: OSError) -> OSError | UserError:
        if error.errno not in _FULL:
            return UserError(f"{self.target}: cannot be written ({error.strerror})")
        shutil.rmtree(self.folder, ignore_errors=True)
        needed = self.shape[0] * self._image_bytes
        return UserError(
            f"no space left on device while writing {self.target}: {needed / 1e9:.2f} GB are needed: "
            f"free some space and run again"
        )

    def _offset(self, row: int) -> int:
        return len(self._header) + row * self._image_bytes

    def write(self, row: int, image: np.ndarray) -> bytes:
        """Store one image and return the sha256 of its pixels; several threads may write at a time."""
        pixels = image.data.cast("B")
        assert len(pixels) == self._image_bytes
        written = os.pwrite(self._images_file, pixels, self._offset(row))
        if written != len(pixels):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return hashlib.sha256(pixels).digest()

    def note(self, start: int, stop: int) -> None:
        """Write rows [start, stop) of the journal, after their images."""
        rows = self.journal[start:stop]
        rows["checksum"] = _checksums(rows)
        os.pwrite(self._journal_file, rows.tobytes(), start * JOURNAL_DTYPE.itemsize)

    def forget_stale(self, fingerprints: np.ndarray, executor: Executor) -> None:
        """Drop journal rows that are damaged, whose file has changed, or whose stored pixels are not those noted."""
        self.journal[self.journal["checksum"] != _checksums(self.journal)] = 0
        done = self.journal["fingerprint"] != 0
        stale = done & (self.journal["fingerprint"] != fingerprints)
        self.journal[stale] = 0
        rows = np.flatnonzero(done & ~stale)
        pieces = np.array_split(rows, max(1, len(rows) // 256))
        whole = list(executor.map(self._are_whole, pieces))
        broken = rows[~np.concatenate(whole)]
        self.journal[broken] = 0
        self.note(0, len(self.journal))

    def _are_whole(self, rows: np.ndarray) -> np.ndarray:
        whole = np.zeros(len(rows), dtype=bool)
        for i, row in enumerate(rows.tolist()):
            pixels = os.pread(self._images_file, self._image_bytes, self._offset(row))
            whole[i] = hashlib.sha256(pixels).digest() == self.journal["digest"][row].tobytes()
        return whole

    def keep_only(self, rows: np.ndarray) -> None:
        """Close the gaps that dropped images leave; `rows` are those to keep, ascending."""
        for new, old in enumerate(rows.tolist()):
            if new != old:
                pixels = os.pread(self._images_file, self._image_bytes, self._offset(old))
                os.pwrite(self._images_file, pixels, self._offset(new))
        header = npy_header((len(rows), *self.shape[1:]))
        assert len(header) == len(self._header)
        os.pwrite(self._images_file, header, 0)
        os.ftruncate(self._images_file, self._offset(len(rows)))

    def publish(self) -> None:
        """Flush everything to disk and move the folder to its place."""
        (self.folder / "key.json").unlink()
        (self.folder / "journal.bin").unlink()
        for path in self.folder.iterdir():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.close(file)
        (self.folder / "lock").unlink()
        replace_folder(self.folder, self.target)


def _checksums(rows: np.ndarray) -> np.ndarray:
    """uint32 (n,): of each row without its checksum."""
    width = JOURNAL_DTYPE.itemsize - 4
    content = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    return np.array([zlib.crc32(row[:width].tobytes()) for row in content], dtype=np.uint32)
