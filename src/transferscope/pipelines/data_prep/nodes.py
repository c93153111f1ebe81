"""Nodes of data_prep. Large outputs are returned as recipes, `recipe(folder)`, that the dataset carries out.

Heavy modules are imported inside the nodes, so that listing pipelines stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from transferscope.options import GeneratedOptions, PictureOptions

Recipe = Callable[[Path], object]


def draw_images(options: dict[str, Any], seed: int) -> list[Recipe] | Recipe:
    """A recipe per task that draws its images; those that share a root are drawn once."""
    from transferscope.images import generated

    drawn = GeneratedOptions.model_validate(options)
    common = {"seed": seed, "size": drawn.size}
    if drawn.draws == "source":
        recipe = partial(generated.generate_source, num_train=drawn.num_train, num_test=drawn.num_test, **common)
    elif drawn.draws == "domains":
        recipe = partial(
            generated.generate_domains,
            domains=drawn.tasks,
            num_train=drawn.num_train,
            num_test=drawn.num_test,
            **common,
        )
    else:
        recipe = partial(generated.generate_chest, num_images=drawn.num_train + drawn.num_test, **common)
    return [recipe] * len(drawn.tasks) 


def pack_images(source: Any, options: dict[str, Any]) -> Recipe:
    """A recipe that decodes one part of a task into a packed split."""
    from transferscope.images.pack import pack_split

    pictures = PictureOptions.model_validate(options["pictures"])
    return partial(_pack, pack_split, source, options["part"], pictures)


def _pack(pack_split: Callable[..., object], source: Any, part: str, pictures: PictureOptions, folder: Path) -> object:
    return pack_split(source, part, pictures, folder)


def join_splits(options: dict[str, Any], *parts: Any) -> Recipe:
    """A recipe that makes a view of several splits; no image is stored twice."""
    from transferscope.images.union import union_split

    return partial(union_split, list(parts), options["task"])


def count_classes(train_split: Any, test_split: Any) -> pd.DataFrame:
    """Examples of each class; for multi-label tasks positives, negatives and ignored labels."""
    from transferscope.images.summary import class_sizes

    return class_sizes(train_split, test_split)


def draw_contact_sheet(split: Any) -> Any:
    """Some images of every class."""
    from transferscope.plots.images import contact_sheet_of

    return contact_sheet_of(split)


def draw_class_sizes(class_sizes: pd.DataFrame) -> Any:
    """Bars of the class sizes."""
    from transferscope.plots.images import plot_class_sizes

    return plot_class_sizes(class_sizes)
