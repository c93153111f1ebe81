"""All ways between two checkpoints against the bare forward passes that they need.

    python tests/benchmarks/bench_connection.py [--model fixup_resnet_small] [--side 32] [--images 1000] [--threads 1]
    python tests/benchmarks/bench_connection.py --model resnet18 --side 64 --threads 2

Two networks with random weights of their own, images and labels of noise, 1,000 of each part. The bare passes are those that
the ways made, as images through the whole network: each costs what it costs in an evaluation in batches of 128, and an image
through a network that is trained (the curves) costs three. CPU seconds. The rest is matching, statistics of channels, resamples,
digests of weights and copies.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from transferscope.experiment.options import ConnectionOptions, PictureOptions, Way
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.measure.bench import Bench, batches, workspace
from transferscope.measure.connection import connect
from transferscope.models import build_model
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata

CLASSES = 10


def split(part: str, count: int, side: int) -> PackedSplit:
    """Noise."""
    generator = np.random.default_rng([count, part == "train"])
    images = generator.integers(0, 255, (count, 3, side, side), dtype=np.uint8)
    names = tuple(f"class {number}" for number in range(CLASSES))
    info = SplitInfo("noise", part, names, False, True, PictureOptions(store_size=side), f"{part}{count}{side}")
    sizes = np.full((count, 2), side, dtype=np.int32)
    ids = [f"{part}/{number}" for number in range(count)]
    return PackedSplit(info, images, generator.integers(0, CLASSES, count), ids, sizes)


def checkpoint(name: str, seed: int) -> Checkpoint:
    """Random weights of which none is zero."""
    torch.manual_seed(seed)
    state = build_model(name, CLASSES, seed=seed).state_dict()
    state = {
        key: tensor + 0.05 * tensor.abs().mean() * torch.randn_like(tensor) if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }
    return Checkpoint(state, CheckpointMetadata(architecture=name, num_classes=CLASSES))


@contextmanager
def counted(kind: type[nn.Module]) -> Iterator[dict[str, int]]:
    """Images that go through whole networks of a kind, by whether gradients are kept."""
    seen = {"evaluated": 0, "trained": 0}

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        if type(module) is kind:
            seen["trained" if torch.is_grad_enabled() else "evaluated"] += len(inputs[0])

    handle = register_module_forward_hook(count)
    try:
        yield seen
    finally:
        handle.remove()


def seconds_an_image(model: nn.Module, images: PackedSplit) -> float:
    """CPU seconds of the forward pass."""
    given = batches(images)
    assert isinstance(given, list)
    with torch.inference_mode():
        model(given[0][0])
        start = time.process_time()
        for inputs, _ in given:
            model(inputs)
    return (time.process_time() - start) / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fixup_resnet_small")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench({part: split(part, arguments.images, arguments.side) for part in ("train", "test")}, resamples=300)
    a, b = (checkpoint(arguments.model, seed) for seed in (1, 2))
    model = workspace(a)
    each = seconds_an_image(model, bench.split("test"))
    options = ConnectionOptions()
    print(f"{arguments.model}, {arguments.side} px: {1e3 * each:.2f} ms an image")
    total, wall = 0.0, time.perf_counter()
    bare = 0.0
    ways: tuple[Way, ...] = options.ways
    for way in ways:
        start = time.process_time()
        with counted(type(model)) as seen:
            connect(bench, a, b, (way,), options=options)
        took = time.process_time() - start
        needed = each * (seen["evaluated"] + 3 * seen["trained"])
        total, bare = total + took, bare + needed
        print(
            f"{way}: {took:.1f} s, bare passes {needed:.1f} s ({seen['evaluated']:,} and {seen['trained']:,} trained)"
        )
    print(f"all ways: {total:.1f} CPU s, {time.perf_counter() - wall:.1f} s; bare passes {bare:.1f} s")
    print(f"{total / bare:.2f} times the bare passes")


if __name__ == "__main__":
    main()
