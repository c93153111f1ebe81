"""Tables of what was read and packed."""

from __future__ import annotations

import pandas as pd

from transferscope.report.grids.common import Results, each, if_any
from transferscope.tables import formats
from transferscope.tables.grid import Grid, from_table

SPLITS = (
    "task", "part", "num_examples", "num_classes", "channels", "side", "source_width_median", "source_height_median",
    "num_dropped", "sampling",
)  # fmt: skip


def splits(results: Results) -> list[Grid]:
    """Every split: its size, how it was drawn, how many files were dropped."""
    tables = [table for _, table in each(results, "splits")]
    if not tables:
        return []
    table = pd.concat(tables, ignore_index=True)
    note = "Side: of the stored square in pixels; source: medians of the files in pixels."
    return [from_table("Splits", table, SPLITS, entry="<task>.splits.table", note=note)]


def shared_patients(results: Results) -> list[Grid]:
    """How many patients are in two parts: what a model may know of a test image from training."""
    rows = []
    for task, table in each(results, "shared_patients"):
        for row in table.to_dict("records"):
            share = row["images_of_shared_b"] / max(row["images_b"], 1)
            counts = (str(row[key]) for key in ("patients_a", "patients_b", "shared_patients"))
            rows.append((task, f"{row['part_a']} and {row['part_b']}", *counts, formats.percent(share)))
    columns = ("task", "parts", "patients, first", "patients, second", "in both", "images of theirs in the second")
    note = "With `sampling: paper` patients leak from train to test, as in the study; with `by_patient` none does."
    return if_any("Patients in two parts", columns, rows, note, "<task>.shared_patients.table")


def shared_images(results: Results) -> list[Grid]:
    """Tasks with images that are in two parts, pixel for pixel as stored."""
    rows = []
    for task, table in each(results, "shared_images"):
        for row in table[table["shared_b"] > 0].to_dict("records"):
            counts = (str(row[key]) for key in ("images_a", "images_b", "shared_b"))
            share = formats.percent(row["shared_b"] / row["images_b"])
            rows.append((task, f"{row['part_a']} and {row['part_b']}", *counts, share))
    columns = ("task", "parts", "images, first", "images, second", "of the second in the first", "as a share")
    note = "Equal pixels as stored. Metrics on images that a model was trained on say nothing about new ones."
    return if_any("Images in two parts", columns, rows, note, "<task>.shared_images.table")


def dropped_files(results: Results) -> list[Grid]:
    """Every file that was left out, with the reason."""
    tables = [table for _, table in each(results, "dropped_files")]
    if not tables:
        return []
    columns = ("task", "part", "path", "reason")
    return [from_table("Files dropped", pd.concat(tables), columns, entry="<task>.dropped_files.table")]


def class_sizes(results: Results) -> list[Grid]:
    """Every class of every part."""
    columns = ("part", "class_name", "count", "negatives", "ignored", "fraction")
    return [
        from_table(f"{task}: class sizes", table, columns, entry=f"{task}.class_sizes.table")
        for task, table in each(results, "class_sizes")
    ]


def label_shift(results: Results) -> list[Grid]:
    """How the share of every class differs between train and test."""
    columns = ("class_name", "train_fraction", "test_fraction", "difference")
    return [
        from_table(f"{task}: label shift from train to test", table, columns, entry=f"{task}.label_shift.table")
        for task, table in each(results, "label_shift")
    ]


def label_cooccurrence(results: Results) -> list[Grid]:
    """Which findings come together."""
    columns = ("part", "class_a", "class_b", "count", "fraction_of_a")
    return [
        from_table(f"{task}: findings together", table, columns, entry=f"{task}.label_cooccurrence.table")
        for task, table in each(results, "label_cooccurrence")
    ]
