"""Figures of labels: class sizes and which labels occur together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from transferscope.plots.marks import write_in_cells
from transferscope.plots.style import (
    BLUE,
    DOUBLE_WIDTH,
    LABEL_SIZE,
    ORANGE,
    PANEL_WIDTH,
    SMALL_SIZE,
    TICK_SIZE,
    add_note,
    category_ticks,
    empty_figure,
    framed,
    label,
    legend_below,
    new_figure,
)
from transferscope.system.errors import UserError

MANY_CLASSES = 40
PART_COLOURS = {"train": BLUE, "test": ORANGE}


def class_size_bars(
    labels: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    *,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Examples of each class in each part, the largest class of the first part first.

    Of a multi-label task: how many examples are positive; ignored labels (-1) are stacked in a lighter shade.
    Above 40 classes the bars become a curve over the rank, with the names of its two ends.

    Args:
        labels: by part ("train", "test"), class indices (num_examples,) or (num_examples, num_classes) in {1, 0, -1}.
    """
    counts = {part: count_labels(np.asarray(values), len(class_names)) for part, values in labels.items()}
    if not counts or not class_names:
        return empty_figure("no classes to show", note)
    order = np.argsort(-next(iter(counts.values()))[0], kind="stable")
    many = len(class_names) > MANY_CLASSES
    figure, axes = new_figure(width=DOUBLE_WIDTH if len(class_names) > 14 else PANEL_WIDTH, panel_height=2.3)
    ax = axes[0, 0]
    draw = _ranked if many else _bars
    draw(ax, counts, order, list(class_names))
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    label(ax, y="examples", title=title)
    legend_below(figure, *ax.get_legend_handles_labels())
    return add_note(figure, note)


def count_labels(labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Positive and ignored examples of every class, both (num_classes,)."""
    if labels.ndim == 1:
        return np.bincount(labels[labels >= 0], minlength=num_classes), np.zeros(num_classes, dtype=int)
    return (labels == 1).sum(axis=0), (labels == -1).sum(axis=0)


def _bars(ax: Axes, counts: Mapping[str, tuple[np.ndarray, np.ndarray]], order: np.ndarray, names: list[str]) -> None:
    width = 0.8 / len(counts)
    for index, (part, (positive, ignored)) in enumerate(counts.items()):
        x = np.arange(len(order)) - 0.4 + width * (index + 0.5)
        colour = PART_COLOURS.get(part, "#666666")
        ax.bar(x, positive[order], 0.92 * width, color=colour, label=part)
        if ignored.any():
            bottom = positive[order]
            ax.bar(x, ignored[order], 0.92 * width, bottom=bottom, color=colour, alpha=0.35, label=f"{part}, uncertain")
    category_ticks(ax, [names[index] for index in order])
    label(ax, x="class")
    ax.grid(False, axis="x")


def _ranked(ax: Axes, counts: Mapping[str, tuple[np.ndarray, np.ndarray]], order: np.ndarray, names: list[str]) -> None:
    for part, (positive, _) in counts.items():
        colour = PART_COLOURS.get(part, "#666666")
        ax.step(np.arange(len(order)), positive[order], where="mid", color=colour, linewidth=1.2, label=part)
    label(ax, x=f"rank of the class (largest: {names[order[0]]}, smallest: {names[order[-1]]})")
    ax.set_xlim(-1, len(order))


def label_cooccurrence(
    labels: np.ndarray, class_names: Sequence[str], *, title: str | None = None, note: str | None = None
) -> Figure:
    """Of the examples with the label of the row, the share that has the label of the column as well.

    The cell holds the share in percent, the diagonal the number of examples with the label. Ignored labels (-1) do
    not count: a share is taken over examples whose label of the column is known.

    Args:
        labels: (num_examples, num_classes) in {1, 0, -1}.

    Raises:
        UserError: for single-label tasks, in which no two labels occur together.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise UserError("labels that occur together: task has one label an example; give labels (examples, classes)")
    positive, known = (labels == 1).astype(float), (labels >= 0).astype(float)
    together, base = positive.T @ positive, positive.T @ known
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(base > 0, together / base, np.nan)
    count = np.diag(together).astype(int)
    num_classes = len(class_names)
    side = min(DOUBLE_WIDTH, max(PANEL_WIDTH, 1.6 + 0.3 * num_classes))
    figure, axes = new_figure(width=side, panel_height=max(2.2, 0.82 * side))
    ax = axes[0, 0]
    off_diagonal = np.where(np.eye(num_classes, dtype=bool), np.nan, share)
    image = ax.imshow(off_diagonal, cmap=matplotlib.colormaps["Blues"].with_extremes(bad="#f2f2f2"), vmin=0, vmax=1)
    if num_classes <= 20:
        texts = np.array([[f"{100 * value:.0f}" for value in row] for row in share], dtype=object)
        np.fill_diagonal(texts, [f"n={value}" for value in count])
        write_in_cells(ax, share, np.where(np.eye(num_classes, dtype=bool), 1.0, 1 - 0.8 * share), texts, SMALL_SIZE)
    framed(ax)
    category_ticks(ax, class_names)
    category_ticks(ax, class_names, axis="y")
    label(ax, x="… also has", y="an example with …", title=title)
    bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02)
    bar.set_label("share of examples", fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE, width=0.6, length=2)
    return add_note(figure, note)
