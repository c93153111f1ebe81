"""Tiny splits and runs."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from transferscope.experiment.options import ModelOptions, PictureOptions, TrainingOptions
from transferscope.experiment.run import RunSpec
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.images.split_files import write_split_files
from transferscope.training.distributed import launch, worker

SIZE = 8
PATIENCE = 300
"""Seconds that processes may take."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_split() -> Callable[..., PackedSplit]:
    """Noise with a bright pair of rows for each class that is present."""

    def make(
        num_examples: int = 40,
        *,
        part: str = "train",
        multi_label: bool = False,
        folder: Path | None = None,
        seed: int = 0,
    ) -> PackedSplit:
        generator = np.random.default_rng([seed, part == "train"])
        images = generator.integers(0, 160, (num_examples, 3, SIZE, SIZE), dtype=np.uint8)
        present = generator.integers(0, 2, (num_examples, 3)).astype(np.int8)
        classes = generator.integers(0, 3, num_examples)
        shown = present if multi_label else np.eye(3, dtype=np.int8)[classes]
        for k in range(3):
            images[shown[:, k] == 1, :, 2 * k : 2 * k + 2] = 230
        present[generator.random(present.shape) < 0.2] = -1
        labels = present if multi_label else classes.astype(np.int64)
        pictures = PictureOptions(store_size=SIZE)
        digest = f"{part} {seed} {num_examples} {multi_label}"
        info = SplitInfo("toy", part, ("ant", "bee", "cat"), multi_label, True, pictures, digest)
        ids = [f"{part}/{index}" for index in range(num_examples)]
        sizes = np.full((num_examples, 2), SIZE, dtype=np.int32)
        if folder is None:
            return PackedSplit(info, images, labels, ids, sizes)
        folder.mkdir(parents=True)
        np.save(folder / "images.npy", images)
        write_split_files(folder, info, labels, ids, sizes)
        return PackedSplit.open(folder)

    return make


@pytest.fixture(scope="session")
def make_run() -> Callable[..., RunSpec]:
    """Three epochs of a Fixup network with one block a stage; keyword arguments replace training options."""

    def make(name: str = "rit_1", **training: Any) -> RunSpec:
        values = {"epochs": 3, "batch_size": 16, "lr": 0.05, "warmup_fraction": 0.1, "clip_norm": 2.0} | training
        layout = {"blocks": (1, 1), "widths": (4, 8), "stem_kernel": 3, "stem_stride": 1}
        model = ModelOptions(name="fixup_resnet_small", options=layout)
        return RunSpec(
            task="toy",
            name=name,
            kind="rit",
            init_seed=5,
            order_seed=7,
            model=model,
            training=TrainingOptions(**values),
            fingerprint=f"plan {values}",
        )

    return make


@pytest.fixture
def train_split(make_split: Callable[..., PackedSplit]) -> PackedSplit:
    return make_split(40)


@pytest.fixture
def held_out_split(make_split: Callable[..., PackedSplit]) -> PackedSplit:
    return make_split(24, part="test")


@pytest.fixture(scope="session")
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """All files of a folder but the times, with their bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and "timings" not in path.name)
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read


@pytest.fixture
def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def forked(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the launcher, which imports torch anew in each process: two forks of this one."""

    def work(job: Path, rank: int, port: int) -> None:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **meeting})
        worker.main(job)

    def run_launcher(
        command: list[str], environment: dict[str, str], job: Path, listen: Callable[[], None], lock: object
    ) -> int:
        (job / launch.OUTPUT).touch()
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=work, args=(job, rank, free_port)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(PATIENCE)
        listen()
        return max(abs(process.exitcode or 0) for process in processes)

    monkeypatch.setattr(launch, "_run_launcher", run_launcher)
