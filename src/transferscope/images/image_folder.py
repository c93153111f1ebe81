"""Reading a tree with one folder per class: `train/<class>/...` and `val/<class>/...` or `test/<class>/...`.

ImageNet's layout; or the class folders alone, of whose images a share is drawn for testing. Files may lie at any depth
below their class. Files with an image's suffix count, and files without any suffix whose content is an image; all
others are counted in a warning.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from transferscope.experiment.options import Images, PathText
from transferscope.images.decode import FORMATS, is_image
from transferscope.images.file_tree import FileTree, decode_text, printable
from transferscope.images.files import open_tree, read_file
from transferscope.images.source import (
    GENERATED_MARK,
    ExampleList,
    ImageFormat,
    ImageSource,
    as_it_looks,
    check_classes,
    printable_names,
    report_notes,
    warn_once,
)
from transferscope.system.errors import UserError

SHARE_SEED = 0
MAX_SNIFFED_BYTES = 1 << 26
"""Larger files without a suffix are not looked into."""


def _extensions() -> frozenset[str]:
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    return frozenset(known | {".jif"})


EXTENSIONS = _extensions()
"""Suffixes of images, in lower case; files may have them in any case."""

_SUFFIX = re.compile(r"\.(?=[0-9]*[a-z])[a-z0-9]{1,5}$", re.IGNORECASE)
_BACKUP = re.compile(r"_original$|\.bak$", re.IGNORECASE)
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


class ImageFolder(ImageFormat):
    """A folder for each class, in parts for training and testing or without parts."""

    path_options: ClassVar[tuple[str, ...]] = ("class_list",)

    test_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Without parts: the share of each class that is for testing; not used where there are parts."""
    class_list: PathText | None = None
    """A text file with a class per line, in the order of a classifier's outputs."""
    max_train: Images | None = None
    """The largest number of training images; of more, this many are drawn, of each class in proportion. None: all."""
    max_test: Images | None = None
    """The same of the images for testing, and of those for validation."""

    def read(self, root: Path, task: str) -> ImageSource:
        """`read_image_folder` with these options."""
        source = read_image_folder(root, test_share=self.test_share, class_list=self.class_list)
        return _limited(source, self.max_train, self.max_test)

    def sample_sizes(self) -> tuple[int, int] | None:
        """The largest numbers, where both are given."""
        return None if self.max_train is None or self.max_test is None else (self.max_train, self.max_test)

    def validation_fault(self, *, wanted: bool) -> str | None:
        """Folders without parts are shared out to train and test alone."""
        return "this layout has no validation part" if wanted and self.test_share is not None else None


def _limited(source: ImageSource, max_train: int | None, max_test: int | None) -> ImageSource:
    """The source with at most so many images of each part."""
    limits = {"train": max_train, "test": max_test, "validation": max_test}
    parts = {part: getattr(source, part) for part in limits}
    drawn = {
        part: examples.select(_drawn(examples.labels, limit))
        for part, examples in parts.items()
        if examples is not None and (limit := limits[part]) is not None and limit < len(examples)
    }
    if not drawn:
        return source
    drawn_of = [f"{len(examples)} of {len(parts[part])} {part}" for part, examples in drawn.items()]
    note = f"{', '.join(drawn_of)} by default_rng({SHARE_SEED})"
    return replace(source, **drawn, sampling=note if source.sampling == "all" else f"{source.sampling}; {note}")


def _drawn(labels: np.ndarray, limit: int) -> np.ndarray:
    """Positions, in order, of `limit` examples: of each class in proportion, and of every class while there is room."""
    order = np.random.default_rng(SHARE_SEED).permutation(len(labels))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
        rank[members[0]] = -1  # a class comes with one example at least
    return np.sort(order[np.argsort(rank[order], kind="stable")][:limit])


