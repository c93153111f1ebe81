"""The study of some checkpoint files: what is compared with what, what is merged, and what is not defined."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from transferscope.experiment.options import Pairing, PictureOptions
from transferscope.experiment.study import RESERVED
from transferscope.framework.comparing.compared_files import ComparedFile
from transferscope.images.image_folder import EVERY_IMAGE, read_image_folder
from transferscope.system.errors import UserError

TASK = "images"
"""The task on whose images files are compared; of several folders each names its own."""
PARENT = "p"
ORIGIN = "origin"
"""The task of the parent, whose classes may be others, so that it is not judged on the images."""
APART = 5
"""Files that are a kind of run each, with a label of their own; more are one kind."""
TEST_SHARE = 0.5
SIDE = 64
"""Side in pixels of the images that spectra are of, where there are none; at 224 they take four times as long."""
MERGES = ("uniform", "aligned_rescaled")
MERGES_OF_MANY = ("uniform", "greedy")
MERGES_FROM_PARENT = ("wise_ft", "task_arithmetic", "ties")


@dataclass(frozen=True)
class Images:
    """A folder of images, with what of it is used."""

    root: str
    class_names: tuple[str, ...]
    num_train: int
    num_test: int
    """Images that are used."""
    there: int
    """All images."""
    options: dict[str, Any]
    """Of the task."""

    def __str__(self) -> str:
        used = self.num_train + self.num_test
        drawn = f", drawn of {self.there:,} (--max-images takes more)" if used < self.there else ""
        return (
            f"{len(self.class_names)} classes; {self.num_test:,} test images to judge by, and {self.num_train:,} for "
            f"statistics of BatchNorm and of channels{drawn}; lines and merges take some of them, and say how many"
        )


def task_names(roots: Sequence[str]) -> list[str]:
    """Names of the tasks of folders of images: the folder's in lower case, with a number where two are alike."""
    if len(roots) < 2:
        return [TASK] * len(roots)
    names: list[str] = []
    for root in roots:
        word = re.sub("[^a-z0-9]+", "_", Path(root).name.lower()).strip("_")
        name = word if word[:1].isalpha() and word not in (ORIGIN, *RESERVED) else f"{TASK}_{word}".strip("_")
        numbered = (f"{name}_{number}" for number in count(2))
        names.append(name if name not in names else next(other for other in numbered if other not in names))
    return names


def read_images(root: str, class_list: str | None, most: int) -> Images:
    """List the images of a folder, and choose at most `most` of them, half of these for judging.

    Raises UserError for a folder that is missing or has no images, and for a faulty list of classes.
    """
    options: dict[str, Any] = {"format": "image_folder", "root": root}
    if class_list is not None:
        options["class_list"] = class_list
    source = read_image_folder(root, test_share=TEST_SHARE, class_list=class_list)
    if source.sampling != EVERY_IMAGE:  # class folders without parts
        options["test_share"] = TEST_SHARE
    limit = max(most // 2, 1)
    counts = {"num_train": len(source.train), "num_test": len(source.test)}
    options |= {key.replace("num", "max"): limit for key, count in counts.items() if count > limit}
    used = {key: min(limit, count) for key, count in counts.items()}
    return Images(root, source.class_names, **used, there=sum(counts.values()), options=options)


def check_classes(files: Sequence[ComparedFile], images: Images) -> None:
    """Raise a UserError where a model has another number of classes than the images."""
    number, names = len(images.class_names), images.class_names
    for file in files:
        if file.num_classes != number:
            shown = ", ".join(names[:3]) + (", ..." if number > 3 else "")
            given = "class_list" in images.options
            what = "lists" if given else "has folders of"
            raise UserError(
                f"{file.label} has {file.num_classes} classes, and {images.options.get('class_list', images.root)} "
                f"{what} {number} ({shown}): give a text file with all classes of the models, a class per line in the "
                "order of their outputs, as --classes; the folders may be some of them"
            )


def side_of(files: Sequence[ComparedFile], size: int | None) -> int | None:
    """The side at which images are shown; None where any will do.

    Raises UserError where networks take images of different sizes only, or of another than is asked for.
    """
    sides = {file.image_side: file.label for file in files if file.image_side is not None}
    if len(sides) > 1:
        shown = " and ".join(f"{label} takes {side} px" for side, label in sides.items())
        raise UserError(f"{shown}: they have no images in common, so compare them without --images")
    for side, label in sides.items():
        if size not in (None, side):
            raise UserError(f"--size {size}: {label} takes images of {side} px only")
    return next(iter(sides), size)


def normalisation(own: PictureOptions | None) -> str:
    """The normalisation of images as a sentence, which no file says.

    own: the options that say it; None for ImageNet's.
    """
    pictures = own or PictureOptions()
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (pictures.mean, pictures.std))
    whose = "" if own else " (ImageNet's)"
    return (
        f"images are normalised by mean {mean} and std {std}{whose}; no file says what a model was "
        "trained with: give it by --params pictures.mean=[...],pictures.std=[...]"
    )


