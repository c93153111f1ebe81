"""One packed part of a task: images decoded once, in a memory-mapped array, with their labels."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError

from transferscope.experiment.options import PictureOptions
from transferscope.images.example_columns import join_columns, no_columns, read_columns
from transferscope.images.image_array import (
    ConcatenatedImages,
    ImageArray,
    SelectedImages,
    resolve_rows,
    take,
    take_into,
)
from transferscope.images.verified import IMAGES, REPACK, VerifiedImages
from transferscope.system.errors import UserError
from transferscope.system.progress import progress_bar
from transferscope.system.renamed import renamed_object
from transferscope.system.stored import DamagedError, read_json, stored_digest

FORMAT = 2
IMAGE_DIGESTS = "image_digests.npy"
"""File with the sha256 of each stored image."""


@dataclass(frozen=True)
class DroppedImage:
    """A file that was left out of a split, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class SplitInfo:
    """The description of a split in split.json."""

    name: str
    part: str
    class_names: tuple[str, ...]
    multi_label: bool
    generated: bool
    pictures: PictureOptions
    digest: str
    source_digest: str = ""
    dropped: tuple[DroppedImage, ...] = ()
    sampling: str = "all"


class PackedSplit:
    """Images, labels and names of one part of a task.

    Attributes:
        images: uint8 (N, C, H, W), memory-mapped, each compared with its digest when it is first read; for unions and
            subsets a view that is indexed in the same way.
        labels: int64 (N,), or int8 (N, num_classes) in {1, 0, -1} with -1 ignored.
        example_ids: N unique names.
        source_sizes: int32 (N, 2), width and height of the images as distributed.
        columns: Table of texts with a row per example, such as sex and view; of unions also `domain`, the part's name.
        class_names, num_classes, multi_label, generated, name, part: Source and part of the split.
        pictures: How its images are to be shown to a network.
        digest: sha256 of images, labels, class names and pictures.
        source_digest: sha256 of what it was packed from; "" for unions and subsets.
        dropped: Files left out, with reasons.
        folder: Where it lies; None for a subset.
    """

    def __init__(
        self,
        info: SplitInfo,
        images: ImageArray,
        labels: np.ndarray,
        example_ids: Sequence[str],
        source_sizes: np.ndarray,
        *,
        folder: Path | None = None,
        parent: PackedSplit | None = None,
        rows: np.ndarray | None = None,
        parts: Sequence[PackedSplit] = (),
    ) -> None:
        assert len(images) == len(labels) == len(example_ids) == len(source_sizes)
        self.info = info
        self.images = images
        self.labels = labels
        self.example_ids = tuple(example_ids)
        self.source_sizes = source_sizes
        self.folder = folder
        self._parent = parent
        self._rows = rows
        self._parts = tuple(parts)

    @staticmethod
    def open(folder: str | Path) -> PackedSplit:
        """Open a packed split or a union; `UserError` when the folder holds none, `DamagedError` for a damaged one."""
        folder = Path(folder)
        try:
            description = read_json(folder / "split.json")
            if description["format"] != FORMAT:
                raise UserError(f"{folder}: packed in format {description['format']}, not {FORMAT}: pack it again")
            opened = _open_union if "parts" in description else _open_packed
            return opened(folder, description)
        except FileNotFoundError as error:
            raise UserError(f"{folder}: no packed split ({error.filename} does not exist): run data_prep") from error
        except DamagedError as error:
            raise DamagedError(error.path, error.reason, REPACK) from None
        except UserError:
            raise
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise DamagedError(folder, _one_line(error), REPACK) from error

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def part(self) -> str:
        return self.info.part

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.info.class_names

    @property
    def multi_label(self) -> bool:
        return self.info.multi_label

    @property
    def generated(self) -> bool:
        return self.info.generated

    @property
    def pictures(self) -> PictureOptions:
        return self.info.pictures

    @property
    def digest(self) -> str:
        return self.info.digest

    @property
    def source_digest(self) -> str:
        return self.info.source_digest

    @property
    def dropped(self) -> tuple[DroppedImage, ...]:
        return self.info.dropped

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape))
        return f"PackedSplit({self.name}.{self.part}, {shape}, {self.num_classes} classes, {self.digest[:12]})"

    @cached_property
    def columns(self) -> pd.DataFrame:
        if self._parent is not None and self._rows is not None:
            return self._parent.columns.iloc[self._rows].reset_index(drop=True)
        if self._parts:
            return join_columns([(part.name, part.columns) for part in self._parts])
        return no_columns(len(self)) if self.folder is None else read_columns(self.folder, len(self))

    def image_digests(self) -> np.ndarray:
        """sha256 of every stored image: uint8 (N, 32); equal images have equal rows."""
        if self._parent is not None:
            return self._parent.image_digests()[self._rows]
        if self._parts:
            return np.concatenate([part.image_digests() for part in self._parts])
        if self.folder is None:
            digests = b"".join(hashlib.sha256(self.images[row].tobytes()).digest() for row in range(len(self)))
            return np.frombuffer(digests, dtype=np.uint8).reshape(len(self), -1)
        try:
            return np.load(self.folder / IMAGE_DIGESTS)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder}: damaged split ({_one_line(error)}): delete it and pack again") from error

    def gather(
        self, indices: np.ndarray | torch.Tensor | Sequence[int], out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Copy images into a new uint8 tensor (B, C, H, W), or into `out`, in the order of `indices`."""
        if isinstance(indices, torch.Tensor):
            indices = indices.cpu().numpy()
        rows = resolve_rows(indices, len(self))
        if out is None:
            return torch.from_numpy(take(self.images, rows))
        take_into(self.images, rows, out.numpy())
        return out

    def check(self) -> None:
        """Raise DamagedError where an image is not as it was packed.

        All are read if the file was written since it was packed, which its time of change shows; else each is
        compared when it is first read.
        """
        if isinstance(self.images, VerifiedImages) and self.folder is not None:
            images, index = self.images.path, self.folder / "split.json"
            if images.stat().st_ctime_ns > index.stat().st_ctime_ns:
                with progress_bar(f"verifying {self.name}.{self.part}", len(self)) as advance:
                    self.images.verify(len(os.sched_getaffinity(0)), advance)
                with suppress(OSError):
                    os.utime(index)
        for part in self._parts:
            part.check()

    def subset(self, indices: np.ndarray | torch.Tensor | Sequence[int]) -> PackedSplit:
        """A view of some examples, in the order of `indices`; no image is copied."""
        if isinstance(indices, torch.Tensor):
            indices = indices.cpu().numpy()
        rows = resolve_rows(indices, len(self))
        digest = hashlib.sha256(f"subset {self.digest} ".encode() + rows.astype("<i8").tobytes()).hexdigest()
        return PackedSplit(
            replace_info(self.info, digest=digest, source_digest=""),
            SelectedImages(self.images, rows),
            self.labels[rows],
            [self.example_ids[row] for row in rows],
            self.source_sizes[rows],
            parent=self,
            rows=rows,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as where it lies, not as its images: another process maps the same files."""
        if self.folder is not None:
            return PackedSplit.open, (self.folder,)
        if self._parent is not None:
            return PackedSplit.subset, (self._parent, self._rows)
        return super().__reduce__()  # type: ignore[return-value]


def replace_info(info: SplitInfo, **changes: Any) -> SplitInfo:
    """`info` with some fields changed."""
    return SplitInfo(**{**{key: getattr(info, key) for key in info.__dataclass_fields__}, **changes})


def _open_packed(folder: Path, description: dict[str, Any]) -> PackedSplit:
    for name, digest in description["files"].items():
        if stored_digest(folder / name) != digest:
            raise DamagedError(folder / name, "its content is not what was packed", REPACK)
    digests = np.load(folder / IMAGE_DIGESTS, mmap_mode="r")
    images = VerifiedImages(folder / IMAGES, tuple(description["shape"]), digests)
    labels = np.load(folder / "labels.npy")
    example_ids = json.loads((folder / "example_ids.json").read_text(encoding="utf-8"))
    source_sizes = np.load(folder / "source_sizes.npy")
    return PackedSplit(_parse_info(description), images, labels, example_ids, source_sizes, folder=folder)


def _open_union(folder: Path, description: dict[str, Any]) -> PackedSplit:
    parts = [PackedSplit.open(folder / path) for path in description["parts"]]
    info = _parse_info(description)
    for part, digest in zip(parts, description["part_digests"], strict=True):
        if part.digest != digest:
            raise UserError(f"{folder}: {part.folder} was packed again after this union was made: run data_prep again")
    return union_of(parts, info, folder)


def union_of(parts: Sequence[PackedSplit], info: SplitInfo, folder: Path | None) -> PackedSplit:
    """The parts one after the other, as a view."""
    return PackedSplit(
        info,
        ConcatenatedImages([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [name for part in parts for name in part.example_ids],
        np.concatenate([part.source_sizes for part in parts]),
        folder=folder,
        parts=parts,
    )


def _parse_info(description: dict[str, Any]) -> SplitInfo:
    return SplitInfo(
        name=description["name"],
        part=description["part"],
        class_names=tuple(description["class_names"]),
        multi_label=description["multi_label"],
        generated=description["generated"],
        pictures=PictureOptions(**description["pictures"]),
        digest=description["digest"],
        source_digest=description["source_digest"],
        dropped=tuple(DroppedImage(**file) for file in description["dropped"]),
        sampling=description["sampling"],
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def __getattr__(name: str) -> object:
    """Names that stood here in version 0.1."""
    if (known := renamed_object(__name__, name)) is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return known