def read_image_folder(
    root: str | Path,
    *,
    test_share: float | None = None,
    class_list: str | Path | None = None,
    seed: int = SHARE_SEED,
    name: str | None = None,
) -> ImageSource:
    """Read a tree of class folders; classes are the folders of the train part, in alphabetical order.

    Parts are recognised by the usual names in any case: `train`, `training`, `trn`; `val`, `valid`, `validation`,
    `dev`; `test`, `testing`, `eval`, `holdout`; also `train2017`, `test_images`, `seg_train` beside `seg_test`. With a
    part for validation and one for testing both are used; otherwise the one that exists is the test part. Where there
    are parts, `test_share` is not used. A folder that holds nothing but one folder is passed through.

    Args:
        test_share: For class folders without parts: this share of each class, by a draw, is the test part.
        class_list: A text file with a class per line, in the order of a classifier's outputs; the folders may be
            some of them. None: the folders are the classes.
        seed: Of the draw.

    Raises:
        UserError: For a missing part, folders that are neither parts nor classes, a class without images, a class
            outside train or the list that these lack, or a single class.
    """
    tree = open_tree(root)
    report_notes(tree.notes)
    listed = None if class_list is None else _read_class_list(Path(class_list))
    base, folders = _find_parts(tree, test_share)
    passed = _PassedOver(tree)
    holders = {"": base} if folders is None else {part: _through(tree, folder) for part, folder in folders.items()}
    parts = {part: _class_folders(tree, holder, passed) for part, holder in holders.items()}
    if listed is None:
        for classes in parts.values():
            _check_not_nested(tree, classes)
            _check_names(tree, classes)
    in_train = tuple(parts["" if folders is None else "train"])
    class_names = listed or printable_names(in_train, tree.where(base))
    known = f"{folders['train']}/" if folders is not None and listed is None else f"{class_list}"
    index_of = _index_of(listed or in_train, tree.where(base))
    examples = {part: _read_part(tree, classes, index_of, known, passed) for part, classes in parts.items()}
    check_classes(class_names, tree.where(base) if listed is None else f"class_list {class_list}")
    passed.report()
    sampling = "all"
    if folders is None:
        assert test_share is not None
        examples = _draw_parts(tree, examples[""], test_share, seed)
        sampling = f"test_share {test_share:g} of each class by default_rng({seed})"
    _report_untested(tree, examples, class_names)
    return ImageSource(
        name=name or tree.root.stem,
        root=tree.root,
        class_names=class_names,
        multi_label=False,
        generated=tree.is_file(GENERATED_MARK),
        train=examples["train"],
        test=examples["test" if "test" in examples else "val"],
        validation=examples["val"] if "val" in examples and "test" in examples else None,
        sampling=sampling,
        unreadable=tuple(
            f"{tree.where(path)}: {tree.no_file(path)} and no image"
            for part in examples.values()
            for path in part.paths
            if path in tree.unreadable
        ),
    )


@dataclass
class _PassedOver:
    """Counts of what lies in or beside class folders and is not read."""

    tree: FileTree
    beside: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)

    def report(self) -> None:
        images = "1 image" if self.beside == 1 else f"{self.beside} images"
        passed_over = [f"{images} beside the class folders"] if self.beside else []
        if self.suffixes:
            how = _conversion(self.suffixes)
            passed_over.append(f"{_counted(self.suffixes)} in class folders ({how})")
        if passed_over:
            warn_once(f"{self.tree.where('')}: passed over {' and '.join(passed_over)}")


def _counted(suffixes: Counter[str]) -> str:
    """`12 .heic, 1 .txt` of the most common suffixes."""
    ordered = sorted(((count, suffix) for suffix, count in suffixes.items()), key=lambda item: (-item[0], item[1]))
    shown = [f"{count} {printable(suffix)}" for count, suffix in ordered[:6]]
    return ", ".join(shown) + (", ..." if len(suffixes) > 6 else "")


_CAMERAS = frozenset((".heic", ".heif", ".jxl", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".psd"))
"""Suffixes of photos that are not read."""


def _conversion(suffixes: Iterable[str]) -> str:
    """Advice on making images of files that are not read; with a command where they are photos."""
    photos = sorted(_CAMERAS.intersection(suffixes))
    if not photos:
        return "convert what is an image to PNG or JPEG"
    return f"they are left out; convert them, for example with `magick mogrify -format jpg *{photos[0]}`"


