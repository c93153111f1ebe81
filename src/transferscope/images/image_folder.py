"""Reading a tree with one folder per class: `train/<class>/...` and `val/<class>/...` or `test/<class>/...`.

ImageNet's layout. Files may lie at any depth below their class; only files with an image's extension count.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from transferscope.errors import UserError
from transferscope.images.files import FileTree, open_tree
from transferscope.images.source import GENERATED_MARK, ExampleList, ImageSource

EXTENSIONS = frozenset(
    ".jpg .jpeg .png .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .jp2".split()  # noqa: SIM905 - shorter to read
)
"""Extensions of images, in lower case; files may have them in any case."""


def read_image_folder(root: str | Path, *, name: str | None = None) -> ImageSource:
    """Read a tree of class folders; classes are the folders of `train`, in alphabetical order.

    With both `val` and `test` the first is the validation part and the second the test part; otherwise the one that
    exists is the test part. Hidden files and files without an image's extension are passed over.

    Raises:
        UserError: For a missing part, a class without images, a class outside train that train lacks.
    """
    tree = open_tree(root)
    found = tree.entries()[0]
    others = [part for part in ("val", "test") if part in found]
    if "train" not in found or not others:
        raise UserError(f"{tree.where('')}: needs the folders train/ and val/ or test/, each with a folder per class")
    class_names = _class_folders(tree, "train")
    parts = {part: _read_part(tree, part, class_names) for part in ("train", *others)}
    return ImageSource(
        name=name or tree.root.stem,
        root=tree.root,
        class_names=class_names,
        multi_label=False,
        generated=tree.is_file(GENERATED_MARK),
        train=parts["train"],
        test=parts[others[-1]],
        validation=parts["val"] if len(others) == 2 else None,
    )


def _class_folders(tree: FileTree, part: str) -> tuple[str, ...]:
    names = tuple(name for name in tree.entries(part)[0] if not name.startswith("."))
    if not names:
        raise UserError(f"{tree.where(part)}: no class folder: put the images of each class in a folder of its own")
    return names


def _read_part(tree: FileTree, part: str, class_names: tuple[str, ...]) -> ExampleList:
    paths: list[str] = []
    labels: list[int] = []
    for name in _class_folders(tree, part):
        if name not in class_names:
            raise UserError(f"{tree.where(f'{part}/{name}')}: class {name!r} is not in train/: remove it")
        images = [path for path in tree.files(f"{part}/{name}") if _is_image(path)]
        if not images:
            raise UserError(f"{tree.where(f'{part}/{name}')}: no image in this class folder: remove it or add images")
        paths.extend(images)
        labels.extend([class_names.index(name)] * len(images))
    return ExampleList(tuple(paths), np.array(labels, dtype=np.int64), tuple(paths))


def _is_image(path: str) -> bool:
    file = path.rpartition("/")[2]
    return not file.startswith(".") and "." + file.rpartition(".")[2].lower() in EXTENSIONS
