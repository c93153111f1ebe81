"""Going on equals never having stopped."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from damage import flip
from grouped_runs import folders_of, inputs_of, several
from stopped_training import KilledError, fail_at, note_steps
from transferscope.experiment.options import AugmentationOptions
from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import epoch_order
from transferscope.images.split import PackedSplit
from transferscope.training import loop, record
from transferscope.training.loop import train_run, train_runs
from transferscope.training.record import Inputs
from transferscope.training.snapshot import TrainingState, earlier, read_snapshot, restore, save_snapshot
from transferscope.training.together import Together
from transferscope.training.trainee import Alone

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def run(make_run: Make) -> RunSpec:
    """Its state is saved after every epoch."""
    augmentation = AugmentationOptions(flip=True, mixup=0.5)
    return make_run(epochs=3, batch_size=8, lr=0.1, augmentation=augmentation, snapshot_seconds=0)


@pytest.fixture(scope="module")
def undisturbed(run: RunSpec, make_split: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `run` on the two splits, trained without a stop. Tests may read and copy it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    train_run(run, make_split(40), make_split(24, part="test"), initial=None, folder=folder)
    return folder


@dataclass(frozen=True)
class Training:
    """A run alone, or two as one, and the class that computes their networks."""

    runs: list[RunSpec]
    trainee: type[Alone] | type[Together]

    def inputs(self, *splits: PackedSplit) -> list[Inputs]:
        return inputs_of(self.runs, *splits)

    def train(self, folder: Path, *splits: PackedSplit) -> None:
        train_runs(self.inputs(*splits), folders_of(self.runs, folder))

    def next_epoch(self, folder: Path, *splits: PackedSplit) -> int | None:
        """The epoch after the last one of which all unfinished runs have a snapshot; None if all are finished."""
        records = [
            record.RunFolder(*own) for own in zip(folders_of(self.runs, folder), self.inputs(*splits), strict=True)
        ]
        positions = [one.positions() for one in records if not one.is_finished()]
        return max(set.intersection(*positions), default=(0, 0))[0] + 1 if positions else None


@pytest.fixture(scope="module")
def training(request: pytest.FixtureRequest, run: RunSpec, make_run: Make) -> Training:
    """Its states are saved after every epoch; as one, the runs have different schedules."""
    if request.param == "alone":
        return Training([run], Alone)
    options = {"epochs": 3, "batch_size": 8, "augmentation": run.training.augmentation, "snapshot_seconds": 0}
    return Training(several(make_run, [{"lr": 0.1}, {"lr": 0.05}], **options), Together)


@pytest.fixture(scope="module")
def whole(training: Training, make_split: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `training` without a stop."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    training.train(folder, make_split(40), make_split(24, part="test"))
    return folder


POINTS = [
    ("take_step", 1),
    ("take_step", 5),
    ("take_step", 13),
    ("evaluate", 1),
    ("evaluate", 2),
    ("evaluate", 5),
    ("save_snapshot", 1),
    ("save_snapshot", 3),
    ("save_checkpoint", 1),
    ("save_checkpoint", 2),
    ("save_checkpoint", 4),
    ("write_series", 1),
]
"""A function, of the trainee or of the folder, and the call of it that does not come to its end."""


@pytest.mark.parametrize(("name", "call"), POINTS, ids=[f"{name}-{call}" for name, call in POINTS])
@pytest.mark.parametrize(
    ("training", "after"),
    [("alone", False), ("alone", True), ("together", False)],
    ids=["alone-before", "alone-after", "together"],
    indirect=["training"],
)
def test_resuming_equals_not_stopping(
    name: str,
    call: int,
    after: bool,
    training: Training,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    whole: Path,
    files_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it stops, a second call ends with the bytes of an undisturbed one, and repeats no epoch without need.

    Runs as one stop where the last of them saves its file, so that the others have one more.
    """
    splits, owner = (train_split, held_out_split), record if hasattr(record, name) else training.trainee
    call *= len(training.runs) if name.startswith("save") else 1
    with monkeypatch.context() as patch:
        fail_at(owner, name, call, after=after, monkeypatch=patch)
        with pytest.raises(KilledError):
            training.train(tmp_path, *splits)
    expected = training.next_epoch(tmp_path, *splits)
    steps = note_steps(training.trainee, monkeypatch)
    training.train(tmp_path, *splits)
    assert next((epoch for _, epoch, _ in steps), None) == expected
    assert files_of(tmp_path) == files_of(whole)


