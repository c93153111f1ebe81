"""Separate images from other files: by their suffix, or without a suffix by their content."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from PIL import Image

from transferscope.images.decode import FORMATS, is_image
from transferscope.images.file_tree import FileTree, printable

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


def counted(suffixes: Counter[str]) -> str:
    """`12 .heic, 1 .txt` of the most common suffixes."""
    ordered = sorted(((count, suffix) for suffix, count in suffixes.items()), key=lambda item: (-item[0], item[1]))
    shown = [f"{count} {printable(suffix)}" for count, suffix in ordered[:6]]
    return ", ".join(shown) + (", ..." if len(suffixes) > 6 else "")


_CAMERAS = frozenset((".heic", ".heif", ".jxl", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".psd"))
"""Suffixes of photos that are not read."""


def conversion(suffixes: Iterable[str]) -> str:
    """Advice on making images of files that are not read; with a command where they are photos."""
    photos = sorted(_CAMERAS.intersection(suffixes))
    if not photos:
        return "convert what is an image to PNG or JPEG"
    return f"they are left out; convert them, for example with `magick mogrify -format jpg *{photos[0]}`"


def images_below(tree: FileTree, folder: str) -> tuple[list[str], Counter[str]]:
    """Images anywhere below a folder, and how many other files of each suffix."""
    images, others = [], Counter[str]()
    for path in tree.files(folder):
        name = path.rpartition("/")[2]
        suffix = _SUFFIX.search(name)
        if has_image_suffix(name) or (suffix is None and _is_unnamed_image(tree, path)):
            images.append(path)
        else:
            others[suffix[0].lower() if suffix else "without a suffix"] += 1
    return images, others


def has_image_suffix(name: str) -> bool:
    """True if a name or path ends like that of an image, in any case."""
    return "." + name.rpartition(".")[2].lower() in EXTENSIONS


def _is_unnamed_image(tree: FileTree, path: str) -> bool:
    stamp = tree.stamp(path)
    readable = stamp is not None and stamp[0] <= MAX_SNIFFED_BYTES and not _BACKUP.search(path)
    return readable and is_image(tree.read(path))


def holds_images(tree: FileTree, folder: str) -> bool:
    """True if a file with an image's suffix lies anywhere below a folder."""
    return any(has_image_suffix(path) for path in tree.files(folder))
