"""Nodes of data_prep. Large outputs are returned as recipes, `recipe(folder)`, that the dataset carries out.

Heavy modules are imported inside the nodes, so that listing pipelines stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from transferscope.options import PictureOptions
from transferscope.study import GeneratedOptions

Recipe = Callable[[Path], object]


def draw_images(options: dict[str, Any], seed: int) -> list[Recipe]:
    """A recipe per task that draws its images; those that share a root are drawn once."""
    from transferscope.images import generated

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
    return partial(pack_split, source, options["part"], pictures, on_bad_image=options["on_bad_image"])


def join_splits(options: dict[str, Any], *parts: Any) -> Recipe:
    """A recipe that makes a view of several splits; no image is stored twice."""
    from transferscope.images.union import union_split

    return partial(union_split, list(parts), options["task"])


def count_classes(train_split: Any, test_split: Any) -> pd.DataFrame:
    """Positive, negative and ignored examples of each class in each part."""
    rows = []
    for split in (train_split, test_split):
        for index, name in enumerate(split.class_names):
            labels = split.labels[:, index] if split.multi_label else (split.labels == index).astype(int)
            counts = {"count": (labels == 1).sum(), "negatives": (labels == 0).sum(), "ignored": (labels == -1).sum()}
            rows.append({"task": split.name, "part": split.part, "class_name": name, **counts})
    return pd.DataFrame(rows)


def draw_contact_sheet(split: Any, note: str | None) -> Any:
    """Some images of every class."""
    from transferscope.plots.images import contact_sheet

    return contact_sheet(split.images, split.labels, split.class_names, title=split.name, note=note)


def draw_class_sizes(train_split: Any, test_split: Any, note: str | None) -> Any:
    """Bars of the class sizes in both parts."""
    from transferscope.plots.labels import class_size_bars

    labels = {split.part: split.labels for split in (train_split, test_split)}
    return class_size_bars(labels, train_split.class_names, title=train_split.name, note=note)


def draw_label_cooccurrence(split: Any, note: str | None) -> Any:
    """Which findings occur together."""
    from transferscope.plots.labels import label_cooccurrence

    return label_cooccurrence(split.labels, split.class_names, title=split.name, note=note)
