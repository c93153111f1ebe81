"""Speed of the way from packed images to the device, beside decoding files; and splits of noise to measure on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from transferscope.benchmarks.cases import Case, Setting
from transferscope.experiment.options import PictureOptions
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.images.split_files import write_split_files
from transferscope.images.verified import IMAGES, npy_header

DECODED = "JPEG files, a DataLoader with workers"
CROP_MARGIN = 32
"""Pixels that stored images are wider than what the network sees, as in the study."""


def feeding(setting: Setting) -> Iterator[Case]:
    """Images a second: decoded from files as most code does, gathered from a packed split, and copied to the device."""
    with tempfile.TemporaryDirectory() as folder:
        yield Case(DECODED, partial(_decoded_rate, setting, Path(folder) / "files"))
        split = packed_noise(setting, 256 if setting.small else 8192, Path(folder) / "packed")
        yield Case("packed, gathered", partial(_gathered_rate, setting, split), against=(DECODED,))
        yield Case("packed, on the device", partial(_fed_rate, setting, split, False), against=(DECODED,))
        yield Case("packed, cropped and normalised there", partial(_fed_rate, setting, split, True), against=(DECODED,))


def _info(setting: Setting) -> SplitInfo:
    pictures = PictureOptions(store_size=setting.side + CROP_MARGIN, crop_size=setting.side)
    names = tuple(f"class_{index}" for index in range(setting.classes))
    return SplitInfo("bench", "train", names, False, True, pictures, "bench")


def _described(setting: Setting, count: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Labels, names and sizes of the examples."""
    side = setting.side + CROP_MARGIN
    labels = np.arange(count, dtype=np.int64) % setting.classes
    return labels, [str(index) for index in range(count)], np.full((count, 2), side, dtype=np.int32)


def split_in_memory(setting: Setting, count: int) -> PackedSplit:
    """Images of noise, with labels in turn."""
    side = setting.side + CROP_MARGIN
    images = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return PackedSplit(_info(setting), images, *_described(setting, count))


def packed_noise(setting: Setting, count: int, folder: Path) -> PackedSplit:
    """The same on disk, packed; written a part at a time."""
    side = setting.side + CROP_MARGIN
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    with (folder / IMAGES).open("wb") as file:
        file.write(npy_header((count, 3, side, side)))
        for start in range(0, count, 256):
            file.write(generator.bytes(min(256, count - start) * 3 * side * side))
    write_split_files(folder, _info(setting), *_described(setting, count))
    split = PackedSplit.open(folder)
    split.gather(np.arange(len(split)))  # compared with their digests, once
    return split


def _orders(setting: Setting, split: PackedSplit) -> tuple[int, Callable[[], np.ndarray]]:
    """Batch size, and a function that gives the next batch of a random order."""
    batch = 32 if setting.small else 256
    generator = np.random.default_rng(1)
    return batch, lambda: generator.choice(len(split), batch, replace=False)


def _gathered_rate(setting: Setting, split: PackedSplit) -> float:
    batch, following = _orders(setting, split)

    def work() -> int:
        split.gather(following())
        return batch

    return setting.rate(work)


def _fed_rate(setting: Setting, split: PackedSplit, transformed: bool) -> float:
    """Through the feed of a split too large for the device, 16 batches a call."""
    import torch

    from transferscope.experiment.options import AugmentationOptions
    from transferscope.images.augment import TrainingTransform
    from transferscope.images.feed import Feed

    batch, following = _orders(setting, split)
    feed = Feed(split, setting.device, keep_resident=False)
    augmentation = AugmentationOptions(flip=True, random_resized_crop=(0.08, 1.0))
    transform = TrainingTransform(split.pictures, augmentation)
    generator = torch.Generator().manual_seed(0)
    calls = 2 if setting.small else 16

    def work() -> int:
        for stored in feed.batches(following() for _ in range(calls)):
            if transformed:
                transform(stored, generator)
        return batch * calls

    return setting.rate(work, warm_up=1)


def _decoded_rate(setting: Setting, folder: Path) -> float:
    """Files of 500 x 375 pixels, cropped at random, mirrored and normalised by torchvision, in worker processes."""
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    generator = np.random.default_rng(0)
    (folder / "a").mkdir(parents=True)
    batch = 8 if setting.small else 256
    for index in range(2 * batch):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / "a" / f"{index}.jpg", quality=90)
    chain = transforms.Compose(
        [transforms.RandomResizedCrop(setting.side), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    workers = 0 if setting.small else min(16, len(os.sched_getaffinity(0)))
    on_gpu = setting.device.type == "cuda"
    loader = DataLoader(
        ImageFolder(str(folder), chain), batch, num_workers=workers, pin_memory=on_gpu, persistent_workers=workers > 0
    )

    def work() -> int:
        return sum(len(images.to(setting.device, non_blocking=True)) for images, _ in loader)

    return setting.rate(work, warm_up=1)
