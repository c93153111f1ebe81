"""An epoch on shuffled images against one on plain images, side by side.

    python tests/benchmarks/bench_shuffled.py [--images 1000] [--size 32] [--repeats 7]

Prints seconds of CPU of an epoch of `train_run` (optimizer steps alone), medians over repeats that take turns, and the
ratio to plain images for blocks of several sizes, all values, and a permutation for each image. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from transferscope.experiment.options import PictureOptions, ShuffleOptions, TrainingOptions
from transferscope.experiment.run import RunSpec
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.training.loop import train_run

CLASSES = 10


def make_split(number: int, size: int, shuffle: ShuffleOptions | None, part: str) -> PackedSplit:
    """Noise in memory; what it shows does not matter for the time."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (number, 3, size, size), dtype=np.uint8)
    pictures = PictureOptions(store_size=size, shuffle=shuffle)
    names = tuple(f"class {index}" for index in range(CLASSES))
    info = SplitInfo("bench", part, names, False, True, pictures, f"{part} {number}")
    ids = [f"{part}/{index}" for index in range(number)]
    return PackedSplit(info, images, np.arange(number) % CLASSES, ids, np.full((number, 2), size, dtype=np.int32))


def seconds_of_an_epoch(number: int, size: int, shuffle: ShuffleOptions | None) -> float:
    """CPU seconds of the optimizer steps of one epoch, from the first report of progress to the last."""
    train, test = make_split(number, size, shuffle, "train"), make_split(CLASSES, size, shuffle, "test")
    reports: list[tuple[int, float]] = []
    options = TrainingOptions(epochs=1, batch_size=32, lr=1e-3, clip_norm=2.0, channels_last=True)
    spec = RunSpec(task="bench", name="run", training=options, fingerprint="bench")
    with tempfile.TemporaryDirectory() as folder:
        train_run(
            spec,
            train,
            test,
            initial=None,
            folder=Path(folder) / "run",
            progress=lambda steps, note: reports.append((steps, time.process_time())),
        )
    measured = sum(steps for steps, _ in reports[1:])
    return (reports[-1][1] - reports[0][1]) / measured * -(-number // 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, ShuffleOptions | None] = {"plain": None}
    ways |= {f"blocks of {size}": ShuffleOptions(block_size=size) for size in (1, arguments.size // 4)}
    ways["all values"] = ShuffleOptions(block_size="values")
    ways["pixels, each image by itself"] = ShuffleOptions(block_size=1, per_image=True)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats):
        for name, shuffle in ways.items():
            seconds[name].append(seconds_of_an_epoch(arguments.images, arguments.size, shuffle))
        print(f"{repeat + 1} of {arguments.repeats}", flush=True)
    plain = statistics.median(seconds["plain"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:30} {median:7.3f} s an epoch, {median / plain:.3f} times plain")


if __name__ == "__main__":
    main()
