"""Several splits of one label space as one, without storing an image twice."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transferscope.experiment.options import PictureOptions
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.images.split_files import write_description
from transferscope.system.atomic import atomic_folder
from transferscope.system.errors import UserError


def union_split(
    parts: Sequence[PackedSplit], name: str, folder: str | Path, *, pictures: PictureOptions | None = None
) -> PackedSplit:
    """Write a folder that refers to the parts' folders, and open it; one part alone: a view of it.

    The references are relative, so folders may be moved together. Example ids are those of the parts; where two parts
    share an id the result would be ambiguous, which is an error. `pictures` may differ from the parts' in all that
    happens to an image after it is stored; None: as the parts.

    Raises:
        UserError: Naming what disagrees: class names, kind of label, size or settings of the images.
    """
    folder = Path(folder)
    if not parts:
        raise UserError(f"union {name}: it needs at least one part")
    _check_parts(parts, name)
    pictures = pictures or parts[0].pictures
    _check_stored(pictures, parts[0], name)
    head = ["union", pictures.model_dump_json(), *(part.digest for part in parts)]
    digest = hashlib.sha256("\n".join(head).encode()).hexdigest()
    info = SplitInfo(
        name=name,
        part=parts[0].part,
        class_names=parts[0].class_names,
        multi_label=parts[0].multi_label,
        generated=any(part.generated for part in parts),
        pictures=pictures,
        digest=digest,
        dropped=tuple(file for part in parts for file in part.dropped),
        sampling="; ".join(dict.fromkeys(part.info.sampling for part in parts)),
    )
    target = folder.resolve()
    with atomic_folder(folder) as temporary:
        paths = [os.path.relpath(part.folder.resolve(), target) for part in parts if part.folder]
        write_description(temporary, info, {"parts": paths, "part_digests": [part.digest for part in parts]})
    return PackedSplit.open(folder)


def _check_stored(pictures: PictureOptions, part: PackedSplit, name: str) -> None:
    for key in ("store_size", "style"):
        stored, asked = getattr(part.pictures, key), getattr(pictures, key)
        if stored != asked:
            raise UserError(f"union {name}: {key} is {asked}, but {part.name} is stored with {stored}: give the same")


def _check_parts(parts: Sequence[PackedSplit], name: str) -> None:
    first = parts[0]
    for part in parts:
        if part.folder is None:
            raise UserError(f"union {name}: {part.name} is a view in memory: give splits that lie in folders")
        for what in ("class_names", "multi_label", "pictures", "part"):
            if getattr(part, what) != getattr(first, what):
                raise UserError(
                    f"union {name}: {what} of {part.name} and {first.name} differ ({_difference(first, part, what)}): "
                    f"a union needs parts of one label space, packed alike"
                )
        if part.images.shape[1:] != first.images.shape[1:]:
            raise UserError(f"union {name}: images of {part.name} and {first.name} differ in size: pack them alike")
    ids = [example_id for part in parts for example_id in part.example_ids]
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise UserError(f"union {name}: example {twice!r} is in two of its parts: give parts that share no example")


def _difference(first: PackedSplit, part: PackedSplit, what: str) -> str:
    a, b = getattr(first, what), getattr(part, what)
    if what != "class_names":
        return f"{b} and {a}"
    if len(a) != len(b):
        return f"{len(b)} and {len(a)} classes"
    return next(f"class {i} is {y!r} and {x!r}" for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
