"""Figures of images: contact sheet of a split, gallery of uncommon mistakes (Figure 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferscope.plots.series import require_columns
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
    new_figure,
    shorten,
)

PREDICTIONS = ("prediction_a", "confidence_a", "prediction_b", "confidence_b")
GALLERY_COLUMNS = ("image", "only_correct", "true_label", *PREDICTIONS)


def uncommon_mistakes_gallery(
    images: Any,
    gallery: pd.DataFrame,
    *,
    name_a: str = "P-T",
    name_b: str = "RI-T",
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Images that only one of two models gets right: Figure 9.

    Top row: wrong by model b, right by model a; bottom row: the reverse. Above an image its true label, below it both
    predictions with their confidence in percent.

    Args:
        images: uint8 (num_examples, channels, height, width), channels 1 or 3; an array or anything that takes an
            integer index, such as `PackedSplit.images`.
        gallery: a row an image; columns image (index into `images`), only_correct ("a" or "b"), true_label,
            prediction_a, confidence_a, prediction_b, confidence_b (labels as text, confidence in [0, 1]).
    """
    require_columns(gallery, GALLERY_COLUMNS, "gallery")
    if gallery.empty:
        return empty_figure("no uncommon mistakes to show", note)
    sides = [(gallery[gallery["only_correct"] == side].reset_index(drop=True), side) for side in ("a", "b")]
    columns = max(1, *(len(rows) for rows, _ in sides))
    per_image = max(1.05, min(1.7, DOUBLE_WIDTH / columns))
    width = max(PANEL_WIDTH, per_image * columns + 0.2)
    figure, axes = new_figure(2, columns, width=width, panel_height=(width - 0.4) / columns + 0.4)
    letters = int(0.9 * width / columns / (TICK_SIZE / 72 * 0.68))
    for row, (rows, side) in enumerate(sides):
        wrong, right = (name_b, name_a) if side == "a" else (name_a, name_b)
        for column in range(columns):
            ax = axes[row, column]
            ax.set(xticks=[], yticks=[])
            framed(ax)
            if column < len(rows):
                _captioned(ax, images, rows.iloc[column], (name_a, name_b), letters)
            elif column:
                ax.set_axis_off()
        first = axes[row, 0]
        first.set_ylabel(f"{wrong} wrong,\n{right} right", fontsize=LABEL_SIZE)
        if rows.empty:
            first.text(0.5, 0.5, "none", ha="center", va="center", fontsize=TICK_SIZE, transform=first.transAxes)
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE)
    return add_note(figure, note)


def _captioned(ax: Axes, images: Any, row: pd.Series, names: tuple[str, str], letters: int) -> None:
    show_image(ax, np.asarray(images[int(row["image"])]))
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
    max_classes: int = 12,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """The first images of a split, a row a class; only the images that are shown are read.

    A multi-label task has a row of examples with each finding and one of examples with none. Of more than
    `max_classes` classes, evenly spaced ones are shown.

    Args:
        images: uint8 (num_examples, channels, height, width); an array or anything that takes an integer index.
        labels: class index (num_examples,), or (num_examples, num_classes) in {1, 0, -1}.
    """
    labels = np.asarray(labels)
    members = _members(labels, class_names)
    shown = sorted(set(np.linspace(0, len(members) - 1, min(max_classes, len(members))).round().astype(int)))
    rows = [list(members.items())[index] for index in shown]
    if not len(labels):
        return empty_figure("no images to show", note)
    side = 0.52
    letters = max(len(shorten(name)) for name, _ in rows)
    width = side * per_class + 0.055 * letters + 0.25
    figure, axes = new_figure(len(rows), per_class, width=width, panel_height=side)
    figure.get_layout_engine().set(wspace=0.02, hspace=0.02, w_pad=0.02, h_pad=0.01)  # type: ignore[union-attr, call-arg]
    for row, (name, indices) in enumerate(rows):
        for column in range(per_class):
            ax = axes[row, column]
            ax.set_axis_off()
            if column < len(indices):
                show_image(ax, np.asarray(images[int(indices[column])]))
        axes[row, 0].text(
            -0.12, 0.5, shorten(name), ha="right", va="center", fontsize=TICK_SIZE, transform=axes[row, 0].transAxes
        )
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE)
    return add_note(figure, note)


def _members(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """Indices of the examples of every class; of a multi-label task of every finding, and of `none`."""
    if labels.ndim == 1:
        return {name: np.flatnonzero(labels == index) for index, name in enumerate(class_names)}
    found = {name: np.flatnonzero(labels[:, index] == 1) for index, name in enumerate(class_names)}
    return found | {"none": np.flatnonzero((labels != 1).all(axis=1))}


def show_image(ax: Axes, image: np.ndarray) -> None:
    """One uint8 image (channels, height, width), grey or colour, without smoothing of small ones."""
    picture = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    smooth = "nearest" if max(image.shape[1:]) <= 64 else "antialiased"
    ax.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255, interpolation=smooth)
