"""Tables of what was read and packed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from transferscope.images.file_tree import printable
from transferscope.images.sampling import patient_of
from transferscope.images.source import ImageSource
from transferscope.images.split import PackedSplit


def summarise_splits(splits: Sequence[PackedSplit]) -> pd.DataFrame:
    """A row per split: its size, the originals' sizes in pixels, the files refused, how it was drawn."""
    return pd.DataFrame([_summary(split) for split in splits])


def _summary(split: PackedSplit) -> dict[str, object]:
    widths, heights = split.source_sizes[:, 0], split.source_sizes[:, 1]
    return {
        "task": split.name,
        "part": split.part,
        "generated": split.generated,
        "num_examples": len(split),
        "num_classes": split.num_classes,
        "channels": split.images.shape[1],
        "side": split.images.shape[2],
        "megabytes": int(np.prod(split.images.shape)) / 1e6,
        "source_width_median": float(np.median(widths)),
        "source_width_min": int(widths.min()),
        "source_width_max": int(widths.max()),
        "source_height_median": float(np.median(heights)),
        "source_height_min": int(heights.min()),
        "source_height_max": int(heights.max()),
        "num_dropped": len(split.dropped),
        "sampling": split.info.sampling,
        "digest": split.digest,
    }


def label_counts(splits: Sequence[PackedSplit]) -> pd.DataFrame:
    """A row per split and class: how many positives, negatives and ignored, and the fraction of positives.

    Ignored labels are left out of the fraction.
    """
    tables = []
    for split in splits:
        positives, negatives, ignored = _counts(split)
        table = pd.DataFrame(
            {
                "task": split.name,
                "part": split.part,
                "class_name": split.class_names,
                "count": positives,
                "negatives": negatives,
                "ignored": ignored,
                "fraction": positives / np.maximum(positives + negatives, 1),
            }
        )
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def label_cooccurrence(split: PackedSplit) -> pd.DataFrame:
    """A row per ordered pair of classes of a multi-label split: examples positive for both, and as a fraction of a's.

    The fraction is NaN where class a has no positive example.
    """
    positive = (split.labels == 1).astype(np.int64)
    both = positive.T @ positive
    totals = np.diag(both).astype(float)
    totals[totals == 0] = np.nan
    names = list(split.class_names)
    return pd.DataFrame(
        {
            "task": split.name,
            "part": split.part,
            "class_a": np.repeat(names, len(names)),
            "class_b": names * len(names),
            "count": both.ravel(),
            "fraction_of_a": (both / totals[:, None]).ravel(),
        }
    )


def label_shift(train: PackedSplit, test: PackedSplit) -> pd.DataFrame:
    """A row per class: its fraction in train and in test, and their difference."""
    counts = [label_counts([split]) for split in (train, test)]
    table = counts[0][["task", "class_name"]].copy()
    table["train_fraction"], table["test_fraction"] = counts[0]["fraction"], counts[1]["fraction"]
    table["difference"] = table["test_fraction"] - table["train_fraction"]
    return table


def dropped_files(splits: Sequence[PackedSplit]) -> pd.DataFrame:
    """A row per file that was left out."""
    rows = [
        {"task": split.name, "part": split.part, "path": file.path, "reason": file.reason}
        for split in splits
        for file in split.dropped
    ]
    return pd.DataFrame(rows, columns=["task", "part", "path", "reason"])


def drawn_examples(source: ImageSource) -> pd.DataFrame:
    """A row per example used: its part and position there, and its row (from 0) in the list or CSV as distributed."""
    tables = []
    for part in source.parts:
        examples = source.part(part)
        rows = np.arange(len(examples)) if examples.rows is None else examples.rows
        table = pd.DataFrame({"task": source.name, "part": part, "position": np.arange(len(examples)), "row": rows})
        table["example_id"], table["path"] = examples.example_ids, [printable(path) for path in examples.paths]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def patient_overlap(source: ImageSource) -> pd.DataFrame:
    """A row per pair of parts: how many patients are in both, and how many images of each part are theirs.

    Examples without a patient in their path belong to none.
    """
    patients = {part: [patient_of(name) for name in source.part(part).example_ids] for part in source.parts}
    rows = []
    for a, b in combinations(source.parts, 2):
        shared = (set(patients[a]) & set(patients[b])) - {None}
        rows.append(
            {
                "task": source.name,
                "part_a": a,
                "part_b": b,
                "patients_a": len(set(patients[a]) - {None}),
                "patients_b": len(set(patients[b]) - {None}),
                "shared_patients": len(shared),
                "images_a": len(patients[a]),
                "images_b": len(patients[b]),
                "images_of_shared_a": sum(patient in shared for patient in patients[a]),
                "images_of_shared_b": sum(patient in shared for patient in patients[b]),
            }
        )
    return pd.DataFrame(rows)


def _counts(split: PackedSplit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples with, without and of unknown label of every class; of one label an example none is unknown."""
    labels = np.asarray(split.labels)
    if split.multi_label:
        return (labels == 1).sum(0), (labels == 0).sum(0), (labels == -1).sum(0)
    positives = np.bincount(labels, minlength=split.num_classes)
    return positives, len(labels) - positives, np.zeros_like(positives)
