"""Nodes of data_prep. Large outputs are returned as recipes, `recipe(folder)`, that the dataset carries out.

Heavy modules are imported inside the nodes, so that listing pipelines stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from transferscope.experiment.node_parameters import PartSpec
from transferscope.experiment.study import GeneratedOptions
from transferscope.pipelines.types import ImageSource, PackedSplit

Recipe = Callable[[Path], object]


def draw_images(options: GeneratedOptions, seed: int) -> list[Recipe]:
    """A recipe per task that draws its images; those that share a root are drawn once."""
    from transferscope.generated import draw as generated

    train, test, size = options.num_train, options.num_test, options.size
    recipe: Recipe
    if options.draws == "source":
        recipe = partial(generated.generate_source, num_train=train, num_test=test, seed=seed, size=size)
    elif options.draws == "domains":
        domains = options.tasks
        recipe = partial(
            generated.generate_domains, domains=domains, num_train=train, num_test=test, seed=seed, size=size
        )
    else:
        recipe = partial(generated.generate_chest, num_images=train + test, seed=seed, size=size)
    return [recipe] * len(options.tasks)


def pack_images(source: ImageSource, options: PartSpec) -> Recipe:
    """A recipe that decodes one part of a task into a packed split."""
    from transferscope.images.pack import pack_split

    return partial(
        pack_split,
        source,
        options.part,
        options.pictures,
        value_range=options.value_range,
        on_bad_image=options.on_bad_image,
        num_workers=options.num_workers,
    )


def join_splits(options: PartSpec, *parts: PackedSplit) -> Recipe:
    """A recipe that makes a view of several splits; no image is stored twice."""
    from transferscope.images.union import union_split

    return partial(union_split, list(parts), options.task, pictures=options.pictures)


def describe_splits(*splits: PackedSplit) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables of what was packed: splits, class sizes, the shift of labels from train to test, files dropped."""
    from transferscope.images import summary

    train, test = splits[:2]
    return (
        summary.summarise_splits(splits),
        summary.label_counts(splits),
        summary.label_shift(train, test),
        summary.dropped_files(splits),
    )


def list_drawn_examples(source: ImageSource) -> pd.DataFrame:
    """List the examples that were drawn for each part from those distributed."""
    from transferscope.images.summary import drawn_examples

    return drawn_examples(source)


def count_shared_patients(source: ImageSource) -> pd.DataFrame:
    """Count the patients that are in two parts."""
    from transferscope.images.summary import patient_overlap

    return patient_overlap(source)


def count_shared_images(*splits: PackedSplit) -> pd.DataFrame:
    """Count the images that are in two parts; a warning where there are any, and of those with different labels."""
    from transferscope.images import shared_images

    return shared_images.count_shared_images(splits)


def count_cooccurrence(*splits: PackedSplit) -> pd.DataFrame:
    """Count how often two findings are positive together."""
    from transferscope.images.summary import label_cooccurrence

    return pd.concat([label_cooccurrence(split) for split in splits], ignore_index=True)
