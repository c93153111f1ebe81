"""Read a tree with one folder per class: `train/<class>/...` and `val/<class>/...` or `test/<class>/...`.

ImageNet's layout; or the class folders alone, of whose images a share is drawn for testing. Files may lie at any depth
below their class. Files with an image's suffix count, and files without any suffix whose content is an image; all
others are counted in a warning. `part_folders` finds the parts, `class_folders` reads the classes of each, and
`image_suffixes` separates images from other files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from transferscope.experiment.options import Images, PathText
from transferscope.images.class_folders import (
    PassedOver,
    check_not_nested,
    folders_of_classes,
    index_of_class,
    read_class_list,
    read_part,
)
from transferscope.images.file_tree import FileTree
from transferscope.images.files import open_tree
from transferscope.images.part_folders import check_names, find_parts, single_folder
from transferscope.images.source import (
    GENERATED_MARK,
    ExampleList,
    ImageFormat,
    ImageSource,
    check_classes,
    printable_names,
    report_notes,
    warn_once,
)
from transferscope.system.errors import UserError
from transferscope.system.renamed import renamed_object

SHARE_SEED = 0
EVERY_IMAGE = "all"
"""The sampling of a source that has every image of its folders, in the parts that are there."""


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
        if self.test_share is not None and source.sampling == EVERY_IMAGE:
            warn_once(f"{root}: test_share {self.test_share:g} is not used, because there are parts")
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
    return replace(source, **drawn, sampling=note if source.sampling == EVERY_IMAGE else f"{source.sampling}; {note}")


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
    listed = None if class_list is None else read_class_list(Path(class_list))
    base, folders = find_parts(tree, test_share)
    class_names, examples = _read_classes(tree, base, folders, listed, str(class_list))
    sampling = EVERY_IMAGE
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
        unreadable=_unreadable(tree, examples),
    )


def _read_classes(
    tree: FileTree, base: str, folders: Mapping[str, str] | None, listed: tuple[str, ...] | None, list_file: str
) -> tuple[tuple[str, ...], dict[str, ExampleList]]:
    """Names of the classes, and the images of each part; without parts all under the empty name.

    base, folders: of `find_parts`. listed: the classes of `list_file`, if there is one.
    """
    passed = PassedOver(tree)
    holders = {"": base} if folders is None else {part: single_folder(tree, folder) for part, folder in folders.items()}
    parts = {part: folders_of_classes(tree, holder, passed) for part, holder in holders.items()}
    if listed is None:
        for classes in parts.values():
            check_not_nested(tree, classes)
            check_names(tree, classes)
    in_train = tuple(parts["" if folders is None else "train"])
    class_names = listed or printable_names(in_train, tree.where(base))
    known = f"{folders['train']}/" if folders is not None and listed is None else list_file
    index_of = index_of_class(listed or in_train, tree.where(base))
    examples = {part: read_part(tree, classes, index_of, known, passed) for part, classes in parts.items()}
    check_classes(class_names, tree.where(base) if listed is None else f"class_list {list_file}")
    passed.report()
    return class_names, examples


def _unreadable(tree: FileTree, examples: Mapping[str, ExampleList]) -> tuple[str, ...]:
    """Files among the images that cannot be opened, with the reason."""
    return tuple(
        f"{tree.where(path)}: {tree.no_file(path)} and no image"
        for part in examples.values()
        for path in part.paths
        if path in tree.unreadable
    )


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


def __getattr__(name: str) -> object:
    """Names that stood here in version 0.1."""
    if (known := renamed_object(__name__, name)) is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return known
