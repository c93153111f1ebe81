"""Find the folders of the parts of a data set by the names that people give them: train, val, test and their like.

Beside them lie the checks that parts are not read as classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from transferscope.images.file_tree import FileTree, joined, printable
from transferscope.images.image_suffixes import has_image_suffix, holds_images
from transferscope.images.source import warn_once
from transferscope.system.errors import UserError

_PART = re.compile(
    r"(?P<before>(?:.*?[ _.\-])??)"
    r"(?P<part>train[ _\-]?val|train(?:ing)?|trn|val(?:id(?:ation)?)?|dev(?:el(?:opment)?)?|test(?:ing)?|tst"
    r"|eval(?:uation)?|hold[ _\-]?out)"
    r"(?:[ _.\-]?(?:set|split|part|folder|data|dataset|images?|imgs?|photos?|pictures?|dir|[0-9]+))*",
    re.IGNORECASE,
)
_PART_WORD = r"(?P<part>train(?:ing)?|trn|val(?:id(?:ation)?)?|dev|test(?:ing)?|tst)"
_PART_FIRST = re.compile(rf"{_PART_WORD}(?P<between>[ _.\-]*)(?P<name>.+)", re.IGNORECASE)
_PART_LAST = re.compile(rf"(?P<name>.+?)(?P<between>[ _.\-]*){_PART_WORD}", re.IGNORECASE)
"""A part before and after the name of a class, as in `train_cat`, `trainA` and `catTest`."""
_LETTER = re.compile(r"[A-Z]|[0-9]{1,3}")
"""The short name of a class, of a domain, or of a share of the images."""
_PART_OF = {"tr": "train", "va": "val", "de": "val", "te": "test", "ts": "test", "ho": "test", "ev": "eval"}
"""By the first two letters: train, training, trn; val, valid, validation; dev; test, testing, tst; holdout; eval."""


def find_parts(tree: FileTree, test_share: float | None) -> tuple[str, dict[str, str] | None]:
    """(the folder that holds parts or classes, the folder of each part); None: class folders without parts."""
    base = ""
    while True:
        folders, files = tree.entries(base)
        check_links(tree, base, files)
        by_part = _part_folders(folders)
        named = [name for names in by_part.values() for name in names]
        deep = [name for name in named if tree.entries(joined(base, name))[0]]
        if len(named) > 1:
            parts = _check_parts(tree, base, by_part, deep)
            _report_beside_parts(tree, base, [name for name in folders if name not in named])
            return base, {part: joined(base, folder) for part, folder in parts.items()}
        if deep:
            others = [name for name in folders if name not in deep and holds_images(tree, joined(base, name))]
            if others:
                raise UserError(
                    f"{tree.where(base)}: {deep[0]}/ looks like a part of the data and {others[0]}/ like a class: put "
                    "all images in parts, or rename or remove the folder"
                )
            folders = deep
        if len(folders) != 1 or any(has_image_suffix(name) for name in files):
            break
        if not tree.entries(joined(base, folders[0]))[0]:
            break
        base = joined(base, folders[0])
    if test_share is None:
        raise UserError(_which_layout(tree))
    if base:
        warn_once(f"{tree.where(base)}: the class folders are taken from here, for above there is no other folder")
    return base, None


def check_links(tree: FileTree, folder: str, names: Iterable[str]) -> None:
    """Refuse what may have been a part or a class: a link to a folder that is not there any more, or a pipe."""
    lost = next((path for name in names if (path := joined(folder, name)) in tree.unreadable), None)
    if lost is not None and not has_image_suffix(lost):
        raise UserError(
            f"{tree.where(lost)}: {tree.no_file(lost)}, where a folder may have been: bring it back or remove it"
        )


def _part_folders(folders: list[str]) -> dict[str, list[str]]:
    """Part -> the folders that are named like it.

    A name with something before it (`seg_train`) counts only beside a train or test part with the same before it, as
    there are classes such as `freight train`.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for name in folders:
        match = _PART.fullmatch(name)
        if match:
            part = _PART_OF[match["part"][:2].lower()]
            groups.setdefault(match["before"].casefold(), {}).setdefault(part, []).append(name)
    whole = groups.pop("", {})
    if whole:
        return whole
    return next((group for group in groups.values() if "train" in group and len(group) > 1), {})


