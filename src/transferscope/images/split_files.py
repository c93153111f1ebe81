"""Write the files of a packed split: labels, names, digests and the description in split.json.

`transferscope.images.split` opens them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from transferscope.experiment.options import PictureOptions
from transferscope.images.example_columns import COLUMNS, write_columns
from transferscope.images.split import FORMAT, IMAGE_DIGESTS, PackedSplit, SplitInfo
from transferscope.images.verified import IMAGES
from transferscope.system.stored import file_digest, read_json, write_json

LISTED = ("labels.npy", "source_sizes.npy", IMAGE_DIGESTS, "example_ids.json")
"""Files whose digests split.json holds, with columns.parquet where there is one; images.npy has one for each image."""


def content_digest(
    image_digests: np.ndarray, labels: np.ndarray, class_names: Sequence[str], pictures: PictureOptions
) -> str:
    """sha256 over the sha256 of each image (uint8 (N, 32)), the labels, the class names and the settings."""
    settings = {"class_names": list(class_names), "pictures": pictures.model_dump(mode="json")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(f"{labels.dtype} {labels.shape}".encode())
    digest.update(np.ascontiguousarray(labels).tobytes())
    digest.update(np.ascontiguousarray(image_digests).tobytes())
    return digest.hexdigest()


def write_split_files(
    folder: Path,
    info: SplitInfo,
    labels: np.ndarray,
    example_ids: Sequence[str],
    source_sizes: np.ndarray,
    image_digests: np.ndarray | None = None,
    columns: pd.DataFrame | None = None,
) -> None:
    """Write everything of a split but `images.npy`, which lies in `folder` already.

    image_digests: uint8 (N, 32), the sha256 of each image; None: they are computed. columns: as `PackedSplit.columns`.
    """
    images = np.load(folder / IMAGES, mmap_mode="r")
    if image_digests is None:
        hashes = [hashlib.sha256(image).digest() for image in images]
        image_digests = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 32)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "source_sizes.npy", source_sizes)
    np.save(folder / IMAGE_DIGESTS, image_digests)
    (folder / "example_ids.json").write_text(json.dumps(list(example_ids)), encoding="utf-8")
    listed = [*LISTED]
    if columns is not None and len(columns.columns):
        write_columns(folder, columns)
        listed.append(COLUMNS)
    files = {name: file_digest(folder / name) for name in listed}
    write_description(folder, info, {"shape": list(images.shape), "files": files})


def write_description(folder: Path, info: SplitInfo, more: dict[str, Any]) -> None:
    """split.json: the format, `info` and what else is to be known, with the digests of the other files."""
    described = {**asdict(info), "pictures": info.pictures.model_dump(mode="json")}
    write_json(folder / "split.json", {"format": FORMAT, **more, **described})


def note_source(split: PackedSplit, source_digest: str) -> None:
    """Write in a split's description that it is what packing files of another time would give."""
    assert split.folder is not None
    split.check()
    path = split.folder / "split.json"
    write_json(path, read_json(path) | {"source_digest": source_digest})
