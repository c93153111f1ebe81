"""List the images of each class by its folder, and refuse folders that are no classes."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from transferscope.images.file_tree import FileTree, decode_text, joined, printable
from transferscope.images.files import read_file
from transferscope.images.image_suffixes import conversion, counted, has_image_suffix, images_below
from transferscope.images.part_folders import check_links
from transferscope.images.source import ExampleList, as_it_looks, printable_names, warn_once
from transferscope.system.errors import UserError


@dataclass
class PassedOver:
    """Counts of what lies in or beside class folders and is not read."""

    tree: FileTree
    beside: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)

    def report(self) -> None:
        """Warn once of all of it, with the way to convert photos of other formats."""
        images = "1 image" if self.beside == 1 else f"{self.beside} images"
        passed_over = [f"{images} beside the class folders"] if self.beside else []
        if self.suffixes:
            how = conversion(self.suffixes)
            passed_over.append(f"{counted(self.suffixes)} in class folders ({how})")
        if passed_over:
            warn_once(f"{self.tree.where('')}: passed over {' and '.join(passed_over)}")


def read_class_list(path: Path) -> tuple[str, ...]:
    """Names of the classes in a text file, a line each; UserError for none, and for one that is there twice."""
    where = f"class_list {printable(str(path))}"
    lines = re.split("\r\n|\n|\r", decode_text(read_file(path, where), where))
    names = tuple(line.strip() for line in lines if line.strip())
    twice = next((name for name, count in Counter(map(_key, names)).items() if count > 1), None)
    if not names or twice:
        raise UserError(f"{where}: " + (f"{twice!r} is there twice" if twice else "no class in it"))
    return printable_names(names, where)


def folders_of_classes(tree: FileTree, holder: str, passed: PassedOver) -> dict[str, str]:
    """Folder of each class below `holder`, by its name."""
    names, files = tree.entries(holder)
    check_links(tree, holder, files)
    if not names:
        raise UserError(f"{tree.where(holder)}: no class folder: put the images of each class in a folder of its own")
    passed.beside += sum(has_image_suffix(name) for name in files)
    return {name: joined(holder, name) for name in names}


def index_of_class(names: Iterable[str], where: str) -> dict[str, int]:
    """Position of each class, by its name in one spelling; `UserError` where two folders have the same."""
    index_of: dict[str, int] = {}
    for index, name in enumerate(names):
        if index_of.setdefault(_key(name), index) != index:
            raise UserError(f"{where}: two class folders differ in the spelling of their accents only: join them")
    return index_of


def check_not_nested(tree: FileTree, classes: dict[str, str]) -> None:
    """Refuse domains, or parts under other names, as classes: they hold folders of the same names and no image.

    Not all need to hold the same ones, as a small part lacks classes. A single class folder that holds nothing but
    folders, such as the train part beside test images without labels, is named in a warning.
    """
    deep = {}
    for name, folder in classes.items():
        inner, files = tree.entries(folder)
        if inner and not any(map(has_image_suffix, files)):
            deep[name] = inner
    counts = Counter(name for inner in deep.values() for name in inner)
    shared = [name for name, count in counts.items() if count > 1]
    if len(deep) == len(classes) > 1 and len(counts) > 1 and all(set(inner) & {*shared} for inner in deep.values()):
        names = " and ".join(f"{printable(name)}/" for name in list(classes)[:2])
        inside = ", ".join(map(printable, shared[:3])) + (", ..." if len(shared) > 3 else "")
        raise UserError(
            f"{tree.where(next(iter(classes.values())).rpartition('/')[0])}: {names} hold folders of the same names "
            f"({inside}), as parts or domains do: give one of them as root, name parts train/, val/ or test/, or list "
            "the classes with class_list"
        )
    odd = [name for name, inner in deep.items() if len(inner) > 1]
    if len(odd) == 1 and len(classes) > 1:
        inside = ", ".join(map(printable, deep[odd[0]][:3])) + (", ..." if len(deep[odd[0]]) > 3 else "")
        warn_once(
            f"{tree.where(classes[odd[0]])}: read as a single class, though it holds the folders {inside}: if these "
            "are the classes, give this folder as root, or name the parts train/ and test/"
        )


def read_part(
    tree: FileTree, classes: dict[str, str], index_of: dict[str, int], known: str, passed: PassedOver
) -> ExampleList:
    """Paths and labels of the images of a part.

    classes: folder of each class, by its name. index_of: position of each class. known: the part or file with all
    classes, for messages. Raises UserError for a class that is not among these and for one without images.
    """
    paths: list[str] = []
    labels: list[int] = []
    if classes and not any(_key(name).casefold() in {key.casefold() for key in index_of} for name in classes):
        raise UserError(
            f"{tree.where(next(iter(classes.values())).rpartition('/')[0])}: no folder in it is named like a class of "
            f"{known}: put the images of each class in a folder of its own"
        )
    for name, folder in classes.items():
        index = index_of.get(_key(name))
        if index is None:
            raise UserError(
                f"{tree.where(folder)}: class {printable(name)!r} is not in {known}: " + _advice(name, index_of)
            )
        images, others = images_below(tree, folder)
        if not images:
            held = f" (but {counted(others)}; {conversion(others)})" if others else ""
            raise UserError(f"{tree.where(folder)}: no image in this class folder{held}: remove it or add images")
        passed.suffixes.update(others)
        paths.extend(images)
        labels.extend([index] * len(images))
    ids = printable_names(paths, tree.where(""))
    return ExampleList(tuple(paths), np.array(labels, dtype=np.int64), ids)


def _advice(name: str, known: Iterable[str]) -> str:
    """Rename a folder whose class is there in another case or with other spaces, remove any other."""
    other = next((item for item in known if as_it_looks(item) == as_it_looks(name)), None)
    return f"rename it to {printable(other)!r}" if other is not None else "remove it"


def _key(name: str) -> str:
    """A class's name in one spelling of its accents, of which file systems know two."""
    return unicodedata.normalize("NFC", name)
