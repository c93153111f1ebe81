"""Figure of shuffled images as the feature-reuse experiment shows them to a network."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from transferscope.experiment.options import block_sizes
from transferscope.images.shuffled_images import Shuffle
from transferscope.plots.galleries import show_image
from transferscope.plots.style import LABEL_SIZE, TITLE_SIZE, add_note, new_figure

MAX_SIZES = 7
PER_IMAGE = 0.8
"""Inches."""


def shuffled_sheet(images: Tensor, *, title: str | None = None, note: str | None = None) -> Figure:
    """Some images, a row each; from left to right shuffled in ever smaller blocks, at last across channels.

    The same permutation holds in a column. Source: Figure 3 of the main text, where a size of 224 leaves the image as
    it is and "*" moves all values.

    Args:
        images: uint8 (n, 1 or 3, side, side).
    """
    side = images.shape[-1]
    sizes = block_sizes(side)
    chosen = sorted({sizes[i] for i in np.linspace(0, len(sizes) - 1, MAX_SIZES).round().astype(int)}, reverse=True)
    images = images.expand(-1, 3, -1, -1)
    columns = len(chosen) + 1
    figure, axes = new_figure(len(images), columns, width=PER_IMAGE * columns + 0.3, panel_height=PER_IMAGE)
    for column, size in enumerate([*chosen, "values"]):
        shuffled = Shuffle((3, side, side), size, seed=0)(images)
        for row, image in enumerate(shuffled):
            ax = axes[row, column]
            show_image(ax, np.moveaxis(image.numpy(), 0, -1))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        axes[0, column].set_title(_name(size, side), fontsize=LABEL_SIZE, pad=3)
    if title:
        figure.suptitle(f"{title}: blocks in pixels", fontsize=TITLE_SIZE)
    return add_note(figure, note)


def _name(size: int | str, side: int) -> str:
    if size == "values":
        return "all values"
    return {side: "unshuffled", 1: "pixels"}.get(int(size), f"{size}×{size}")
