"""A tiny split of images that a network learns in a few optimizer steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transferscope.experiment.options import PictureOptions
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.images.split_files import write_split_files

SIZE = 8


def toy_split(
    num_examples: int = 40,
    *,
    part: str = "train",
    multi_label: bool = False,
    folder: Path | None = None,
    seed: int = 0,
) -> PackedSplit:
    """Noise with a bright pair of rows for each class that is present; stored where a folder is given."""
    generator = np.random.default_rng([seed, part == "train"])
    images = generator.integers(0, 160, (num_examples, 3, SIZE, SIZE), dtype=np.uint8)
    present = generator.integers(0, 2, (num_examples, 3)).astype(np.int8)
    classes = generator.integers(0, 3, num_examples)
    shown = present if multi_label else np.eye(3, dtype=np.int8)[classes]
    for k in range(3):
        images[shown[:, k] == 1, :, 2 * k : 2 * k + 2] = 230
    present[generator.random(present.shape) < 0.2] = -1
    labels = present if multi_label else classes.astype(np.int64)
    pictures = PictureOptions(store_size=SIZE)
    digest = f"{part} {seed} {num_examples} {multi_label}"
    info = SplitInfo("toy", part, ("ant", "bee", "cat"), multi_label, True, pictures, digest)
    ids = [f"{part}/{index}" for index in range(num_examples)]
    sizes = np.full((num_examples, 2), SIZE, dtype=np.int32)
    if folder is None:
        return PackedSplit(info, images, labels, ids, sizes)
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images)
    write_split_files(folder, info, labels, ids, sizes)
    return PackedSplit.open(folder)
