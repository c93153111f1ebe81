"""Nodes of data_prep. Large outputs are returned as recipes, `recipe(folder)`, that the dataset carries out.

Heavy modules are imported inside the nodes, so that listing pipelines stays quick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from transferscope.experiment.options import PictureOptions
from transferscope.experiment.study import GeneratedOptions

logger = logging.getLogger("transferscope")

SHUFFLED_SHOWN = 4
"""Images on the sheet of shuffled images."""

Recipe = Callable[[Path], object]


def draw_images(options: dict[str, Any], seed: int) -> list[Recipe]:
    """A recipe per task that draws its images; those that share a root are drawn once."""
    from transferscope.generated import draw as generated

    drawn = GeneratedOptions.model_validate(options)
    seed_and_size: dict[str, Any] = {"seed": seed, "size": drawn.size}
    counts: dict[str, Any] = {"num_train": drawn.num_train, "num_test": drawn.num_test}
    recipe: Recipe
    if drawn.draws == "source":
        recipe = partial(generated.generate_source, **counts, **seed_and_size)
    elif drawn.draws == "domains":
        recipe = partial(generated.generate_domains, domains=drawn.tasks, **counts, **seed_and_size)
    else:
        recipe = partial(generated.generate_chest, num_images=drawn.num_train + drawn.num_test, **seed_and_size)
    return [recipe] * len(drawn.tasks)


def pack_images(source: Any, options: dict[str, Any]) -> Recipe:
    """A recipe that decodes one part of a task into a packed split."""
    from transferscope.images.pack import pack_split

    pictures = PictureOptions.model_validate(options["pictures"])
    how = {key: options[key] for key in ("on_bad_image", "num_workers")}
    return partial(pack_split, source, options["part"], pictures, value_range=options.get("value_range"), **how)


def join_splits(options: dict[str, Any], *parts: Any) -> Recipe:
    """A recipe that makes a view of several splits; no image is stored twice."""
    from transferscope.images.union import union_split

    pictures = PictureOptions.model_validate(options["pictures"])
    return partial(union_split, list(parts), options["task"], pictures=pictures)


def describe_splits(*splits: Any) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables of what was packed: splits, class sizes, the shift of labels from train to test, files dropped."""
    from transferscope.images import summary

    train, test = splits[:2]
    return (
        summary.summarise_splits(splits),
        summary.label_counts(splits),
        summary.label_shift(train, test),
        summary.dropped_files(splits),
    )


def list_drawn_examples(source: Any) -> pd.DataFrame:
    """Which examples of those distributed were drawn for which part."""
    from transferscope.images.summary import drawn_examples

    return drawn_examples(source)


def count_shared_patients(source: Any) -> pd.DataFrame:
    """How many patients are in two parts."""
    from transferscope.images.summary import patient_overlap

    return patient_overlap(source)


def count_shared_images(*splits: Any) -> pd.DataFrame:
    """How many images are in two parts; a warning where there are any."""
    from transferscope.images.summary import image_overlap

    table = image_overlap(splits)
    for row in table[table["shared_b"] > 0].to_dict("records"):
        logger.warning(
            "%s: %d of %d images of the %s part are in the %s part, too, pixel for pixel as stored: "
            "metrics on them say nothing about new images",
            *(row[key] for key in ("task", "shared_b", "images_b", "part_b", "part_a")),
        )
    return table


def count_cooccurrence(*splits: Any) -> pd.DataFrame:
    """How often two findings are positive together."""
    from transferscope.images.summary import label_cooccurrence

    return pd.concat([label_cooccurrence(split) for split in splits], ignore_index=True)


def draw_contact_sheet(split: Any, note: str | None) -> Any:
    """Some images of every class, as the network sees them."""
    from transferscope.images.augment import SeenImages
    from transferscope.plots.images import contact_sheet

    title = f"{split.name}, {split.part}"
    return contact_sheet(SeenImages(split), split.labels, split.class_names, title=title, note=note)


def draw_shuffled_images(split: Any, note: str | None) -> Any:
    """Some images shuffled in blocks of several sizes (Figure 3 of the main text)."""
    from transferscope.plots.shuffled import shuffled_sheet

    rows = np.linspace(0, len(split) - 1, SHUFFLED_SHOWN).round().astype(int)
    return shuffled_sheet(split.gather(rows), title=split.name, note=note)


def draw_class_sizes(*splits_and_note: Any) -> Any:
    """Bars of the class sizes in all parts."""
    from transferscope.plots.labels import class_size_bars

    *splits, note = splits_and_note
    labels = {split.part: split.labels for split in splits}
    return class_size_bars(labels, splits[0].class_names, title=splits[0].name, note=note)


def draw_label_cooccurrence(split: Any, note: str | None) -> Any:
    """Which findings occur together."""
    from transferscope.plots.labels import label_cooccurrence

    return label_cooccurrence(split.labels, split.class_names, title=f"{split.name}, {split.part}", note=note)