def _find_parts(tree: FileTree, test_share: float | None) -> tuple[str, dict[str, str] | None]:
    """(the folder that holds parts or classes, the folder of each part); None: class folders without parts."""
    base = ""
    while True:
        folders, files = tree.entries(base)
        _check_links(tree, base, files)
        by_part = _part_folders(folders)
        named = [name for names in by_part.values() for name in names]
        deep = [name for name in named if tree.entries(_join(base, name))[0]]
        if len(named) > 1:
            parts = _check_parts(tree, base, by_part, deep)
            _report_beside_parts(tree, base, [name for name in folders if name not in named])
            if test_share is not None:
                there = " and ".join(f"{folder}/" for folder in parts.values())
                warn_once(f"{tree.where(base)}: test_share {test_share:g} is not used, because {there} are there")
            return base, {part: _join(base, folder) for part, folder in parts.items()}
        if deep:
            others = [name for name in folders if name not in deep and _holds_images(tree, _join(base, name))]
            if others:
                raise UserError(
                    f"{tree.where(base)}: {deep[0]}/ looks like a part of the data and {others[0]}/ like a class: put "
                    "all images in parts, or rename or remove the folder"
                )
            folders = deep
        if len(folders) != 1 or any(_has_image_suffix(name) for name in files):
            break
        if not tree.entries(_join(base, folders[0]))[0]:
            break
        base = _join(base, folders[0])
    if test_share is None:
        raise UserError(_which_layout(tree))
    if base:
        warn_once(f"{tree.where(base)}: the class folders are taken from here, for above there is no other folder")
    return base, None


def _check_links(tree: FileTree, folder: str, names: Iterable[str]) -> None:
    """Refuse what may have been a part or a class: a link to a folder that is not there any more, or a pipe."""
    lost = next((path for name in names if (path := _join(folder, name)) in tree.unreadable), None)
    if lost is not None and not _has_image_suffix(lost):
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
            f"{tree.where(_join(base, flat))}: a part of the data without class folders: put the images of each class "
            "in a folder of its own, or rename or remove the folder"
        )
    return parts


def _report_beside_parts(tree: FileTree, base: str, others: list[str]) -> None:
    unused = [printable(name) for name in others if _holds_images(tree, _join(base, name))]
    if unused:
        warn_once(f"{tree.where(base)}: passed over the folders beside the parts: {', '.join(unused)}")


def _which_layout(tree: FileTree) -> str:
    return (
        f"{tree.where('')}: needs the folders train/ and val/ or test/, each with a folder per class; for class "
        f"folders alone say with test_share, e.g. 0.2, which share of the images is for testing"
    )


def _through(tree: FileTree, folder: str) -> str:
    """The folder that holds the classes: `folder`, or one below it where there is no other and it holds folders."""
    start = folder
    while True:
        folders, files = tree.entries(folder)
        if len(folders) != 1 or any(_has_image_suffix(name) for name in files):
            break
        below = _join(folder, folders[0])
        inner, images = tree.entries(below)
        if not inner or any(_has_image_suffix(name) for name in images):
            break
        folder = below
    if folder != start:
        warn_once(f"{tree.where(folder)}: the class folders are taken from here, for above there is no other folder")
    return folder


def _read_class_list(path: Path) -> tuple[str, ...]:
    where = f"class_list {printable(str(path))}"
    lines = re.split("\r\n|\n|\r", decode_text(read_file(path, where), where))
    names = tuple(line.strip() for line in lines if line.strip())
    twice = next((name for name, count in Counter(map(_key, names)).items() if count > 1), None)
    if not names or twice:
        raise UserError(f"{where}: " + (f"{twice!r} is there twice" if twice else "no class in it"))
    return printable_names(names, where)


