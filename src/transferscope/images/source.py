"""A data set as its reader returns it: files, labels and names."""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from transferscope.experiment.data_formats import DataFormat
from transferscope.images.example_columns import no_columns
from transferscope.images.file_tree import FileTree, printable
from transferscope.images.files import open_tree
from transferscope.system.errors import UserError

logger = logging.getLogger("transferscope")

GENERATED_MARK = "GENERATED.txt"
"""A file of this name in a root says that its images were drawn by the generator."""


@dataclass(frozen=True, eq=False)
class ExampleList:
    """One part of a data set, as distributed and in the order in which it is used."""

    paths: tuple[str, ...]
    """Files relative to the root, with forward slashes."""
    labels: np.ndarray
    """int64 (n,) class index, or int8 (n, num_classes) in {1, 0, -1}; -1: ignore."""
    example_ids: tuple[str, ...]
    """Unique and stable names of the examples."""
    rows: np.ndarray | None = None
    """int64 (n,) position of each example in the list or CSV as distributed, from 0; None: no such list."""
    columns: pd.DataFrame | None = None
    """Texts of each example beside its labels, a row per example; None: the list has no such columns."""

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.labels) == len(self.example_ids)
        assert self.rows is None or len(self.rows) == len(self.paths)
        assert self.columns is None or len(self.columns) == len(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: np.ndarray) -> ExampleList:
        """The examples at `indices`, in that order."""
        return ExampleList(
            paths=tuple(self.paths[i] for i in indices),
            labels=self.labels[indices],
            example_ids=tuple(self.example_ids[i] for i in indices),
            rows=np.asarray(indices if self.rows is None else self.rows[indices], dtype=np.int64),
            columns=None if self.columns is None else self.columns.iloc[indices].reset_index(drop=True),
        )

    def texts(self) -> pd.DataFrame:
        """`columns`, without any column where the list has none."""
        return no_columns(len(self)) if self.columns is None else self.columns


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A data set as distributed: a folder or an archive, and what is to be used of it."""

    name: str
    root: Path
    class_names: tuple[str, ...]
    multi_label: bool
    generated: bool
    train: ExampleList
    test: ExampleList
    validation: ExampleList | None = None
    sampling: str = "all"
    """The draw of examples from those distributed; "all": none was left out."""
    unreadable: tuple[str, ...] = ()
    """A line for each listed file that is known to be none, such as a link to nothing."""

    @classmethod
    def from_labels(
        cls,
        root: str | Path,
        *,
        train: Iterable[tuple[str, str]],
        test: Iterable[tuple[str, str]],
        validation: Iterable[tuple[str, str]] | None = None,
    ) -> ImageSource:
        """A data set given as the class of every file.

        Args:
            root: folder or archive.
            train, test, validation: path below `root` and name of the class of each image, in the order of use.

        Raises:
            UserError: a file does not exist or is listed twice in a part, there is one class only, a part has no images
                or a class of its own, or a class is no text.
        """
        tree, labels = open_tree(root), _labels(f"{root}, train", train)
        names = sorted(set(labels.values()))
        check_classes(names, str(root))

        def listed(part: str, examples: Iterable[tuple[str, str]]) -> ExampleList:
            return _listed(tree, f"{root}, {part}", _labels(f"{root}, {part}", examples), names)

        return cls(
            name=Path(root).name,
            root=Path(root),
            class_names=tuple(names),
            multi_label=False,
            generated=tree.is_file(GENERATED_MARK),
            train=listed("train", labels.items()),
            test=listed("test", test),
            validation=None if validation is None else listed("validation", validation),
        )

    def part(self, part: str) -> ExampleList:
        """The examples of "train", "test" or, where there is one, "validation"."""
        examples = {"train": self.train, "test": self.test, "validation": self.validation}.get(part)
        if examples is None:
            known = "train, test" if self.validation is None else "train, test, validation"
            raise UserError(f"{self.name} has no part {part!r}: it has {known}")
        return examples

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that exist."""
        return ("train", "test") if self.validation is None else ("train", "test", "validation")


def _labels(where: str, examples: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Class by path of the examples of one part, each of which is listed once."""
    labels: dict[str, str] = {}
    for path, label in examples:
        if not (isinstance(path, str) and isinstance(label, str)):
            raise UserError(f"{where}: {path!r} has the class {label!r}: give paths and names of classes as text")
        if path in labels:
            raise UserError(f"{where}: {path} is listed twice, with the classes {labels[path]!r} and {label!r}")
        labels[path] = label
    return labels


def _listed(tree: FileTree, where: str, labels: Mapping[str, str], names: Sequence[str]) -> ExampleList:
    """The examples of one part, whose files exist and whose classes are among `names`."""
    if not labels:
        raise UserError(f"{where}: no images are listed")
    paths = tuple(labels)
    number = {name: index for index, name in enumerate(names)}
    for path, name in labels.items():
        if name not in number:
            raise UserError(f"{where}: {path} has the class {name!r}, of which there are no images to train on")
    index, missing = tree.first_missing(paths)
    if missing:
        raise UserError(f"{where}: {missing} of {len(paths)} files do not exist, the first is {paths[index]}")
    return ExampleList(paths, np.array([number[name] for name in labels.values()], dtype=np.int64), paths)


class ImageFormat(DataFormat, ABC):
    """A format of images and labels on disk: its options as fields, and how they are listed."""

    @abstractmethod
    def read(self, root: Path, task: str) -> ImageSource:
        """List images and labels below `root` without decoding an image; its name may differ from the task's."""


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, once in a process: a run reads each data set several times."""
    logger.warning(message)


def printable_names(names: Sequence[str], what: str) -> tuple[str, ...]:
    """Names fit for tables and figures: line breaks and bytes that are no UTF-8 are escaped; `UserError` if two agree.

    Args:
        what: The things named, in messages.
    """
    shown = tuple(map(printable, names))
    if len(set(shown)) < len(set(names)):
        raise UserError(f"{what}: two names differ in unprintable characters only: rename one of them")
    return shown


def check_classes(class_names: Sequence[str], where: str) -> None:
    """Refuse a task of one class and report classes whose names look alike."""
    if len(class_names) < 2:
        only = f" ({class_names[0]})" if class_names else ""
        raise UserError(f"{where}: one class only{only}: a task needs two classes at least, each with its images")
    seen: dict[str, str] = {}
    for name in class_names:
        other = seen.setdefault(as_it_looks(name), name)
        if other != name:
            how = "case" if other.casefold() == name.casefold() else "case, spaces or characters that nobody sees"
            warn_once(f"{where}: classes {other!r} and {name!r} differ in {how} only; they are two classes")


def as_it_looks(name: str) -> str:
    """A name without case, spaces, and characters of no width, which are written as escapes here."""
    spelled = re.sub(r"\\u(?:200[b-f]|206[0-9]|feff)|\\xad", "", name)
    return "".join(unicodedata.normalize("NFC", spelled).casefold().split())


def report_notes(notes: Iterable[str]) -> None:
    """Log every note of a tree or a reader once."""
    for note in notes:
        warn_once(note)