def kinds_of(number: int) -> list[str]:
    """The kind of run of each of so many files: its own up to `APART`, and one of all where there are more."""
    letters = [letter for letter in string.ascii_lowercase if letter != PARENT]
    return letters[:number] if number <= APART else [SERIES] * number


@dataclass(frozen=True)
class Comparison:
    """Files, the images that they are judged on, their parent, and which of them are compared."""

    files: tuple[ComparedFile, ...]
    images: Mapping[str, Images] = field(default_factory=dict)
    """By task."""
    parent: ComparedFile | None = None
    pairing: Pairing = "all"
    size: int | None = None

    @property
    def networks(self) -> list[tuple[str, dict[str, Any]]]:
        """The different networks."""
        networks: list[tuple[str, dict[str, Any]]] = []
        for file in self.files:
            if file.network not in networks:
                networks.append(file.network)
        return networks

    @cached_property
    def side(self) -> int | None:
        """The side at which images are shown; without images that of the blank ones, which all networks take."""
        side = side_of(self.files, self.size)
        if side is not None or self.images:
            return side
        from transferscope.models.image_input import common_side
        from transferscope.models.zoo import tried_network

        return common_side(tried_network(*network) for network in self.networks) or SIDE

    @property
    def apart(self) -> bool:
        """True if each file is a kind of run of its own."""
        return len(self.files) <= APART

    @property
    def kinds(self) -> dict[str, ComparedFile]:
        """Kinds of run with one file each."""
        return dict(zip(kinds_of(len(self.files)), self.files, strict=True)) if self.apart else {}

    @property
    def alike(self) -> list[list[str]]:
        """Pairs of kinds of one network."""
        return [[a, b] for a, b in self._pairs() if not self.kinds or self.kinds[a].network == self.kinds[b].network]

    def _pairs(self) -> list[list[str]]:
        names = list(self.kinds) or [SERIES]
        if not self.apart:
            return [[SERIES, SERIES]]
        if self.pairing == "all":
            return [[a, b] for place, a in enumerate(names) for b in names[place + 1 :]]
        before = names[:-1] if self.pairing == "consecutive" else [names[0]] * (len(names) - 1)
        return [[a, b] for a, b in zip(before, names[1:], strict=True)]

    def check(self) -> None:
        """Raise a UserError for too few files, and for many files of several networks."""
        if len(self.files) + (self.parent is not None) < 2:
            raise UserError("give two checkpoint files at least, or one and its --parent")
        if not self.apart and len(self.networks) > 1:
            shown = ", ".join(dict.fromkeys(file.shown_model for file in self.files))
            raise UserError(
                f"{len(self.files)} files of {len(self.networks)} networks ({shown}): at most {APART} files of "
                "different networks are compared at once"
            )

    def undefined(self) -> Iterator[str]:
        """A sentence for each thing that is not defined for these files, and why."""
        if len(self.networks) > 1:
            shown = " and ".join(dict.fromkeys(file.shown_model for file in self.files))
            yield f"distances between weights are not defined for {shown}, whose tensors differ"
            yield f"there is no line between {shown}, so no barrier and no permutation that could explain one"
            yield f"{shown} cannot be merged"
        if not self.images:
            yield (
                "without --images there are no mistakes, no similarity of features, no barrier and no merge; channels "
                f"are matched by weights alone, and spectra are for images of {self.side} px"
            )
        if self.parent is None and self.images and len(self.networks) == 1:
            yield f"left out: {', '.join(MERGES_FROM_PARENT)}, which need the file that models start from (--parent)"

    def parameters(self) -> dict[str, Any]:
        """The study, as parameters have it."""
        pairs = self._pairs()
        with_parent = [*pairs, *([kind, PARENT] for kind in self._runs())] if self.parent else pairs
        alike = self.alike
        analyses: dict[str, Any] = {
            "mistakes": {"pairs": pairs} if pairs else None,
            "similarity": {"pairs": with_parent},
            "landscape": {"pairs": alike} if alike and self.images else None,
            "spectrum": {"kinds": [*self._runs(), *([PARENT] if self.parent else [])]},
            "merging": self._merging(),
        }
        first, side = self.files[0], self.side
        return {
            "inherit_study": False,
            "report": {"title": " and ".join(file.label for file in self.files) if self.apart else "Checkpoints"},
            "tasks": self._tasks(),
            "model": {"name": first.model, "options": first.options},
            "runs": self._runs() | self._parent(),
            "analyses": analyses,
            **({} if side is None else {"pictures": {"store_size": side}}),
        }

    def _tasks(self) -> dict[str, Any]:
        nothing = {"format": "image_folder", "root": None}
        judged = {task: images.options for task, images in self.images.items()}
        return (judged or {TASK: nothing}) | ({ORIGIN: nothing} if self.parent else {})

    def _runs(self) -> dict[str, Any]:
        common: dict[str, Any] = {"tasks": list(self.images) or [TASK], "initialisation": "checkpoint"}
        if self.parent is not None:
            common["pretrained"] = f"{ORIGIN}.{PARENT}_1"
        if not self.apart:
            paths = [file.path for file in self.files]
            taken = None if self.parent is None else self.parent.label
            label = next(name for name in ("model", "file") if name != taken)
            return {SERIES: {"label": label, "checkpoints": paths, "pairing": self.pairing, **common}}
        return {
            kind: {"label": file.label, "checkpoint": file.path, "model": _model(file), **common}
            for kind, file in self.kinds.items()
        }

    def _parent(self) -> dict[str, Any]:
        if self.parent is None:
            return {}
        file = {"label": self.parent.label, "checkpoint": self.parent.path, "model": _model(self.parent)}
        return {PARENT: {**file, "tasks": [ORIGIN], "initialisation": "checkpoint"}}

    def _merging(self) -> dict[str, Any] | None:
        """All files in one merge, where they have one network and there are images to judge it by."""
        if not self.images or len(self.networks) > 1:
            return None
        tasks = list(self.images)
        number = len(self.files)
        names = [f"{kind}_1" for kind in self.kinds] or [f"{SERIES}_{place}" for place in range(1, number + 1)]
        methods: tuple[str, ...] = MERGES if number == 2 else MERGES_OF_MANY if number > 2 else ()
        methods += MERGES_FROM_PARENT if self.parent else ()
        candidates = [f"{tasks[0]}.{name}" for name in names]
        merge: dict[str, Any] = {"name": "average", "candidates": candidates, "methods": list(methods)}
        if len(tasks) > 1:  # the weights are the same on all
            merge["evaluated_on"] = tasks
        return {"merges": [merge]}


SERIES = "m"
"""The kind of run of more than `APART` files."""


def _model(file: ComparedFile) -> dict[str, Any]:
    return {"name": file.model, "options": file.options}