@pytest.mark.parametrize(
    ("name", "trainee"),
    [*product(["AdamW", "NAdam", "ASGD"], [Alone, Together]), ("Adafactor", Alone)],
)
def test_resuming_equals_not_stopping_with_other_optimizers(
    name: str,
    trainee: type[Alone] | type[Together],
    make_run: Make,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    files_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Moments, counters and factored statistics come back to the bit."""
    options = {"betas": [0.8, 0.95]} if name == "AdamW" else {}
    schedules = [{"lr": 0.01}, {"lr": 0.005}][: 1 if trainee is Alone else 2]
    common = {"epochs": 2, "batch_size": 8, "optimizer": {"name": name, **options}, "snapshot_seconds": 0}
    training, splits = Training(several(make_run, schedules, **common), trainee), (train_split, held_out_split)
    training.train(tmp_path / "whole", *splits)
    with monkeypatch.context() as patch:
        fail_at(trainee, "take_step", 7, monkeypatch=patch)
        with pytest.raises(KilledError):
            training.train(tmp_path / "broken", *splits)
    training.train(tmp_path / "broken", *splits)
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


class Clock:
    """Time that passes by a second at each look at it."""

    now = 0.0

    def perf_counter(self) -> float:
        self.now += 1
        return self.now


@pytest.mark.parametrize("call", [4, 14, 27])
@pytest.mark.parametrize("seconds", [7, 1000])
@pytest.mark.parametrize("check_every", [2, 16])
def test_resuming_between_snapshots(
    call: int,
    seconds: float,
    check_every: int,
    make_run: Make,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    files_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a snapshot now and then, or none, the bytes are those of a run that kept to the end."""
    run = make_run(epochs=6, batch_size=8, lr=0.3, keep_epochs=[2], snapshot_seconds=seconds)
    monkeypatch.setattr(loop, "CHECK_EVERY", check_every)
    monkeypatch.setattr(loop, "time", Clock())
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_run(run, train_split, held_out_split, initial=None, folder=whole)
    with monkeypatch.context() as patch:
        fail_at(Alone, "take_step", call, monkeypatch=patch)
        with pytest.raises(KilledError):
            train_run(run, train_split, held_out_split, initial=None, folder=broken)
    train_run(run, train_split, held_out_split, initial=None, folder=broken)
    assert files_of(broken) == files_of(whole)


def test_only_what_is_kept_is_written(
    make_run: Make,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a training shorter than the interval no snapshot, and of its epochs those that were the best or are kept."""
    written: list[int] = []
    original = record.save_checkpoint
    monkeypatch.setattr(
        record, "save_checkpoint", lambda one, path: written.append(one.metadata.epoch) or original(one, path)
    )
    monkeypatch.setattr(record, "save_snapshot", lambda *_: pytest.fail("a snapshot is written"))
    run = make_run(epochs=9, lr=0.3, keep_epochs=[4])
    _, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    accuracy = history["test_accuracy"].tolist()
    bests = {epoch for epoch in range(1, 10) if accuracy[epoch] > max([-1.0, *accuracy[1:epoch]])}
    assert written == sorted({0, 4, 9} | bests)
    assert len(written) < 10


@pytest.mark.parametrize("call", [2, 3, 9, 14])
@pytest.mark.parametrize("training", ["alone", "together"], indirect=True)
def test_resuming_within_an_epoch(
    call: int,
    training: Training,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    whole: Path,
    files_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a snapshot after every step no step is taken twice, and the bytes are the same."""
    monkeypatch.setattr(loop, "CHECK_EVERY", 1)
    with monkeypatch.context() as patch:
        fail_at(training.trainee, "take_step", call, monkeypatch=patch)
        with pytest.raises(KilledError):
            training.train(tmp_path, train_split, held_out_split)
    steps = note_steps(training.trainee, monkeypatch)
    training.train(tmp_path, train_split, held_out_split)
    assert len(steps) == 15 - (call - 1)
    assert files_of(tmp_path) == files_of(whole)


def test_sigkill_at_random_moments(
    run: RunSpec, train_split: PackedSplit, held_out_split: PackedSplit, files_of: Make, tmp_path: Path
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
        fail_at(Alone, "take_step", 5, monkeypatch=patch)
        with pytest.raises(KilledError):
            train_run(make_run(lr=0.01), train_split, held_out_split, initial=None, folder=tmp_path / "broken")
    for folder in ("broken", "whole"):
        train_run(make_run(lr=0.02), train_split, held_out_split, initial=None, folder=tmp_path / folder)
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


def test_snapshot_restores_everything(run: RunSpec, tmp_path: Path) -> None:
    """Weights, momentum, position, history and best come back from the file as they were."""

    def state() -> TrainingState:
        model = torch.nn.Linear(2, 2)
        return TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))

    before = state()
    before.model(torch.ones(1, 2)).sum().backward()
    before.optimizer.step()
    before.epoch, before.step, before.loss_sum, before.best_score = 3, 2, 0.1, 0.7
    before.rows.append({"epoch": 3, "test_loss": 1 / 3})
    save_snapshot(tmp_path / "snapshot.safetensors", before, "me")
    after, snapshot = state(), read_snapshot(tmp_path / "snapshot.safetensors", "me")
    assert snapshot is not None
    restore(after, snapshot)
    assert (after.epoch, after.step, after.loss_sum, after.best_score) == (3, 2, 0.1, 0.7)
    assert after.rows == before.rows
    assert torch.equal(after.model.weight, before.model.weight)
    momenta = [s.optimizer.state[s.model.weight]["momentum_buffer"] for s in (before, after)]
    assert torch.equal(*momenta)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_snapshot_keeps_the_optimizer_whatever_it_remembers(name: str, tmp_path: Path) -> None:
    """Steps after it equal those without it, in the memory layout of the weights."""

    def state() -> TrainingState:
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        make = {"sgd": partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam}[name]
        return TrainingState(model, make(model.parameters(), lr=0.1))

    def step(one: TrainingState) -> None:
        one.optimizer.zero_grad()
        one.model(torch.linspace(0, 1, 75).reshape(1, 3, 5, 5)).square().sum().backward()
        one.optimizer.step()

    going_on, resumed = state(), state()
    step(going_on)
    save_snapshot(tmp_path / "snapshot.safetensors", going_on, "me")
    snapshot = read_snapshot(tmp_path / "snapshot.safetensors", "me")
    assert snapshot is not None
    restore(resumed, snapshot)
    for one in (going_on, resumed):
        step(one)
    assert torch.equal(going_on.model.weight, resumed.model.weight)
    for entries in resumed.optimizer.state.values():
        assert all(
            v.stride() == resumed.model.weight.stride() for v in entries.values() if torch.is_tensor(v) and v.ndim == 4
        )


def test_a_snapshot_goes_on_in_another_format_and_on_another_device(tmp_path: Path) -> None:
    """One of a GPU in bfloat16 has no scale of the loss and names fused kernels, which the run that goes on may lack."""

    def state_of(fused: bool, scaler: torch.amp.GradScaler | None) -> TrainingState:
        model = torch.nn.Linear(2, 2)
        return TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.5, fused=fused), scaler)

    save_snapshot(tmp_path / "snapshot.safetensors", state_of(True, None), "me")
    snapshot = read_snapshot(tmp_path / "snapshot.safetensors", "me")
    assert snapshot is not None
    after = state_of(False, torch.amp.GradScaler("cpu", init_scale=8.0))
    restore(after, snapshot)
    assert torch.equal(after.model.weight, snapshot.tensors["model/weight"])
    assert after.optimizer.param_groups[0]["fused"] is False
    assert after.scaler is not None
    assert after.scaler.get_scale() == 8.0