def _check_parts(tree: FileTree, base: str, by_part: dict[str, list[str]], deep: list[str]) -> dict[str, str]:
    """The one folder of each of train, val and test; `UserError` where this is not clear."""
    if "eval" in by_part:
        by_part.setdefault("val" if "test" in by_part else "test", []).extend(by_part.pop("eval"))
    for part, names in by_part.items():
        if len(names) > 1:
            raise UserError(
                f"{tree.where(base)}: {' and '.join(f'{name}/' for name in names)} both look like the {part} part: "
                "rename or remove one of them"
            )
    parts: dict[str, str] = {part: by_part[part][0] for part in ("train", "val", "test") if part in by_part}
    if "train" not in parts:
        raise UserError(f"{tree.where(base)}: {' and '.join(f'{name}/' for name in parts.values())}, but no train/")
    flat = next((name for name in parts.values() if name not in deep), None)
    if flat is not None:
        raise UserError(
            f"{tree.where(joined(base, flat))}: a part of the data without class folders: put the images of each class "
            "in a folder of its own, or rename or remove the folder"
        )
    return parts


def _report_beside_parts(tree: FileTree, base: str, others: list[str]) -> None:
    unused = [printable(name) for name in others if holds_images(tree, joined(base, name))]
    if unused:
        warn_once(f"{tree.where(base)}: passed over the folders beside the parts: {', '.join(unused)}")


def _which_layout(tree: FileTree) -> str:
    return (
        f"{tree.where('')}: needs the folders train/ and val/ or test/, each with a folder per class; for class "
        f"folders alone say with test_share, e.g. 0.2, which share of the images is for testing"
    )


def single_folder(tree: FileTree, folder: str) -> str:
    """The folder that holds the classes: `folder`, or one below it where there is no other and it holds folders."""
    start = folder
    while True:
        folders, files = tree.entries(folder)
        if len(folders) != 1 or any(has_image_suffix(name) for name in files):
            break
        below = joined(folder, folders[0])
        inner, images = tree.entries(below)
        if not inner or any(has_image_suffix(name) for name in images):
            break
        folder = below
    if folder != start:
        warn_once(f"{tree.where(folder)}: the class folders are taken from here, for above there is no other folder")
    return folder


def _part_and_name(folder: str) -> tuple[str, str] | None:
    """The part and the class in the name of a folder; None where it holds no part, as `contest` and `trainer`.

    Without a sign between the two, one of them begins with a capital letter, or the class is a number.
    """
    first, last = _PART_FIRST.fullmatch(folder), _PART_LAST.fullmatch(folder)
    if first and (first["between"] or re.match("[A-Z0-9]", first["name"])):
        match = first
    elif last and (last["between"] or last["part"] == last["part"].capitalize()):
        match = last
    else:
        return None
    return _PART_OF[match["part"][:2].lower()], match["name"]


def check_names(tree: FileTree, classes: dict[str, str]) -> None:
    """Refuse `train_cat` beside `test_cat` as classes, which are parts of one, and `trainA` beside `testB`."""
    seen: dict[str, tuple[str, str]] = {}
    for name, folder in classes.items():
        if found := _part_and_name(name):
            part, of = found
            key = "" if _LETTER.fullmatch(of) else of.casefold()
            other, first = seen.setdefault(key, (part, name))
            if other != part:
                where, what = tree.where(folder.rpartition("/")[0]), "the parts of one class" if key else "parts"
                raise UserError(
                    f"{where}: {printable(first)}/ and {printable(name)}/ look like {what}: put the "
                    f"folder of each class into train/ and test/, such as {part}/{printable(of)}/, or list the classes "
                    "with class_list"
                )