def _draw_parts(tree: FileTree, examples: ExampleList, test_share: float, seed: int) -> dict[str, ExampleList]:
    """Of each class the share, rounded, for testing; at least one image stays on each side."""
    rng = np.random.default_rng(seed)
    tested = np.zeros(len(examples), dtype=bool)
    for label in np.unique(examples.labels):
        members = rng.permutation(np.flatnonzero(examples.labels == label))
        if len(members) < 2:
            example = tree.where(examples.paths[members[0]])
            raise UserError(f"{example}: the only image of its class: test_share needs two at least")
        tested[members[: min(max(1, round(test_share * len(members))), len(members) - 1)]] = True
    return {"train": examples.select(np.flatnonzero(~tested)), "test": examples.select(np.flatnonzero(tested))}


def _class_folders(tree: FileTree, holder: str, passed: _PassedOver) -> dict[str, str]:
    """Folder of each class below `holder`, by its name."""
    names, files = tree.entries(holder)
    _check_links(tree, holder, files)
    if not names:
        raise UserError(f"{tree.where(holder)}: no class folder: put the images of each class in a folder of its own")
    passed.beside += sum(_has_image_suffix(name) for name in files)
    return {name: _join(holder, name) for name in names}


def _index_of(names: Iterable[str], where: str) -> dict[str, int]:
    """Position of each class, by its name in one spelling; `UserError` where two folders have the same."""
    index_of: dict[str, int] = {}
    for index, name in enumerate(names):
        if index_of.setdefault(_key(name), index) != index:
            raise UserError(f"{where}: two class folders differ in the spelling of their accents only: join them")
    return index_of


def _check_not_nested(tree: FileTree, classes: dict[str, str]) -> None:
    """Refuse domains, or parts under other names, as classes: they hold folders of the same names and no image.

    Not all need to hold the same ones, as a small part lacks classes. A single class folder that holds nothing but
    folders, such as the train part beside test images without labels, is named in a warning.
    """
    deep = {}
    for name, folder in classes.items():
        inner, files = tree.entries(folder)
        if inner and not any(map(_has_image_suffix, files)):
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


def _check_names(tree: FileTree, classes: dict[str, str]) -> None:
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


def _read_part(
    tree: FileTree, classes: dict[str, str], index_of: dict[str, int], known: str, passed: _PassedOver
) -> ExampleList:
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
        images, others = _images_below(tree, folder)
        if not images:
            held = f" (but {_counted(others)}; {_conversion(others)})" if others else ""
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


def _images_below(tree: FileTree, folder: str) -> tuple[list[str], Counter[str]]:
    """Images anywhere below a folder, and how many other files of each suffix."""
    images, others = [], Counter[str]()
    for path in tree.files(folder):
        name = path.rpartition("/")[2]
        suffix = _SUFFIX.search(name)
        if _has_image_suffix(name) or (suffix is None and _is_unnamed_image(tree, path)):
            images.append(path)
        else:
            others[suffix[0].lower() if suffix else "without a suffix"] += 1
    return images, others


def _has_image_suffix(name: str) -> bool:
    return "." + name.rpartition(".")[2].lower() in EXTENSIONS


def _is_unnamed_image(tree: FileTree, path: str) -> bool:
    stamp = tree.stamp(path)
    readable = stamp is not None and stamp[0] <= MAX_SNIFFED_BYTES and not _BACKUP.search(path)
    return readable and is_image(tree.read(path))


def _holds_images(tree: FileTree, folder: str) -> bool:
    return any(_has_image_suffix(path) for path in tree.files(folder))


def _report_untested(tree: FileTree, examples: dict[str, ExampleList], class_names: tuple[str, ...]) -> None:
    """Warn of classes that another part than train lacks."""
    trained = set(np.unique(examples["train"].labels).tolist())
    for part, own in examples.items():
        missing = sorted(trained - set(np.unique(own.labels).tolist()))
        if missing:
            shown = ", ".join(class_names[label] for label in missing[:5]) + (
                f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            )
            warn_once(f"{tree.where('')}: the {part} part lacks images of {shown}")


def _key(name: str) -> str:
    """A class's name in one spelling of its accents, of which file systems know two."""
    return unicodedata.normalize("NFC", name)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
