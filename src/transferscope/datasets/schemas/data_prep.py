"""Tables of data_prep: which images there are, and which of them were drawn."""

from __future__ import annotations

from transferscope.datasets.schemas.columns import count, flag, name_or_number, number, share, table, text
from transferscope.datasets.schemas.names import CLASS, PART, PARTS, TASK

BOTH_PARTS = (text("part_a", "first part", *PARTS), text("part_b", "second part", *PARTS))

TABLES = {
    "drawn_examples": table(
        "A row per example that was drawn from those distributed.",
        TASK,
        PART,
        count("position", "place in the part, from 0"),
        count("row", "place in the list or CSV as distributed, from 0"),
        text("example_id", "name of the example as distributed"),
        text("path", "file of the image"),
        key=("part", "position"),
    ),
    "splits": table(
        "A row per part: its size, the originals' sizes, how it was drawn.",
        TASK,
        PART,
        flag("generated", "whether the images are drawn by this project"),
        count("num_examples", "images", "images"),
        count("num_classes", "classes or findings", low=1),
        count("channels", "channels of the stored images", low=1),
        count("side", "side of the stored images", "px", low=1),
        number("megabytes", "size of the stored images", "MB", low=0, always=True),
        *(
            column
            for side in ("width", "height")
            for column in (
                number(f"source_{side}_median", f"median {side} of the originals", "px", low=0),
                count(f"source_{side}_min", f"smallest {side} of the originals", "px"),
                count(f"source_{side}_max", f"largest {side} of the originals", "px"),
            )
        ),
        count("num_dropped", "files that were left out", "files"),
        text("sampling", "how the examples were drawn", empty=True),
        name_or_number("digest", "SHA-256 of the part"),
        key=("part",),
    ),
    "class_sizes": table(
        "A row per part and class: its examples.",
        TASK,
        PART,
        CLASS,
        count("count", "examples of the class, or with the finding", "examples"),
        count("negatives", "other examples with a label", "examples"),
        count("ignored", "examples without a label", "examples"),
        share("fraction", "`count` of all with a label"),
        key=("part", "class_name"),
    ),
    "label_shift": table(
        "A row per class: its share in train and in test.",
        TASK,
        CLASS,
        share("train_fraction", "share in train"),
        share("test_fraction", "share in test"),
        number("difference", "test less train", "share", low=-1, high=1),
        key=("class_name",),
    ),
    "dropped_files": table(
        "A row per file that was left out.",
        TASK,
        PART,
        text("path", "the file"),
        text("reason", "why it was left out"),
    ),
    "shared_images": table(
        "A row per two parts: images that are in both, pixel for pixel as stored.",
        TASK,
        *BOTH_PARTS,
        count("images_a", "images of the first part", "images"),
        count("images_b", "images of the second part", "images"),
        count("shared_a", "images of the first part that are in the second", "images"),
        count("shared_b", "images of the second part that are in the first", "images"),
        key=("part_a", "part_b"),
    ),
    "shared_patients": table(
        "A row per two parts: patients that are in both.",
        TASK,
        *BOTH_PARTS,
        count("patients_a", "patients of the first part", "patients"),
        count("patients_b", "patients of the second part", "patients"),
        count("shared_patients", "patients of both", "patients"),
        count("images_a", "images of the first part", "images"),
        count("images_b", "images of the second part", "images"),
        count("images_of_shared_a", "images of the first part of shared patients", "images"),
        count("images_of_shared_b", "images of the second part of shared patients", "images"),
        key=("part_a", "part_b"),
    ),
    "label_cooccurrence": table(
        "A row per part and ordered pair of findings.",
        TASK,
        PART,
        text("class_a", "first finding"),
        text("class_b", "second finding"),
        count("count", "examples with both", "examples"),
        share("fraction_of_a", "`count` of the examples with the first; empty where there are none"),
        key=("part", "class_a", "class_b"),
    ),
}
