"""Reading a tree with one folder per class: `train/<class>/...` and `val/<class>/...` or `test/<class>/...`.

ImageNet's layout; or the class folders alone, of whose images a share is drawn for testing. Files may lie at any depth
below their class; only files with an image's extension count.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from transferscope.images.files import FileTree, open_tree
from transferscope.images.source import GENERATED_MARK, ExampleList, ImageSource
from transferscope.system.errors import UserError

SHARE_SEED = 0

EXTENSIONS = frozenset(
    ".jpg .jpeg .png .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .jp2".split()  # noqa: SIM905 - shorter to read
)
"""Extensions of images, in lower case; files may have them in any case."""


def read_image_folder(
    root: str | Path,
    *,
    test_share: float | None = None,
    class_list: str | Path | None = None,
    seed: int = SHARE_SEED,
    name: str | None = None,
) -> ImageSource:
    """Read a tree of class folders; classes are the folders of `train`, in alphabetical order.

    With both `val` and `test` the first is the validation part and the second the test part; otherwise the one that
    exists is the test part. Hidden files and files without an image's extension are passed over.

    Args:
        test_share: The root holds class folders and no parts: this share of each class, by a draw, is the test part.
        class_list: A text file with a class a line, in the order of a classifier's outputs; the folders may be some of
            them. None: the folders are the classes.
        seed: Of the draw.

    Raises:
        UserError: For a missing part, a class without images, a class outside train or the list that these lack.
    """
    tree = open_tree(root)
    found = tree.entries()[0]
    others = [part for part in ("val", "test") if part in found]
    in_parts = "train" in found and bool(others)
    if in_parts == (test_share is not None):
        raise UserError(_which_layout(tree, in_parts=in_parts))
    listed = None if class_list is None else _read_class_list(Path(class_list))
    class_names = listed or _class_folders(tree, "train" if in_parts else "")
    known = "train/" if listed is None else f"{class_list}"
    if test_share is None:
        parts = {part: _read_part(tree, part, class_names, known) for part in ("train", *others)}
        sampling = "all"
    else:
        parts = _draw_parts(_read_part(tree, "", class_names, known), test_share, seed)
        others, sampling = ["test"], f"test_share {test_share:g} of each class by default_rng({seed})"
    return ImageSource(
        name=name or tree.root.stem,
        root=tree.root,
        class_names=class_names,
        multi_label=False,
        generated=tree.is_file(GENERATED_MARK),
        train=parts["train"],
        test=parts[others[-1]],
        validation=parts["val"] if len(others) == 2 else None,
        sampling=sampling,
    )


def _which_layout(tree: FileTree, *, in_parts: bool) -> str:
    if in_parts:
        return f"{tree.where('')}: test_share is for class folders without parts, but there is train/: leave it out"
    return (
        f"{tree.where('')}: needs the folders train/ and val/ or test/, each with a folder per class; for class "
        f"folders alone say with test_share, e.g. 0.2, which share of the images is for testing"
    )


def _read_class_list(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"class_list {path}: cannot be read ({error}): give a text file with a class a line") from error
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if not names or twice:
        raise UserError(f"class_list {path}: " + (f"{twice!r} is there twice" if twice else "no class in it"))
    return names


def _draw_parts(examples: ExampleList, test_share: float, seed: int) -> dict[str, ExampleList]:
    """Of each class the share, rounded, for testing; at least one image stays on each side."""
    rng = np.random.default_rng(seed)
    tested = np.zeros(len(examples), dtype=bool)
    for label in np.unique(examples.labels):
        members = rng.permutation(np.flatnonzero(examples.labels == label))
        if len(members) < 2:
            example = examples.paths[members[0]]
            raise UserError(f"{example}: the only image of its class: test_share needs two at least")
        tested[members[: min(max(1, round(test_share * len(members))), len(members) - 1)]] = True
    return {"train": examples.select(np.flatnonzero(~tested)), "test": examples.select(np.flatnonzero(tested))}


def _class_folders(tree: FileTree, part: str) -> tuple[str, ...]:
    names = tuple(name for name in tree.entries(part)[0] if not name.startswith("."))
    if not names:
        raise UserError(f"{tree.where(part)}: no class folder: put the images of each class in a folder of its own")
    return names


def _read_part(tree: FileTree, part: str, class_names: tuple[str, ...], known: str) -> ExampleList:
    paths: list[str] = []
    labels: list[int] = []
    index_of = {name: index for index, name in enumerate(class_names)}
    for name in _class_folders(tree, part):
        folder = f"{part}/{name}".lstrip("/")
        if name not in index_of:
            raise UserError(f"{tree.where(folder)}: class {name!r} is not in {known}: remove it")
        images = [path for path in tree.files(folder) if _is_image(path)]
        if not images:
            raise UserError(f"{tree.where(folder)}: no image in this class folder: remove it or add images")
        paths.extend(images)
        labels.extend([index_of[name]] * len(images))
    return ExampleList(tuple(paths), np.array(labels, dtype=np.int64), tuple(paths))


def _is_image(path: str) -> bool:
    file = path.rpartition("/")[2]
    return not file.startswith(".") and "." + file.rpartition(".")[2].lower() in EXTENSIONS
