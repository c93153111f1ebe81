"""Images that are in two parts of a task, or there with two labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from transferscope.images.split import PackedSplit

logger = logging.getLogger("transferscope")


def count_shared_images(splits: Sequence[PackedSplit]) -> pd.DataFrame:
    """Count the images that are in two parts (`image_overlap`).

    Warns where there are any, and of equal images with different labels.
    """
    faults = contradicting_labels(splits)
    if faults is not None:
        logger.warning(
            "%s: images that are equal pixel for pixel as stored have different labels (%d in %d examples, such as %s "
            "and %s); keep each under the label that is right",
            splits[0].name,
            faults.images,
            faults.examples,
            *faults.first,
        )
    table = image_overlap(splits)
    for row in table[table["shared_b"] > 0].to_dict("records"):
        logger.warning(
            "%s: %d of %d images of the %s part are in the %s part, too, pixel for pixel as stored: "
            "metrics on them say nothing about new images",
            *(row[key] for key in ("task", "shared_b", "images_b", "part_b", "part_a")),
        )
    return table


def image_overlap(splits: Sequence[PackedSplit]) -> pd.DataFrame:
    """A row per pair of parts: how many images of each are in the other one, too, pixel for pixel as stored.

    Costs n log n in the number of images; no image is read.
    """
    digests = {split.part: np.ascontiguousarray(split.image_digests()[:, :8]).view("<u8").ravel() for split in splits}
    rows = []
    for a, b in combinations(digests, 2):
        rows.append(
            {
                "task": splits[0].name,
                "part_a": a,
                "part_b": b,
                "images_a": len(digests[a]),
                "images_b": len(digests[b]),
                "shared_a": int(np.isin(digests[a], digests[b]).sum()),
                "shared_b": int(np.isin(digests[b], digests[a]).sum()),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Contradictions:
    """Images that are equal pixel for pixel as stored, and have different labels."""

    images: int
    """Pictures of which this is so, each counted once."""
    examples: int
    """Examples that show them."""
    first: tuple[str, str]
    """Two of them, `part: example id`."""


def contradicting_labels(splits: Sequence[PackedSplit]) -> Contradictions | None:
    """Count the images of all parts that are there with different labels; None where there are none.

    Costs n log n in the number of images; no image is read.
    """
    digests = np.concatenate([np.ascontiguousarray(split.image_digests()[:, :8]).view("<u8") for split in splits])
    order = np.argsort(digests.ravel(), kind="stable")
    labels = np.concatenate([np.asarray(split.labels) for split in splits]).reshape(len(order), -1)[order]
    starts = np.flatnonzero(np.r_[True, np.diff(digests.ravel()[order]) != 0])
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(order)]))
    first = labels[starts][group]
    differs = ((labels != first) & (labels >= 0) & (first >= 0)).any(axis=1)  # -1 is an unknown label
    faulty = np.unique(group[differs])
    if not len(faulty):
        return None
    names = [
        f"{split.part}: {split.example_ids[row - begin]}"
        for row in (order[starts[faulty[0]]], order[np.flatnonzero(differs)[0]])
        for split, begin in [_split_of(splits, int(row))]
    ]
    return Contradictions(len(faulty), int(np.isin(group, faulty).sum()), (names[0], names[1]))


def _split_of(splits: Sequence[PackedSplit], row: int) -> tuple[PackedSplit, int]:
    """The part that holds an example of all parts together, and the row at which the part begins."""
    ends = np.cumsum([len(split) for split in splits])
    index = int(np.searchsorted(ends, row, side="right"))
    return splits[index], int(ends[index]) - len(splits[index])
