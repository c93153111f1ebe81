"""Nodes that measure networks run in a process for each of several GPUs, as they do in this one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from sent_to_processes import be_killed, divide, look_again, look_together, make_a_mistake
from transferscope.datasets.text import TextDataset
from transferscope.framework.runners import GpuRunner
from transferscope.framework.runners.failures import NodesFailed
from transferscope.system import progress


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that believes to have two, and its processes to have none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is drawn in this process."""
    drawn: list[tuple[Any, ...]] = []
    original = progress.progress_bar

    @contextmanager
    def bar(description: str, total: int) -> Iterator[Callable[..., None]]:
        drawn.append(("begins", description, total))
        with original(description, total) as advance:
            yield lambda *steps, **fields: (drawn.append((description, *steps)), advance(*steps, **fields))
        drawn.append(("ends", description))

    monkeypatch.setattr(progress, "progress_bar", bar)
    return drawn


class Errors:
    """Hooks that keep the errors of nodes."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        self.seen.append((node.name, str(error)))


def node(function: Callable[..., Any], name: str, inputs: list[str], *, measures: bool = True) -> Node:
    return Node(function, inputs, f"{name}_out", name=name, tags=["gpus-1"] if measures else [])


def run(nodes: list[Node], folder: Path, hooks: object = None) -> DataCatalog:
    entries = {f"{one.name}_out": TextDataset(filepath=str(folder / f"{one.name}.txt")) for one in nodes}
    given = {name: MemoryDataset(name) for name in "ab"} | {"folder": MemoryDataset(str(folder))}
    catalog, manager = DataCatalog(entries | given), _create_hook_manager()
    if hooks is not None:
        manager.register(hooks)
    GpuRunner(max_workers=2).run(Pipeline(nodes), catalog, manager)
    return catalog


@pytest.mark.usefixtures("two_gpus")
def test_a_process_for_each_gpu_and_errors_in_one_line(
    tmp_path: Path, bars: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    """Two nodes at once in processes that see one GPU each, and the next in the same; the log and the bars are here.

    Errors are those of nodes in this process, and independent nodes go on: a user's mistake keeps its words, another
    has its traceback in the log, and a process that was killed is said to be. Nothing is left.
    """
    caplog.set_level(logging.INFO, "transferscope")
    nodes = [
        *(node(look_together, name, ["folder", name]) for name in "ab"),
        node(look_again, "again", ["a_out"]),
        node(look_again, "here", ["a_out"], measures=False),
        node(make_a_mistake, "mistaken", ["b_out"]),
        node(divide, "broken", ["again_out"]),
        node(be_killed, "killed", ["again_out"]),
        node(look_again, "after", ["mistaken_out"]),
    ]
    errors = Errors()
    with pytest.raises(NodesFailed, match="3 nodes failed: ") as caught:
        run(nodes, tmp_path, errors)
    failed = {one.name: str(error) for one, error in caught.value.progress.failed.items()}
    assert failed == {
        "mistaken": "images: 3 files cannot be read",
        "broken": "ZeroDivisionError: division by zero",
        "killed": "its process was killed (SIGKILL), for want of memory say",
    }
    assert [one.name for one in caught.value.progress.skipped] == ["after"]
    assert errors.seen == [("killed", failed["killed"])]

    made = {path.stem: path.read_text().split() for path in tmp_path.glob("*.txt")}
    assert {made["a"][1], made["b"][1]} == {"3", "5"}
    assert made["a"][2] == made["b"][2] == "cpu"  # where torch, which has none in truth, finds its GPUs itself
    workers = {int(made["a"][0]), int(made["b"][0])}
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert int(made["again"][1]) in workers
    assert made["here"][1] == str(os.getpid())
    assert not any(psutil.pid_exists(worker) for worker in workers)

    assert {"a looks", "b looks"} <= set(caplog.messages)
    assert "in divide" in caplog.text
    assert "in make_a_mistake" not in caplog.text
    for name in "ab":
        own = [event for event in bars if name in event]
        assert own == [("begins", name, 3), (name, 2, "two thirds"), ("ends", name)]


@pytest.mark.usefixtures("two_gpus")
def test_one_node_alone_stays_here(tmp_path: Path) -> None:
    """It would wait for no other; another start of Python would be in vain."""
    (tmp_path / "other.begun").touch()
    worker, *_ = run([node(look_together, "a", ["folder", "a"])], tmp_path).load("a_out").split()
    assert int(worker) == os.getpid()
