"""Figures of images: contact sheet of a split, gallery of uncommon mistakes (Figure 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferscope.plots.rows import require_columns
from transferscope.plots.style import (
    DOUBLE_WIDTH,
    LABEL_SIZE,
    PANEL_WIDTH,
    SMALL_SIZE,
    TICK_SIZE,
    TITLE_SIZE,
    add_note,
    empty_figure,
    framed,
    label,
    new_figure,
    shorten,
)

GAP_GREY = 216
MAX_CLASSES = 12
LONGEST_SIDE = 16
"""Letters of a model's name beside its predictions."""
PREDICTIONS = ("prediction_a", "confidence_a", "prediction_b", "confidence_b")
GALLERY_COLUMNS = ("image", "column", "only_correct", "true_label", *PREDICTIONS)


def uncommon_mistakes_gallery(
    images: Any,
    gallery: pd.DataFrame,
    *,
    name_a: str = "model a",
    name_b: str = "model b",
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Images that only one of two models gets right: Figure 9.

    Top row: wrong by model b, right by model a; bottom row: the reverse. Above an image its true label, below it both
    predictions with their confidence in percent.

    Args:
        images: uint8 (num_examples, channels, height, width), channels 1 or 3; an array or anything that takes an
            integer index, such as `PackedSplit.images`.
        gallery: a row per image; columns image (index into `images`), column (of the figure, from 0), only_correct
            ("a" or "b"), true_label, prediction_a, confidence_a, prediction_b, confidence_b (labels as text,
            confidence in [0, 1]).
    """
    require_columns(gallery, GALLERY_COLUMNS, "gallery")
    if gallery.empty:
        return empty_figure("no uncommon mistakes to show", note)
    cells = {(row["only_correct"], int(row["column"])): row for _, row in gallery.iterrows()}
    columns = int(gallery["column"].max()) + 1
    per_image = max(1.05, min(1.7, DOUBLE_WIDTH / columns))
    width = max(PANEL_WIDTH, per_image * columns + 0.2)
    figure, axes = new_figure(2, columns, width=width, panel_height=(width - 0.4) / columns + 0.4)
    name_a, name_b = shorten(name_a, LONGEST_SIDE), shorten(name_b, LONGEST_SIDE)
    letters = int(0.9 * width / columns / (TICK_SIZE / 72 * 0.68))
    for row, side in enumerate("ab"):
        wrong, right = (name_b, name_a) if side == "a" else (name_a, name_b)
        for column in range(columns):
            ax = axes[row, column]
            ax.set(xticks=[], yticks=[])
            framed(ax)
            if (side, column) in cells:
                _captioned(ax, images, cells[side, column], (name_a, name_b), letters)
            else:
                ax.text(0.5, 0.5, "none", ha="center", va="center", fontsize=TICK_SIZE, transform=ax.transAxes)
        axes[row, 0].set_ylabel(f"{wrong} wrong,\n{right} right", fontsize=LABEL_SIZE)
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE)
    return add_note(figure, note)


def _captioned(ax: Axes, images: Any, row: pd.Series, names: tuple[str, str], letters: int) -> None:
    image = np.asarray(images[int(row["image"])])
    show_image(ax, image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1))
    ax.set_title(shorten(str(row["true_label"]), letters), fontsize=TICK_SIZE, pad=2, fontweight="bold")
    lines = [
        _prediction(name, str(row[f"prediction_{side}"]), float(row[f"confidence_{side}"]), letters)
        for name, side in zip(names, "ab", strict=True)
    ]
    ax.set_xlabel("\n".join(lines), fontsize=SMALL_SIZE, labelpad=2)


def _prediction(name: str, prediction: str, confidence: float, letters: int) -> str:
    percent = f" {100 * confidence:.0f} %" if np.isfinite(confidence) else ""
    return f"{name}: {shorten(prediction, max(6, letters - len(name) - len(percent)))}{percent}"


def contact_sheet(
    images: Any,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    per_class: int = 8,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Some images of a split, a row per class, evenly spaced over each; only the images that are shown are read.

    A multi-label task has a row of examples with each finding and one of examples with none. Of more than
    `MAX_CLASSES` classes, evenly spaced ones are shown.

    Args:
        images: uint8 (num_examples, channels, height, width); an array or anything that takes an integer index.
        labels: class index (num_examples,), or (num_examples, num_classes) in {1, 0, -1}.
    """
    labels = np.asarray(labels)
    if not len(labels):
        return empty_figure("no images to show", note)
    members = _members(labels, class_names)
    shown = sorted(set(np.linspace(0, len(members) - 1, min(MAX_CLASSES, len(members))).round().astype(int)))
    rows = [list(members.items())[index] for index in shown]
    sheet = _mosaic(images, [_evenly(indices, per_class) for _, indices in rows], per_class)
    inches = 0.52 / sheet.shape[0] * len(rows)
    names = [shorten(name) for name, _ in rows]
    width = max(2.0, inches * sheet.shape[1] + 0.055 * max(map(len, names)) + 0.25)
    figure, axes = new_figure(width=width, panel_height=inches * sheet.shape[0] + 0.1 + 0.2 * bool(title))
    ax = axes[0, 0]
    show_image(ax, sheet)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks((np.arange(len(rows)) + 0.5) * sheet.shape[0] / len(rows) - 0.5, names, fontsize=TICK_SIZE)
    ax.tick_params(length=0)
    label(ax, title=title)
    return add_note(figure, note)


def _evenly(indices: np.ndarray, number: int) -> np.ndarray:
    """At most `number` of them: of a union, whose parts lie one after the other, some of each."""
    return indices[np.linspace(0, len(indices) - 1, min(number, len(indices))).round().astype(int)]


def _mosaic(images: Any, rows: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Images by index as one uint8 picture (height, width, 3), grey lines between them, white where there are none."""
    _, height, width = np.asarray(images[int(next(row[0] for row in rows if len(row)))]).shape
    gap = max(1, width // 20)
    sheet = np.full((len(rows), height + gap, columns, width + gap, 3), GAP_GREY, dtype=np.uint8)
    sheet[:, :height, :, :width] = 255
    for row, indices in enumerate(rows):
        for column, index in enumerate(indices):
            image = np.asarray(images[int(index)])
            sheet[row, :height, column, :width] = np.moveaxis(image, 0, -1)
    return sheet.reshape(len(rows) * (height + gap), columns * (width + gap), 3)


def _members(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """Indices of the examples of every class; of a multi-label task of every finding, and of `none`."""
    if labels.ndim == 1:
        return {name: np.flatnonzero(labels == index) for index, name in enumerate(class_names)}
    members = {name: np.flatnonzero(labels[:, index] == 1) for index, name in enumerate(class_names)}
    return members | {"none": np.flatnonzero((labels != 1).all(axis=1))}


def show_image(ax: Axes, picture: np.ndarray) -> None:
    """A uint8 picture (height, width) or (height, width, 3), small ones without smoothing."""
    smooth = "nearest" if max(picture.shape[:2]) <= 64 else "antialiased"
    ax.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255, interpolation=smooth)