def test_snapshots_that_are_not_mine_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No file, another identity, or rubbish: nothing is restored, and the last two are said."""
    model = torch.nn.Linear(1, 1)
    state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    path = tmp_path / "snapshot.safetensors"
    assert read_snapshot(path, "me") is None
    save_snapshot(path, state, "you")
    assert read_snapshot(path, "me") is None
    assert "another plan" in caplog.text
    path.write_bytes(b"rubbish")
    assert read_snapshot(path, "you") is None
    assert "is damaged" in caplog.text


def interrupted(run: RunSpec, splits: list[PackedSplit], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training that ended in its third epoch; its last snapshot."""
    with monkeypatch.context() as patch:
        fail_at(Alone, "take_step", 13, monkeypatch=patch)
        with pytest.raises(KilledError):
            train_run(run, *splits, initial=None, folder=folder)
    return folder / record.SNAPSHOT


@pytest.mark.parametrize("both", [False, True], ids=["last", "both"])
def test_a_damaged_snapshot_is_not_used(
    both: bool,
    run: RunSpec,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    undisturbed: Path,
    files_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One bit of a weight: the snapshot before it is used, without one the training begins again; the bytes are equal."""
    splits = [train_split, held_out_split]
    snapshot = interrupted(run, splits, tmp_path / "broken", monkeypatch)
    for path in (snapshot, earlier(snapshot))[: 1 + both]:
        flip(path, path.stat().st_size - 9)
    epochs: list[int] = []
    monkeypatch.setattr(loop, "epoch_order", lambda seed, epoch, n: epochs.append(epoch) or epoch_order(seed, epoch, n))
    train_run(run, *splits, initial=None, folder=tmp_path / "broken")
    assert epochs == ([0, 1, 2, 3] if both else [2, 3])
    assert "is damaged (its content is not what was written): it is not used" in caplog.text
    assert files_of(tmp_path / "broken") == files_of(undisturbed)


def test_a_checkpoint_that_is_damaged_while_a_run_waits_is_made_again(
    run: RunSpec,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    undisturbed: Path,
    files_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No snapshot holds the untrained weights, so the training begins again."""
    splits = [train_split, held_out_split]
    interrupted(run, splits, tmp_path / "broken", monkeypatch)
    flip(tmp_path / "broken" / "epoch_0000.safetensors", -5)
    train_run(run, *splits, initial=None, folder=tmp_path / "broken")
    assert "cannot be used: epoch_0000.safetensors is damaged or missing" in caplog.text
    assert files_of(tmp_path / "broken") == files_of(undisturbed)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "one bit": lambda path: flip(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "another epoch": lambda path: path.write_bytes(path.with_name("epoch_0000.safetensors").read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["epoch_0003.safetensors", "history.csv", "timings.csv", ".timings.json", "series.json"]
)
def test_a_finished_run_that_is_damaged_is_repaired(
    name: str,
    damage: str,
    run: RunSpec,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    undisturbed: Path,
    files_of: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is recognised as damaged; tables are written again, weights are trained again to the same bytes."""
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    before = files_of(undisturbed)
    DAMAGES[damage](tmp_path / name)
    _, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    assert files_of(tmp_path) == before
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert name in caplog.text or damage == "deleted"
    assert caplog.text.count("the run is trained again") <= 1
    caplog.clear()
    train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    assert not caplog.text


def test_times_come_back_with_what_they_were(
    run: RunSpec, train_split: PackedSplit, held_out_split: PackedSplit, tmp_path: Path
) -> None:
    """From the hidden file beside them; the run is not trained again for its times."""
    train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    before = (tmp_path / "timings.csv").read_bytes()
    (tmp_path / "timings.csv").write_text("epoch\n")
    train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    assert (tmp_path / "timings.csv").read_bytes() == before
