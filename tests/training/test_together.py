"""Runs that are trained as one end as each does alone, up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from grouped_runs import folders_of, inputs_of, several
from stopped_training import KilledError, fail_at, note_steps
from transferscope.experiment.options import AugmentationOptions
from transferscope.experiment.run import RunSpec
from transferscope.images.feed import Feed
from transferscope.images.split import PackedSplit
from transferscope.models.series import CheckpointSeries
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import FolderLock
from transferscope.training import record
from transferscope.training import stack as stack_module
from transferscope.training.device import OneProcess
from transferscope.training.distributed import launch
from transferscope.training.loop import train_run, train_runs
from transferscope.training.optim import make_optimizer
from transferscope.training.record import Inputs
from transferscope.training.stack import Stack
from transferscope.training.step import Setup, Share, take_step
from transferscope.training.together import Together, take_step_together
from transferscope.training.trainee import Alone, untrained_model

Make = Callable[..., Any]


def stopped(
    inputs: Sequence[Inputs], folders: Sequence[Path], monkeypatch: pytest.MonkeyPatch, call: int
) -> list[tuple[int, int, int]]:
    """Train as one up to the `call`-th optimizer step and fail there; `note_steps` of what is trained after that."""
    with monkeypatch.context() as patch:
        fail_at(Together, "take_step", call, monkeypatch=patch)
        with pytest.raises(KilledError):
            train_runs(inputs, folders)
    return note_steps(Together, monkeypatch)


def same_runs(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    """Both folders hold the same epochs with the same tensors, metrics and metadata, up to rounding."""
    a, b = (CheckpointSeries.open(folder) for folder in (one, other))
    assert (a.epochs, a.best, a.final, a.status) == (b.epochs, b.best, b.final, b.status)
    for epoch in a.epochs:
        first, second = a.load(epoch), b.load(epoch)
        assert first.metadata.seeds == second.metadata.seeds
        assert first.state_dict.keys() == second.state_dict.keys()
        for name, tensor in first.state_dict.items():
            torch.testing.assert_close(tensor, second.state_dict[name], rtol=tolerance, atol=tolerance, msg=name)
    tables = [pd.read_csv(folder / "history.csv") for folder in (one, other)]
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-3, atol=1e-4)


CASES: dict[str, dict[str, Any]] = {
    "fixup": {"augmentation": AugmentationOptions(flip=True)},
    "mixup": {"augmentation": AugmentationOptions(flip=True, random_resized_crop=(0.5, 1.0), mixup=0.5)},
    "frozen": {"frozen": ("layer1",), "label_smoothing": 0.1, "clip_norm": None},
    "adamw": {"optimizer": {"name": "AdamW", "betas": [0.8, 0.95]}, "lr": 0.003},
}


@pytest.mark.parametrize("case", CASES)
def test_as_one_equals_one_by_one(
    case: str, make_run: Make, train_split: PackedSplit, held_out_split: PackedSplit, tmp_path: Path
) -> None:
    """Weights of all kept epochs, metrics and the best epoch are those of each run alone, also at other schedules."""
    options = {"epochs": 2, "batch_size": 12, "keep_epochs": (1,)} | CASES[case]
    first = options.pop("lr", 0.05)
    schedules = [{"lr": first}, {"lr": first}, {"lr": first / 2, "milestones": (1,)}]
    runs = several(make_run, schedules, **options)
    for run in runs:
        train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "alone" / run.name)
    made = train_runs(inputs_of(runs, train_split, held_out_split), folders_of(runs, tmp_path / "one"))
    for run, (series, history) in zip(runs, made, strict=True):
        assert series.name == run.full_name
        assert list(history["run"].unique()) == [run.name]
        same_runs(tmp_path / "one" / run.name, tmp_path / "alone" / run.name)


def stacked(
    runs: Sequence[RunSpec], split: PackedSplit, change: Callable[[nn.Module], nn.Module] = lambda model: model
) -> tuple[Stack, list[Setup]]:
    """A stack of new models of the runs, and what their optimizer steps need."""
    models = [change(untrained_model(inputs)) for inputs in inputs_of(runs, split, split)]
    stack = Stack(models, [run.training for run in runs])
    return stack, [setup_of(run, split, model) for run, model in zip(runs, models, strict=True)]


def setup_of(run: RunSpec, split: PackedSplit, model: nn.Module) -> Setup:
    return Setup(run, split, 3, torch.device("cpu"), OneProcess(), model, model, False)


def joined(setups: Sequence[Setup], step: int, batches: Sequence[np.ndarray]) -> tuple[Share, Tensor]:
    share = Share.joined([setup.share(1, step, batch) for setup, batch in zip(setups, batches, strict=True)])
    (stored,) = Feed(setups[0].split, torch.device("cpu")).batches([share.read])
    return share, stored


def steps_alone(run: RunSpec, split: PackedSplit, model: nn.Module, batches: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """The state of a model after a step on each batch, by the usual optimizer step."""
    setup, optimizer = setup_of(run, split, model), make_optimizer(model, run.training)
    model.train()
    for step, batch in enumerate(batches):
        share = setup.share(1, step, batch)
        (stored,) = Feed(split, torch.device("cpu")).batches([share.read])
        take_step(setup, optimizer, 1, step, share, stored)
    return model.state_dict()


def test_steps_in_float64_agree_to_its_rounding(make_run: Make, make_split: Make) -> None:
    """So the difference in float32 is rounding: of several findings an image, with clipping, mixup and unequal rates."""
    split = make_split(40, multi_label=True)
    augmentation = AugmentationOptions(flip=True, mixup=0.4)
    runs = several(
        make_run, [{"lr": 0.1}, {"lr": 0.02}, {"lr": 0.02}], batch_size=8, clip_norm=0.05, augmentation=augmentation
    )
    stack, setups = stacked(runs, split, nn.Module.double)
    batches = np.random.default_rng(0).integers(0, 40, (4, len(runs), 8))
    for step, each in enumerate(batches):
        losses = take_step_together(stack, setups, 1, step, *joined(setups, step, each))
    assert losses.shape == (3, 2)
    for index, (run, inputs) in enumerate(zip(runs, inputs_of(runs, split, split), strict=True)):
        alone = steps_alone(run, split, untrained_model(inputs).double(), batches[:, index])
        for name, tensor in stack.models[index].state_dict().items():
            torch.testing.assert_close(tensor, alone[name], rtol=1e-9, atol=1e-11)


def test_batchnorm_keeps_the_statistics_of_each_model(make_run: Make, make_split: Make) -> None:
    """Running means, variances and counts are those of the model's own images, and training goes by its own batch."""
    split, runs = make_split(40), several(make_run, [{}, {}], batch_size=8)

    def network(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        layers = [
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ]
        return nn.Sequential(*layers).double()

    models = [network(index) for index in range(2)]
    stack = Stack(models, [run.training for run in runs])
    setups = [setup_of(run, split, model) for run, model in zip(runs, models, strict=True)]
    batches = np.random.default_rng(1).integers(0, 40, (3, len(runs), 8))
    for step, each in enumerate(batches):
        take_step_together(stack, setups, 1, step, *joined(setups, step, each))
    for index, run in enumerate(runs):
        alone = steps_alone(run, split, network(index), batches[:, index])
        for name, tensor in models[index].state_dict().items():
            torch.testing.assert_close(tensor, alone[name], rtol=1e-9, atol=1e-11)
        assert int(alone["1.num_batches_tracked"]) == 3


def test_bfloat16_is_as_near_as_bfloat16_can_be(make_run: Make, make_split: Make) -> None:
    """Half precision under vmap computes with the weights of the present step, not with copies of earlier ones."""
    split = make_split(40)
    runs = several(make_run, [{}, {}], batch_size=8, precision="bfloat16")
    stack, setups = stacked(runs, split)
    before = [row.detach().clone() for row in stack.rows]
    batches = np.random.default_rng(2).integers(0, 40, (6, len(runs), 8))
    for step, each in enumerate(batches):
        take_step_together(stack, setups, 1, step, *joined(setups, step, each))
    for index, (run, inputs) in enumerate(zip(runs, inputs_of(runs, split, split), strict=True)):
        model = untrained_model(inputs)
        alone = steps_alone(run, split, model, batches[:, index])
        moved = torch.cat(
            [(row.detach()[index] - old[index]).flatten() for row, old in zip(stack.rows, before, strict=True)]
        )
        apart = [tensor - alone[name] for name, tensor in stack.models[index].state_dict().items()]
        assert float(torch.cat([one.flatten() for one in apart]).norm()) < 0.05 * float(moved.norm())


class Calls(TorchDispatchMode):
    """Counts the operations that are carried out, each of which is a kernel or more on a GPU; views are none."""

    VIEWS = ("view", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "detach", "split",
             "as_strided", "_unsafe_view", "alias", "unbind", "split_with_sizes", "_reshape_alias")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func.overloadpacket.__name__ not in self.VIEWS
        return func(*args, **(kwargs or {}))


def test_an_optimizer_step_takes_as_many_kernels_for_twelve_runs_as_for_three(make_run: Make, make_split: Make) -> None:
    """All that grows with the number of runs is the drawing on the CPU, and 12 runs take under a fifth of 12 alone."""
    split, counted = make_split(40), {}
    for number in (3, 12):
        runs = several(make_run, [{}] * number, batch_size=8)
        stack, setups = stacked(runs, split)
        share, stored = joined(setups, 0, np.arange(8 * number).reshape(number, 8) % 40)
        take_step_together(stack, setups, 1, 0, share, stored)
        with Calls() as calls:
            take_step_together(stack, setups, 1, 1, share, stored)
        counted[number] = calls.number
    assert counted[3] == counted[12]

    setup = setup_of(runs[0], split, untrained_model(inputs_of(runs, split, split)[0]))
    optimizer = make_optimizer(setup.model, runs[0].training)
    alone = setup.share(1, 0, np.arange(8))
    take_step(setup, optimizer, 1, 0, alone, stored[:8])
    with Calls() as calls:
        take_step(setup, optimizer, 1, 1, alone, stored[:8])
    assert counted[12] < 12 * calls.number / 5


@pytest.fixture(scope="module")
def saved_runs(make_run: Make) -> list[RunSpec]:
    """Their states are saved after every epoch and look, and one of them has another schedule."""
    options = {"epochs": 3, "batch_size": 8, "augmentation": AugmentationOptions(flip=True, mixup=0.5)}
    return several(make_run, [{"lr": 0.1}, {"lr": 0.05}], snapshot_seconds=0, **options)


@pytest.fixture(scope="module")
def undisturbed(saved_runs: list[RunSpec], make_split: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    train_runs(inputs_of(saved_runs, make_split(40), make_split(24, part="test")), folders_of(saved_runs, folder))
    return folder


def test_a_training_that_was_stopped_alone_goes_on_among_others(
    saved_runs: list[RunSpec],
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Snapshots are those of a run alone, the optimizer's state included, so the option may change in between."""
    for run in saved_runs:
        with monkeypatch.context() as patch:
            fail_at(Alone, "take_step", 11, monkeypatch=patch)  # the first of the third epoch
            with pytest.raises(KilledError):
                train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / run.name)
    taken = note_steps(Together, monkeypatch)
    train_runs(inputs_of(saved_runs, train_split, held_out_split), folders_of(saved_runs, tmp_path))
    assert {epoch for _, epoch, _ in taken} == {3}
    for run in saved_runs:
        same_runs(tmp_path / run.name, undisturbed / run.name)


def test_a_run_that_is_added_costs_the_others_nothing(
    saved_runs: list[RunSpec],
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A killed group to which a replica was added: two go on from epoch 3 as one, and the third begins alone."""
    added = saved_runs[0].model_copy(update={"name": "added"})
    inputs = inputs_of(saved_runs, train_split, held_out_split)
    taken = stopped(inputs, folders_of(saved_runs, tmp_path), monkeypatch, 11)
    runs = [*saved_runs, added]
    train_runs(inputs_of(runs, train_split, held_out_split), folders_of(runs, tmp_path))
    assert list(dict.fromkeys(each[:2] for each in taken)) == [(2, 3), (1, 1), (1, 2), (1, 3)]
    for run in saved_runs:
        same_runs(tmp_path / run.name, undisturbed / run.name)


def test_a_run_that_diverges_costs_the_others_nothing(
    make_run: Make,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is ended where its loss is looked at, so that a kill in the same epoch loses no snapshot of the others."""
    options = {"epochs": 1, "batch_size": 1, "clip_norm": None, "snapshot_seconds": 0}
    runs = several(make_run, [{"lr": 0.01}, {"lr": 1e30}], **options)
    inputs, folders = inputs_of(runs, train_split, held_out_split), folders_of(runs, tmp_path)
    taken = stopped(inputs, folders, monkeypatch, 36)
    assert CheckpointSeries.open(folders[1]).status == "diverged"
    train_runs(inputs, folders)
    assert taken == [(1, 1, step) for step in range(32, 40)]
    assert CheckpointSeries.open(folders[0]).status == "finished"


def test_finished_runs_are_left_out_and_diverged_ones_stop(
    make_run: Make, make_split: Make, files_of: Make, tmp_path: Path
) -> None:
    """Nothing of a finished run is touched; one that diverges ends as it does alone, and the others are not disturbed.

    Also of several findings an image, with a validation split that chooses the best epoch.
    """
    splits = [make_split(40, multi_label=True), make_split(24, part="test", multi_label=True)]
    splits.append(make_split(16, part="validation", multi_label=True, seed=3))
    runs = several(make_run, [{"lr": 0.05}, {"lr": 1e30}, {"lr": 0.02}], epochs=2, batch_size=8, clip_norm=None)
    alone, one = tmp_path / "alone", tmp_path / "one"
    for run in runs:
        options: dict[str, Any] = {"initial": None, "validation_split": splits[2]}
        train_run(run, *splits[:2], folder=alone / run.name, **options)
    train_run(runs[0], *splits[:2], folder=one / runs[0].name, **options)
    before = files_of(one / runs[0].name)
    train_runs(inputs_of(runs, *splits), folders_of(runs, one))
    assert files_of(one / runs[0].name) == before
    assert CheckpointSeries.open(one / runs[1].name).status == "diverged"
    for run in runs:
        same_runs(one / run.name, alone / run.name)


def test_networks_with_dropout_and_float16_are_refused(
    make_run: Make,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one line that names the runs and the option, before anything is written."""
    halves = several(make_run, [{}, {}], precision="float16")
    with pytest.raises(UserError, match=r"toy.rit_1 and 1 more: training.precision: float16 .* training.together to"):
        train_runs(inputs_of(halves, train_split, held_out_split), folders_of(halves, tmp_path))
    runs = several(make_run, [{}, {}])
    monkeypatch.setattr(stack_module, "draws", lambda model: True)
    with pytest.raises(UserError, match=r"fixup_resnet_small cannot be trained as one .* layers draw random numbers"):
        train_runs(inputs_of(runs, train_split, held_out_split), folders_of(runs, tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_worker_trains_several_runs_as_this_process_does(
    make_run: Make, make_split: Make, files_of: Make, tmp_path: Path
) -> None:
    """As on a GPU: one process is given all runs and their locks, and leaves the bytes of `train_runs`."""
    splits = make_split(40, folder=tmp_path / "train"), make_split(24, part="test", folder=tmp_path / "test")
    inputs = inputs_of(several(make_run, [{"epochs": 1}] * 2), *splits)
    runs = [one.run for one in inputs]

    def in_a_worker(records: Sequence[record.RunFolder], locks: Sequence[FolderLock]) -> None:
        launch._launch(records, locks, "cpu", 1)

    train_runs(inputs, folders_of(runs, tmp_path / "here"))
    made = train_runs(inputs, folders_of(runs, tmp_path / "there"), carry_out=in_a_worker)
    assert [series.name for series, _ in made] == ["toy.rit_1", "toy.rit_2"]
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")


def test_on_the_cpu_runs_for_a_gpu_are_trained_one_after_the_other(
    make_run: Make, train_split: PackedSplit, held_out_split: PackedSplit, files_of: Make, tmp_path: Path
) -> None:
    """To the bytes of each alone; a network that cannot be trained as one is none of its business there."""
    runs = several(make_run, [{"together": "gpu", "epochs": 1}] * 2)
    folders, splits = folders_of(runs, tmp_path / "one"), (train_split, held_out_split)
    launch.train_together(runs, *splits, initial=[None, None], folders=folders, device_type="cpu")
    for run in runs:
        train_run(run, *splits, initial=None, folder=tmp_path / "alone" / run.name)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "alone")
