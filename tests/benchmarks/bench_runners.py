"""Runners side by side: overhead per step, several trainings, and the tiny study of the tests.

    python tests/benchmarks/bench_runners.py [--only empty|trainings|study] [--steps 1000] [--repeats 3]

Prints seconds of the wall clock, medians over interleaved repeats, and ratios to Kedro's sequential runner, which has all
cores for the operations of one node. Kedro's thread runner has as many workers as ours, and its operations as many
threads a node as torch takes by itself. Ray, on one machine, is in where it is installed; starting it is not counted for
the empty nodes. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import AbstractRunner, SequentialRunner, ThreadRunner

from transferscope.experiment.options import ModelOptions, PictureOptions, TrainingOptions
from transferscope.experiment.run import RunSpec
from transferscope.framework.runners import GpuRunner, RayRunner
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.training.distributed.launch import train

SIZE = 32
CORES = os.cpu_count() or 1


class QuickRay(RayRunner):
    """Joins the Ray that the benchmark has started, and leaves it running."""

    def _workers(self, *arguments: Any) -> Any:
        import ray

        ray.shutdown = lambda: None
        ray.init = lambda **_: None
        return super()._workers(*arguments)


def runners() -> dict[str, Callable[[], AbstractRunner]]:
    """By name; a runner is used once."""
    by_name: dict[str, Callable[[], AbstractRunner]] = {
        "sequential": SequentialRunner,
        "ThreadRunner": lambda: ThreadRunner(max_workers=CORES),
        "GpuRunner": lambda: GpuRunner(max_workers=CORES),
    }
    if importlib.util.find_spec("ray"):
        import ray

        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        ray.init(num_cpus=CORES, include_dashboard=False, logging_level="error")
        by_name["Ray"] = QuickRay
    return by_name


def nothing(_: int) -> None:
    """An empty node."""


def empty_steps(count: int) -> tuple[Pipeline, DataCatalog]:
    nodes = [Node(nothing, inputs="params:x", outputs=None, name=f"step_{index}") for index in range(count)]
    return Pipeline(nodes), DataCatalog({"params:x": MemoryDataset(1)})


def noise(part: str, num_examples: int) -> PackedSplit:
    """Random images of ten classes."""
    generator = np.random.default_rng(len(part))
    images = generator.integers(0, 255, (num_examples, 3, SIZE, SIZE), dtype=np.uint8)
    labels = generator.integers(0, 10, num_examples).astype(np.int64)
    info = SplitInfo("noise", part, tuple("abcdefghij"), False, True, PictureOptions(store_size=SIZE), part)
    ids = [str(index) for index in range(num_examples)]
    return PackedSplit(info, images, labels, ids, np.full((num_examples, 2), SIZE, dtype=np.int32))


def trainings(folder: Path) -> tuple[Pipeline, DataCatalog]:
    """Four runs of the default plan's network, an epoch of 640 images each."""
    splits = noise("train", 640), noise("test", 320)
    options = TrainingOptions(epochs=1, channels_last=True)

    def node(name: str) -> Node:
        run = RunSpec(task="noise", name=name, model=ModelOptions(), training=options, fingerprint=name)
        place = tempfile.mkdtemp(dir=folder)

        def work(_: int) -> None:
            train(run, *splits, initial=None, folder=place)

        return Node(work, inputs="params:x", outputs=None, name=name, tags=["gpus-1"])

    return Pipeline([node(f"run_{index}") for index in range(4)]), DataCatalog({"params:x": MemoryDataset(1)})


def study(folder: Path, runner: AbstractRunner) -> float:
    """The whole tiny study of the tests, in a project of its own."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tiny_project import make_project

    project = make_project(Path(tempfile.mkdtemp(dir=folder)))
    begin = time.perf_counter()
    project.run(runner=runner)
    return time.perf_counter() - begin


def seconds(runner: AbstractRunner, made: tuple[Pipeline, DataCatalog]) -> float:
    begin = time.perf_counter()
    runner.run(*made)
    return time.perf_counter() - begin


def side_by_side(title: str, ways: dict[str, Callable[[], float]], repeats: int, per: int = 1) -> None:
    """Medians over interleaved repeats."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, way in ways.items():
            torch.set_num_threads(CORES)
            taken[name].append(way() / per)
        print(f"{title}: {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
    first = statistics.median(next(iter(taken.values())))
    print(title)
    for name, values in taken.items():
        median = statistics.median(values)
        print(f"  {name:<12} {median:.5f} s ({min(values):.5f} to {max(values):.5f}), ratio {first / median:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["empty", "trainings", "study"])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    chosen = runners()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.only in (None, "empty"):
            ways = {
                key: lambda make=make: seconds(make(), empty_steps(arguments.steps)) for key, make in chosen.items()
            }
            side_by_side(f"{arguments.steps} empty nodes, each", ways, arguments.repeats, arguments.steps)
        if arguments.only in (None, "trainings"):
            ways = {key: lambda make=make: seconds(make(), trainings(folder)) for key, make in chosen.items()}
            side_by_side("four trainings", ways, arguments.repeats)
        if arguments.only == "study":
            ways = {key: lambda make=make: study(folder, make()) for key, make in chosen.items()}
            side_by_side("the tiny study", ways, arguments.repeats)


if __name__ == "__main__":
    main()
