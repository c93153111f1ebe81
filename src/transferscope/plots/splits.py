"""Figures of packed splits: their images, as networks see them, and their labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from transferscope.images.seen_images import SeenImages
from transferscope.images.split import PackedSplit
from transferscope.plots.class_labels import class_size_bars, label_cooccurrence
from transferscope.plots.galleries import contact_sheet, uncommon_mistakes_gallery
from transferscope.plots.shuffled_images import shuffled_sheet

SHUFFLED_SHOWN = 4
"""Images on the sheet of shuffled images."""


def sheet(split: PackedSplit, *, title: str | None = None, note: str | None = None) -> Figure:
    """Some images of every class (`contact_sheet`)."""
    return contact_sheet(SeenImages(split), split.labels, split.class_names, title=title, note=note)


def shuffled(split: PackedSplit, *, title: str | None = None, note: str | None = None) -> Figure:
    """Some images shuffled in blocks of several sizes (`shuffled_sheet`)."""
    rows = np.linspace(0, len(split) - 1, SHUFFLED_SHOWN).round().astype(int)
    return shuffled_sheet(split.gather(rows), title=title, note=note)


def class_sizes(*splits: PackedSplit, title: str | None = None, note: str | None = None) -> Figure:
    """Sizes of the classes in all parts of a task (`class_size_bars`)."""
    labels = {split.part: split.labels for split in splits}
    return class_size_bars(labels, splits[0].class_names, title=title, note=note)


def cooccurrence(split: PackedSplit, *, title: str | None = None, note: str | None = None) -> Figure:
    """Findings that occur together (`label_cooccurrence`)."""
    return label_cooccurrence(split.labels, split.class_names, title=title, note=note)


def gallery(
    split: PackedSplit,
    examples: pd.DataFrame,
    name_a: str,
    name_b: str,
    *,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Examples that only one of two models gets right (`uncommon_mistakes_gallery`); title: that of the task."""
    images = SeenImages(split)
    return uncommon_mistakes_gallery(
        images, examples, name_a=name_a, name_b=name_b, title=title or split.name, note=note
    )
