"""Packed splits of what a notebook has: folders, tensors, data sets, loaders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from transferscope.answers.answer import ONE_TASK
from transferscope.experiment.names import RunName
from transferscope.experiment.options import PictureOptions
from transferscope.experiment.study import RESERVED
from transferscope.images.auto_size import auto_size, short_sides
from transferscope.images.image_folder import read_image_folder
from transferscope.images.pack import pack_split
from transferscope.images.shared_images import count_shared_images
from transferscope.images.source import ExampleList
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.system.errors import UserError

Images = str | Path | tuple[Any, Any] | Dataset[Any] | DataLoader[Any] | Mapping[str, Any]
"""Labelled images as `compare` takes them."""
PARTS = ("train", "test")
PLAIN = {"mean": (0.0,), "std": (1.0,)}
"""Normalisation of values that are what the networks take already."""
BATCH = 64


def tasks_of(images: Images | Mapping[str, Images] | None) -> dict[str, Images | None]:
    """Labelled images by task: a mapping without parts has a task under each name, all else is one task.

    Raises UserError for a name that no task can have.
    """
    if not isinstance(images, Mapping) or set(images) & set(PARTS):
        return {ONE_TASK: images}
    if not images:
        raise UserError("images: the mapping is empty: give a folder for each task, or the parts train and test")
    for task in images:
        if RunName(task, "a_1").task in RESERVED:
            raise UserError(f"images: the name {task} is taken: choose another one for the task")
    return dict(images)


def take_images(
    images: Images,
    task: str,
    folder: Path,
    num_classes: int,
    max_images: int,
    class_list: str | Path | None = None,
    side: int | None = None,
) -> dict[str, PackedSplit]:
    """Make a train and a test part of labelled images, each of at most half of `max_images`, drawn by a fixed seed.

    Test images judge the models; train images give statistics of BatchNorm and of channels, and train nothing. A folder
    is read as `read_image_folder` does, in halves where it has no parts. All else gives pairs of what the networks take
    (float, (3 or 1, side, side)) and a label (a whole number, or 1, 0 and -1 for each finding), and is halved; a
    mapping has both parts by name. Images in both parts, and equal ones with different labels, are warned of.

    Args:
        folder: Where images are stored while they are compared.
        num_classes: Outputs of the networks.
        class_list: Names of all classes in the order of the outputs, where a folder has some of them.
        side: Of the only images that the networks take, in pixels; None: those of a folder are shown at `auto_size`.

    Raises:
        UserError: The images cannot be read, have no labels, or are of classes or of a size that the networks do not
            take.
    """
    if max_images < 4:
        raise UserError(f"max_images is {max_images}: give 4 at least, half of which judge")
    limit = max_images // 2
    if isinstance(images, str | Path):
        splits = _of_folder(Path(images), task, folder, limit, class_list, side)
    elif isinstance(images, Mapping):
        splits = _of_parts(images, task, folder, num_classes, limit)
    else:
        examples = _Examples(images, 2 * limit)
        half = len(examples) // 2
        if half < 2:
            raise UserError(f"images: {len(examples)} are too few for a half that judges and one that gives statistics")
        rows = np.random.default_rng(0).permutation(len(examples))
        parts = {"test": np.sort(rows[:half]), "train": np.sort(rows[half:])}
        splits = {part: examples.store(rows, task, part, folder, num_classes) for part, rows in parts.items()}
    for part, split in splits.items():
        if split.num_classes != num_classes:
            hint = "give class_list, a file with a class per line in the order of the outputs"
            raise UserError(f"{part} images have {split.num_classes} classes and the networks {num_classes}: {hint}")
        if side not in (None, split.pictures.seen_size):
            raise UserError(f"{part} images are of {split.pictures.seen_size} px, and the networks take {side} px only")
    count_shared_images([splits[part] for part in PARTS])
    return splits


def _of_folder(
    root: Path, task: str, folder: Path, limit: int, class_list: str | Path | None, side: int | None
) -> dict[str, PackedSplit]:
    source = read_image_folder(root, test_share=0.5, class_list=class_list, name=task)
    pictures = PictureOptions(store_size=side or auto_size(short_sides(source)))
    source = replace(source, train=_few(source.train, limit), test=_few(source.test, limit))
    return {part: pack_split(source, part, pictures, folder / part) for part in PARTS}


def _few(examples: ExampleList, limit: int) -> ExampleList:
    if len(examples) <= limit:
        return examples
    return examples.select(np.sort(np.random.default_rng(0).choice(len(examples), limit, replace=False)))


def _of_parts(
    images: Mapping[str, Any], task: str, folder: Path, num_classes: int, limit: int
) -> dict[str, PackedSplit]:
    if set(images) != set(PARTS):
        raise UserError(f"images: a mapping has the parts train and test, not {', '.join(map(str, images))}")
    splits = {}
    for part in PARTS:
        if isinstance(images[part], PackedSplit):
            splits[part] = images[part]
            if task not in (ONE_TASK, images[part].name):
                raise UserError(f"images: the splits of {task} are of the task {images[part].name}: use that name")
        else:
            examples = _Examples(images[part], limit)
            splits[part] = examples.store(np.arange(len(examples)), task, part, folder, num_classes)
    return splits


class _Examples:
    """At most so many labelled images of a data set, read when they are stored."""

    def __init__(self, images: Any, limit: int) -> None:
        self.classes: Sequence[str] | None = None
        if isinstance(images, DataLoader):
            collate, images = images.collate_fn, images.dataset
        else:
            collate = default_collate
        self._collate: Callable[[list[Any]], Any] = collate
        if isinstance(images, tuple) and len(images) == 2 and all(hasattr(part, "__len__") for part in images):
            inputs, labels = (torch.as_tensor(part) for part in images)
            if len(inputs) != len(labels):
                raise UserError(f"images: {len(inputs)} images and {len(labels)} labels: give a label for each image")
            images = torch.utils.data.TensorDataset(inputs, labels)
        if isinstance(images, IterableDataset):
            images = list(islice(images, limit))
        if not (hasattr(images, "__getitem__") and hasattr(images, "__len__")):
            raise UserError(
                f"images is a {type(images).__name__}: give a folder, (images, labels), a Dataset or a DataLoader"
            )
        self._images = images
        count = len(images)
        self._rows = np.arange(count)
        if count > limit:
            self._rows = np.sort(np.random.default_rng(0).choice(count, limit, replace=False))
        names = getattr(images, "classes", None)
        self.classes = tuple(map(str, names)) if isinstance(names, list | tuple) else None

    def __len__(self) -> int:
        return len(self._rows)

    def store(self, rows: np.ndarray, task: str, part: str, folder: Path, num_classes: int) -> PackedSplit:
        """Write some of the images to a file that is mapped into memory, and make a split of them."""
        stored: np.ndarray | None = None
        labels: list[Tensor] = []
        path, digest, start = folder / f"{part}.npy", hashlib.sha256(), 0
        for inputs, targets in self._batches(rows):
            if stored is None:
                folder.mkdir(parents=True, exist_ok=True)
                stored = np.lib.format.open_memmap(
                    path, mode="w+", dtype=np.float32, shape=(len(rows), *inputs.shape[1:])
                )
            values = inputs.float().numpy()
            digest.update(values.tobytes())
            stored[start : start + len(values)] = 255 * values  # in the units of stored images
            start += len(values)
            labels.append(targets)
        assert stored is not None
        classes, names = _labels(torch.cat(labels), num_classes, self.classes)
        digest.update(classes.tobytes())
        side = int(stored.shape[-1])
        pictures = PictureOptions(store_size=side, **PLAIN)
        info = SplitInfo(task, part, names, classes.ndim == 2, False, pictures, digest.hexdigest())
        sizes = np.full((len(rows), 2), side, dtype=np.int32)
        return PackedSplit(info, stored, classes, [f"{part}/{row}" for row in rows], sizes)

    def _batches(self, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(rows), BATCH):
            batch = self._collate([self._images[int(self._rows[row])] for row in rows[start : start + BATCH]])
            yield _checked(batch)


def _checked(batch: Any) -> tuple[Tensor, Tensor]:
    if not (isinstance(batch, list | tuple) and len(batch) >= 2 and all(isinstance(one, Tensor) for one in batch[:2])):
        raise UserError("images: each example must be a pair of an image and its label, as tensors or numbers")
    inputs, labels = batch[0].detach().cpu(), batch[1].detach().cpu()
    if not inputs.is_floating_point():
        raise UserError(f"images have the type {inputs.dtype}: give floats as the networks take them, normalised")
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or inputs.shape[2] != inputs.shape[3]:
        shape = tuple(inputs.shape[1:])
        raise UserError(f"images have the shape {shape}: give squares of 1 or 3 channels, (channels, side, side)")
    if not inputs.isfinite().all():
        raise UserError("images hold values that are not finite")
    return inputs, labels


def _labels(labels: Tensor, num_classes: int, classes: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as splits hold them, and the names of the classes."""
    named = classes is not None and len(classes) == num_classes
    names = tuple(classes) if named and classes is not None else tuple(f"class {index}" for index in range(num_classes))
    if labels.ndim == 2:
        if labels.shape[1] != num_classes or not bool(((labels == 1) | (labels == 0) | (labels == -1)).all()):
            raise UserError(f"labels of several findings must be 1, 0 or -1 (not known), {num_classes} of each image")
        return labels.numpy().astype(np.int8), names
    if labels.ndim != 1 or (labels.is_floating_point() and not bool((labels == labels.round()).all())):
        raise UserError("labels must be whole numbers, one of each image, or 1, 0 and -1 for each finding")
    whole = labels.long().numpy()
    if whole.min() < 0 or whole.max() >= num_classes:
        raise UserError(
            f"labels reach from {whole.min()} to {whole.max()}, and the networks have {num_classes} classes"
        )
    return whole, names
