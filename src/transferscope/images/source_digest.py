"""Digests of what a packed split is made of: unchanged files and settings are recognised without reading images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from transferscope.experiment.options import PictureOptions
from transferscope.images.example_columns import columns_digest
from transferscope.images.file_tree import FileTree
from transferscope.images.source import ExampleList, ImageSource

PACKING_VERSION = 2
"""To be raised when the same files and settings would be stored as other pixels."""


def file_fingerprints(tree: FileTree, paths: Sequence[str]) -> np.ndarray:
    """uint64 (n,): changes when a file's path, size or time of writing does; 0 where there is no file."""
    prints = np.zeros(len(paths), dtype=np.uint64)
    for i, path in enumerate(paths):
        stamp = tree.stamp(path)
        if stamp is not None:
            text = f"{path}\0{stamp}".encode("utf-8", "surrogateescape")
            prints[i] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") | 1
    return prints


def picture_key(pictures: PictureOptions, num_examples: int, value_range: tuple[float, float] | None) -> str:
    """Settings that half-done packing must share with a new attempt to be continued by it."""
    stored = {
        "version": PACKING_VERSION,
        "style": pictures.style,
        "store_size": pictures.store_size,
        "value_range": value_range,
        "n": num_examples,
    }
    return json.dumps(stored, sort_keys=True)


def source_digest(
    source: ImageSource,
    examples: ExampleList,
    pictures: PictureOptions,
    prints: np.ndarray,
    value_range: tuple[float, float] | None,
) -> str:
    """sha256 of everything that a packed split follows from: settings, names, labels, ids and files."""
    head = {
        "version": PACKING_VERSION,
        "name": source.name,
        "class_names": source.class_names,
        "multi_label": source.multi_label,
        "generated": source.generated,
        "sampling": source.sampling,
        "pictures": pictures.model_dump(mode="json"),
        "value_range": value_range,
        "labels": f"{examples.labels.dtype} {examples.labels.shape}",
        "example_ids": examples.example_ids,
    }
    if examples.columns is not None:
        head["columns"] = columns_digest(examples.columns)
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(examples.labels).tobytes())
    digest.update(prints.tobytes())
    return digest.hexdigest()
