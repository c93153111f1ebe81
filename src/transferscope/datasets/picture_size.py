"""The size at which images are stored where the study leaves it to the images: `store_size: auto`."""

from __future__ import annotations

import io

from kedro.io.core import DatasetError

from transferscope.datasets.image_source import ImageSourceDataset
from transferscope.experiment.study import TaskOptions
from transferscope.system.errors import UserError

AUTO = "auto"
LARGEST = 224
"""Pixels that most published networks were trained on."""
SMALLEST = 8
LOOKED_AT = 50
"""Images of a task whose headers are read."""


def choose_size(tasks: dict[str, TaskOptions]) -> int:
    """The median short side of some images of all tasks, and at most 224; 224 where there are none to look at."""
    sides = sorted(side for name, options in tasks.items() for side in _short_sides(name, options))
    return min(LARGEST, max(SMALLEST, sides[len(sides) // 2])) if sides else LARGEST


def _short_sides(name: str, options: TaskOptions) -> list[int]:
    """Of evenly spaced training images; none where the folder cannot be read, which the checks before a run report."""
    from PIL import Image

    from transferscope.images.files import open_tree

    if options.root is None:
        return []
    short_sides = []
    try:
        source = ImageSourceDataset(filepath=options.root, task=name, options=options.source_options()).load()
        tree, paths = open_tree(source.root), source.train.paths
        for index in range(0, len(paths), max(1, len(paths) // LOOKED_AT)):
            with Image.open(io.BytesIO(tree.read(paths[index]))) as image:
                short_sides.append(min(image.size))
    except (DatasetError, UserError, OSError, Image.DecompressionBombError):
        return short_sides
    return short_sides
