"""The size at which images are stored where it is left to the images."""

from __future__ import annotations

import io
from collections.abc import Sequence

from transferscope.images.files import open_tree
from transferscope.images.source import ImageSource
from transferscope.system.errors import UserError

LARGEST = 224
"""Pixels that most published networks were trained on."""
SMALLEST = 8
LOOKED_AT = 50
"""Images of a task whose headers are read."""


def auto_size(sides: Sequence[int]) -> int:
    """The median of short sides, and at most 224; 224 where there are none."""
    ordered = sorted(sides)
    return min(LARGEST, max(SMALLEST, ordered[len(ordered) // 2])) if ordered else LARGEST


def short_sides(source: ImageSource) -> list[int]:
    """Short sides in pixels of evenly spaced training images, as far as files can be read."""
    from PIL import Image

    tree, paths = open_tree(source.root), source.train.paths
    sides: list[int] = []
    try:
        for index in range(0, len(paths), max(1, len(paths) // LOOKED_AT)):
            with Image.open(io.BytesIO(tree.read(paths[index]))) as image:
                sides.append(min(image.size))
    except (UserError, OSError, Image.DecompressionBombError):
        return sides
    return sides
