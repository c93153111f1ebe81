"""Packing: every image of a part decoded and presized once, in parallel, into one memory-mapped array."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from transferscope.experiment.options import PictureOptions
from transferscope.images.decode import UnknownRangeError, decode_image, store_image
from transferscope.images.example_columns import columns_digest
from transferscope.images.file_tree import FileTree, printable
from transferscope.images.files import open_tree
from transferscope.images.partial import PartialSplit
from transferscope.images.source import ExampleList, ImageSource, warn_once
from transferscope.images.source_digest import file_fingerprints, picture_key, source_digest
from transferscope.images.split import IMAGE_DIGESTS, DroppedImage, PackedSplit, SplitInfo
from transferscope.images.split_files import content_digest, note_source, write_split_files
from transferscope.system.errors import UserError
from transferscope.system.progress import progress_bar
from transferscope.system.stored import DamagedError

log = logging.getLogger(__name__)

CHUNK = 32
"""Images that a thread packs before the journal notes them."""


def pack_split(
    source: ImageSource,
    part: str,
    pictures: PictureOptions,
    folder: str | Path,
    *,
    num_workers: int | None = None,
    on_bad_image: Literal["stop", "drop"] = "stop",
    value_range: tuple[float, float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> PackedSplit:
    """Decode, presize and store all images of a part, and open the result.

    A folder that already holds what these files and settings would give is opened as it is; this is seen from names,
    sizes and times of the files, without reading images. Packed images that were written since they were packed are
    compared with their digests. Otherwise the folder is made anew and replaces an old one when
    it is complete. A killed or failed attempt is continued by the next one. Memory does not grow with the number of
    images. The digest depends on the stored content alone.

    Args:
        part: "train", "test" or "validation".
        folder: Where the split shall lie.
        num_workers: Threads; None: one for each core. (Decoding and resizing do not hold Python's lock, so threads do
            as well as processes.)
        on_bad_image: "stop" at the first file that is no whole image, or "drop" it and go on; what was dropped is kept
            in the split's `dropped`.
        value_range: Values that become black and white in grey images of more than 8 bits.
        progress: Called with the number of images done since the last call.

    Raises:
        UserError: Naming the file at fault, a full disk, or another process that packs the same split.
    """
    folder = Path(folder)
    if on_bad_image not in ("stop", "drop"):
        raise UserError(f"on_bad_image is {on_bad_image!r}: it may be 'stop' or 'drop'")
    if num_workers is not None and num_workers < 1:
        raise UserError(f"num_workers is {num_workers}: give a positive number, or None for one for each core")
    if value_range is not None and not -math.inf < value_range[0] < value_range[1] < math.inf:
        raise UserError(f"value_range is {list(value_range)}: give the value of black and then the larger one of white")
    examples = source.part(part)
    if not len(examples):
        raise UserError(f"{source.name}: part {part} is empty: there is nothing to pack")
    tree = open_tree(source.root)
    prints = file_fingerprints(tree, examples.paths)
    if on_bad_image == "stop" and not prints.all():
        tree.read(examples.paths[int(prints.argmin())])  # says what is wrong with the first that is no file
    digest = source_digest(source, examples, pictures, prints, value_range)
    present = _open_unchanged(folder, digest, on_bad_image)
    if present is not None:
        return present
    packer = _Packer(source, part, examples, pictures, tree, prints, on_bad_image == "drop", value_range)
    packer.pack(folder, digest, num_workers or len(os.sched_getaffinity(0)), progress)
    return PackedSplit.open(folder)


def digest_of_source(
    source: ImageSource, part: str, pictures: PictureOptions, value_range: tuple[float, float] | None = None
) -> str:
    """The `source_digest` that a split has which is packed from these files now; no image is read."""
    examples = source.part(part)
    prints = file_fingerprints(open_tree(source.root), examples.paths)
    return source_digest(source, examples, pictures, prints, value_range)


def is_packed_from(
    split: PackedSplit,
    source: ImageSource,
    part: str,
    pictures: PictureOptions,
    value_range: tuple[float, float] | None = None,
) -> bool:
    """True if packing these files now would give the split.

    Files of the same names, sizes and times are taken to be the same. Otherwise, as after a copy without times, images
    are decoded and compared with the digests of the packed ones, up to the first that differs; where all are the same,
    this is noted in the split, so that it is not done again.
    """
    examples = source.part(part)
    digest = digest_of_source(source, part, pictures, value_range)
    if split.source_digest == digest:
        return True
    dropped = {image.path for image in split.dropped}
    kept = [row for row, path in enumerate(examples.paths) if printable(path) not in dropped]
    if split.folder is None or [examples.example_ids[row] for row in kept] != list(split.example_ids):
        return False
    packed = np.load(split.folder / IMAGE_DIGESTS)
    if content_digest(packed, examples.labels[kept], source.class_names, pictures) != split.digest:
        return False
    if columns_digest(split.columns) != columns_digest(examples.texts().iloc[kept]):
        return False
    tree = open_tree(source.root)

    def stored(row: int) -> bytes:
        where = tree.where(examples.paths[row])
        image = decode_image(tree.read(examples.paths[row]), where, value_range, lambda remark: None)
        return hashlib.sha256(store_image(image, pictures, where).tobytes()).digest()

    try:
        with (
            ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="compare") as executor,
            progress_bar(f"comparing {source.name}.{part} with its files", len(kept)) as advance,
        ):
            for start in range(0, len(kept), CHUNK):
                rows = kept[start : start + CHUNK]
                if b"".join(executor.map(stored, rows)) != packed[start : start + CHUNK].tobytes():
                    return False
                advance(len(rows))
    except UserError:
        return False
    with contextlib.suppress(OSError):  # of a folder that is read-only
        note_source(split, digest)
    return True


def _open_unchanged(folder: Path, digest: str, on_bad_image: str) -> PackedSplit | None:
    """The split that is there, if it was packed from the same files and settings."""
    try:
        split = PackedSplit.open(folder)
    except DamagedError as error:
        log.warning("%s: %s is damaged (%s): packed again", folder, error.path.name, error.reason)
        return None
    except UserError:
        return None
    if split.source_digest != digest or (split.dropped and on_bad_image != "drop"):
        return None
    try:
        split.check()
    except DamagedError as error:
        log.warning("%s: %s is damaged (%s): packed again", folder, error.path.name, error.reason)
        return None
    return split


@dataclass(frozen=True)
class _Packer:
    source: ImageSource
    part: str
    examples: ExampleList
    pictures: PictureOptions
    tree: FileTree
    prints: np.ndarray
    drop: bool
    value_range: tuple[float, float] | None

    def pack(self, folder: Path, digest: str, num_workers: int, progress: Callable[[int], None] | None) -> None:
        channels = 1 if self.pictures.style == "chest" else 3
        num_examples, size = len(self.examples), self.pictures.store_size
        key = picture_key(self.pictures, num_examples, self.value_range)
        shape = (num_examples, channels, size, size)
        with (
            PartialSplit(folder, key, shape) as partial,
            ThreadPoolExecutor(num_workers, thread_name_prefix="pack") as executor,
        ):
            partial.forget_stale(self.prints, executor)
            dropped = self._pack_missing(partial, executor, progress)
            kept = np.delete(np.arange(num_examples), list(dropped))
            if not len(kept):
                raise UserError(f"{self.source.name}: every image of part {self.part} is bad: {dropped[0].reason}")
            self._finish(partial, kept, tuple(dropped[i] for i in sorted(dropped)), digest)

    def _pack_missing(
        self, partial: PartialSplit, executor: ThreadPoolExecutor, progress: Callable[[int], None] | None
    ) -> dict[int, DroppedImage]:
        """Pack what the journal lacks; what could not be read, by position."""
        missing = np.flatnonzero(partial.journal["fingerprint"] == 0)
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        dropped: dict[int, DroppedImage] = {}
        remarks = Counter[str]()
        description = f"packing {self.source.name}.{self.part}"
        with progress_bar(description, len(self.examples)) as advance:
            advance(len(self.examples) - len(missing))
            try:
                results = executor.map(lambda rows: self._pack_chunk(partial, rows), chunks)
                for chunk, (bad, remarked) in zip(chunks, results, strict=True):
                    partial.note(int(chunk[0]), int(chunk[-1]) + 1)
                    dropped.update(bad)
                    remarks.update(remarked)
                    advance(len(chunk))
                    if progress is not None:
                        progress(len(chunk))
            finally:
                executor.shutdown(wait=True, cancel_futures=True)
        for remark, count in sorted(remarks.items()):
            warn_once(f"{self.source.name}.{self.part}: {count} of the files {remark}")
        return dropped

    def _pack_chunk(self, partial: PartialSplit, rows: np.ndarray) -> tuple[dict[int, DroppedImage], list[str]]:
        """Pack some examples; those that could not be read, and what is remarkable of others."""
        dropped: dict[int, DroppedImage] = {}
        remarks: list[str] = []
        for row in rows.tolist():
            path = self.examples.paths[row]
            where = self.tree.where(path)
            try:
                image = decode_image(self.tree.read(path), where, self.value_range, remarks.append)
                pixels = store_image(image, self.pictures, where)
            except UnknownRangeError:
                raise
            except UserError as error:
                if not self.drop:
                    raise
                dropped[row] = DroppedImage(printable(path), str(error))
                continue
            digest = partial.write(row, pixels)
            partial.journal["digest"][row] = np.frombuffer(digest, dtype=np.uint8)
            partial.journal["size"][row] = image.size
            partial.journal["fingerprint"][row] = self.prints[row]
        return dropped, remarks

    def _finish(
        self, partial: PartialSplit, kept: np.ndarray, dropped: tuple[DroppedImage, ...], source_digest: str
    ) -> None:
        journal, labels = partial.journal[kept], self.examples.labels[kept]
        if dropped:
            partial.keep_only(kept)
        info = SplitInfo(
            name=self.source.name,
            part=self.part,
            class_names=self.source.class_names,
            multi_label=self.source.multi_label,
            generated=self.source.generated,
            pictures=self.pictures,
            digest=content_digest(journal["digest"], labels, self.source.class_names, self.pictures),
            source_digest=source_digest,
            dropped=dropped,
            sampling=self.source.sampling,
        )
        ids = [self.examples.example_ids[i] for i in kept]
        columns = self.examples.texts().iloc[kept]
        write_split_files(partial.folder, info, labels, ids, journal["size"], journal["digest"], columns)
        partial.publish()
