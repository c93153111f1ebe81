"""Going on equals never having stopped."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transferscope.experiment.options import AugmentationOptions
from transferscope.images.split import PackedSplit
from transferscope.training import loop, record
from transferscope.training.loop import train_run
from transferscope.training.run import TrainingRun
from transferscope.training.snapshot import TrainingState, load_snapshot, save_snapshot

Make = Callable[..., Any]


class KilledError(Exception):
    """Stands for a process that ends here."""


def fail_at(owner: Any, name: str, call: int, *, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the `call`-th call (from 1) of a function raise before, or after, it does its work."""
    original = getattr(owner, name)
    count = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call and not after:
            raise KilledError
        result = original(*args, **kwargs)
        if count == call:
            raise KilledError
        return result

    monkeypatch.setattr(owner, name, wrapped)


@pytest.fixture
def run(make_run: Make) -> TrainingRun:
    return make_run(epochs=3, batch_size=8, lr=0.1, augmentation=AugmentationOptions(flip=True, mixup=0.5))


POINTS = [
    (loop._Training, "_step", 1),
    (loop._Training, "_step", 5),
    (loop._Training, "_step", 13),
    (loop, "evaluate", 1),
    (loop, "evaluate", 2),
    (loop, "evaluate", 5),
    (record, "save_snapshot", 1),
    (record, "save_snapshot", 3),
    (record, "save_checkpoint", 1),
    (record, "save_checkpoint", 2),
    (record, "save_checkpoint", 4),
    (record, "write_series", 1),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name", "call"), POINTS, ids=[f"{name}-{call}" for _, name, call in POINTS])
def test_resuming_equals_not_stopping(
    owner: Any,
    name: str,
    call: int,
    after: bool,
    run: TrainingRun,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    files_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it stops, a second call ends with the bytes of an undisturbed run."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_run(run, train_split, held_out_split, initial=None, folder=whole)
    with monkeypatch.context() as patch:
        fail_at(owner, name, call, after=after, monkeypatch=patch)
        with pytest.raises(KilledError):
            train_run(run, train_split, held_out_split, initial=None, folder=broken)
    train_run(run, train_split, held_out_split, initial=None, folder=broken)
    assert files_of(broken) == files_of(whole)


@pytest.mark.parametrize("call", [2, 3, 9, 14])
def test_resuming_within_an_epoch(
    call: int,
    run: TrainingRun,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    files_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a snapshot after every step no step is taken twice, and the bytes are the same."""
    monkeypatch.setattr(loop, "CHECK_EVERY", 1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_run(run, train_split, held_out_split, initial=None, folder=whole)
    with monkeypatch.context() as patch:
        fail_at(loop._Training, "_step", call, after=False, monkeypatch=patch)
        with pytest.raises(KilledError):
            train_run(run, train_split, held_out_split, initial=None, folder=broken, snapshot_seconds=0)
    steps: list[int] = []
    original = loop._Training._step
    monkeypatch.setattr(loop._Training, "_step", lambda *args: steps.append(1) or original(*args))
    train_run(run, train_split, held_out_split, initial=None, folder=broken, snapshot_seconds=0)
    assert len(steps) == 15 - (call - 1)
    assert files_of(broken) == files_of(whole)


def test_sigkill_at_random_moments(
    run: TrainingRun, train_split: PackedSplit, held_out_split: PackedSplit, files_of: Make, tmp_path: Path
) -> None:
    """Processes that train are killed one after the other, until one comes to the end with the right bytes."""

    def train(folder: Path) -> None:
        torch.set_num_threads(1)
        train_run(run, train_split, held_out_split, initial=None, folder=folder)

    started = time.perf_counter()
    train(tmp_path / "whole")
    duration = time.perf_counter() - started
    context = multiprocessing.get_context("fork")
    generator = random.Random(0)
    kills = 0
    for attempt in range(30):
        process = context.Process(target=train, args=(tmp_path / "broken",))
        process.start()
        assert process.pid is not None
        process.join(generator.uniform(0, duration) if attempt < 12 else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        if process.exitcode == 0:
            break
    assert kills > 0
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


def test_a_snapshot_of_another_plan_is_not_used(
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    make_run: Make,
    files_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A changed plan trains from the beginning, though a killed run of the old plan lies there."""
    with monkeypatch.context() as patch:
        fail_at(loop._Training, "_step", 5, after=False, monkeypatch=patch)
        with pytest.raises(KilledError):
            train_run(make_run(lr=0.01), train_split, held_out_split, initial=None, folder=tmp_path / "broken")
    for folder in ("broken", "whole"):
        train_run(make_run(lr=0.02), train_split, held_out_split, initial=None, folder=tmp_path / folder)
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


def test_snapshot_restores_everything(run: TrainingRun, tmp_path: Path) -> None:
    """Weights, momentum, position, history and best come back from the file as they were."""

    def state() -> TrainingState:
        model = torch.nn.Linear(2, 2)
        return TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))

    before = state()
    before.model(torch.ones(1, 2)).sum().backward()
    before.optimizer.step()
    before.epoch, before.step, before.loss_sum, before.best_score = 3, 2, 0.1, 0.7
    before.rows.append({"epoch": 3, "test_loss": 1 / 3})
    save_snapshot(tmp_path / "snapshot.pt", before, "me")
    after = state()
    assert load_snapshot(tmp_path / "snapshot.pt", after, "me")
    assert (after.epoch, after.step, after.loss_sum, after.best_score) == (3, 2, 0.1, 0.7)
    assert after.rows == before.rows
    assert torch.equal(after.model.weight, before.model.weight)
    momenta = [s.optimizer.state[s.model.weight]["momentum_buffer"] for s in (before, after)]
    assert torch.equal(*momenta)


def test_snapshots_that_are_not_mine_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No file, another identity, or rubbish: nothing is restored, and the last two are said."""
    model = torch.nn.Linear(1, 1)
    state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    path = tmp_path / "snapshot.pt"
    assert not load_snapshot(path, state, "me")
    save_snapshot(path, state, "you")
    assert not load_snapshot(path, state, "me")
    assert "another plan" in caplog.text
    path.write_bytes(b"rubbish")
    assert not load_snapshot(path, state, "you")
    assert "cannot be read" in caplog.text
