"""Several gloo processes compute what one computes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from transferscope.experiment.options import AugmentationOptions
from transferscope.experiment.run import RunSpec
from transferscope.images.split import PackedSplit
from transferscope.models.initialisation import initialise
from transferscope.models.series import CheckpointSeries
from transferscope.system.errors import UserError
from transferscope.training import loop
from transferscope.training import trainee as trainee_module
from transferscope.training.device import OneProcess
from transferscope.training.distributed import group as group_module
from transferscope.training.distributed.group import ProcessGroup, may_have_unused
from transferscope.training.evaluation import predict
from transferscope.training.record import Inputs, RunFolder
from transferscope.training.trainee import one_run

Make = Callable[..., Any]


def in_processes(size: int, store: Path, work: Callable[[ProcessGroup], None]) -> None:
    """Run `work` in forked processes that form a gloo group."""

    def one(rank: int) -> None:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        work(ProcessGroup(torch.device("cpu")))
        dist.destroy_process_group()

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=one, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * size


def fit(
    run: RunSpec,
    train: PackedSplit,
    test: PackedSplit,
    folder: Path,
    group: OneProcess,
    advance: Callable[[int, str], None] = lambda steps, note: None,
) -> None:
    """The training loop as one process of a group goes through it."""
    inputs = Inputs.of(run, {"train": train, "test": test}, None)
    with one_run(RunFolder(folder, inputs), torch.device("cpu"), group) as trainee:
        loop.fit(trainee, advance)


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of runs are float64."""
    monkeypatch.setattr(trainee_module, "initialise", lambda *args, **kwargs: initialise(*args, **kwargs).double())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("size", "batch_size", "multi_label", "augmentation"),
    [
        (2, 16, False, AugmentationOptions()),
        (3, 19, True, AugmentationOptions()),  # batches of 19, 19 and 2: shares of 6 or 7; one process has none of 2
        (2, 13, True, AugmentationOptions(flip=True, rotate=5, mixup=0.7)),
    ],
)
def test_several_processes_equal_one(
    size: int, batch_size: int, multi_label: bool, augmentation: AugmentationOptions, make_split: Make, make_run: Make,
    tmp_path: Path,
) -> None:  # fmt: skip
    """In float64 all weights and losses agree to 1e-6 relative, uneven last batches and ignored findings included."""
    train, test = make_split(40, multi_label=multi_label), make_split(24, part="test", multi_label=multi_label)
    run = make_run(epochs=2, batch_size=batch_size, augmentation=augmentation, lr=0.1)

    def work(group: OneProcess) -> None:
        folder = tmp_path / str(group.size)
        fit(run, train, test, folder, group)

    work(OneProcess())
    in_processes(size, tmp_path / "store", work)
    one, several = (CheckpointSeries.open(tmp_path / str(number)).load("final") for number in (1, size))
    for name, value in one.state_dict.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(several.state_dict[name], value, rtol=1e-6, atol=1e-12, msg=name)
    assert several.metadata.metrics == pytest.approx(one.metadata.metrics, rel=1e-6)


class Stopped(BaseException):
    """As if all processes were killed."""


@pytest.mark.parametrize("size", [2, 3])
def test_stopped_processes_go_on_to_the_same_bytes(size: int, make_split: Make, make_run: Make, tmp_path: Path) -> None:
    """Gradients are added in one order, whether a process takes its first step or its hundredth."""
    train, test = make_split(40), make_split(24, part="test")
    run = make_run(epochs=2, batch_size=8, lr=0.1, snapshot_seconds=0)

    def work(folder: str, last: int) -> Callable[[ProcessGroup], None]:
        def train_until(group: ProcessGroup) -> None:
            loop.CHECK_EVERY = 1
            done: list[int] = []

            def advance(steps: int, _: str) -> None:
                done.append(steps)
                if len(done) == last:
                    raise Stopped

            with suppress(Stopped):
                fit(run, train, test, tmp_path / folder, group, advance)

        return train_until

    in_processes(size, tmp_path / "a", work("whole", 10**6))
    in_processes(size, tmp_path / "b", work("broken", 4))
    assert not (tmp_path / "broken" / "series.json").exists()
    in_processes(size, tmp_path / "c", work("broken", 10**6))
    whole, broken = (
        CheckpointSeries.open(tmp_path / folder).load("final").state_dict for folder in ("whole", "broken")
    )
    assert [name for name, value in whole.items() if not torch.equal(value, broken[name])] == []


def test_predictions_of_several_processes_are_equal_bit_for_bit(
    make_split: Make, make_run: Make, tmp_path: Path
) -> None:
    """Whole batches are shared out, so that logits, and so metrics, are those of one process; all get all of them."""
    split: PackedSplit = make_split(50)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    expected = predict(model, split, batch_size=16)

    def work(group: ProcessGroup) -> None:
        logits = predict(model, split, batch_size=16, group=group)
        np.save(tmp_path / f"{group.rank}.npy", logits.numpy())

    in_processes(3, tmp_path / "store", work)
    for rank in range(3):
        assert np.array_equal(np.load(tmp_path / f"{rank}.npy"), expected.numpy())


@pytest.mark.parametrize("num_examples", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_make_up_the_batch(num_examples: int, size: int) -> None:
    """Shares are consecutive, differ by one example at most, and those with factor 1 hold each example once."""
    taken: list[int] = []
    for rank in range(size):
        group = OneProcess()
        group.rank, group.size = rank, size
        share, factor = group.share(num_examples)
        examples = list(range(num_examples))[share]
        assert len(examples) >= 1
        assert len(examples) <= num_examples // size + 1
        taken += examples if factor else []
    assert taken == list(range(num_examples))


def test_machines_that_see_different_snapshots_stop(make_split: Make, make_run: Make, tmp_path: Path) -> None:
    """Shared storage may show one an older file: they must not go on from different epochs."""

    for snapshots in ([1, 1, 0], [1, 0, 0]):  # after the first epoch, or before it: it need not measure epoch 0 again

        class BesideOneAhead(OneProcess):
            rank, size = 1, 2
            other = torch.tensor(snapshots)

            def sum_(self, tensor: Tensor) -> Tensor:
                return tensor + self.other

        with pytest.raises(UserError, match="the machines see different snapshots"):
            fit(make_run(), make_split(40), make_split(24), tmp_path, BesideOneAhead())


def test_batchnorm_in_several_processes_on_the_cpu_is_refused() -> None:
    """It would normalise by each process's own share of the batch."""
    group = ProcessGroup.__new__(ProcessGroup)
    group.device, model = torch.device("cpu"), nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    with pytest.raises(UserError, match="BatchNorm trains in one process"):
        group.wrap(model, model, torch.zeros(1, 3, 4, 4))


class WithSpare(nn.Module):
    """A network with a layer that it never calls, and dropout."""

    def __init__(self, spare: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten())
        self.spare = nn.Linear(2, 2) if spare else None

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize(("device", "searched"), [("cpu", {False, True}), ("cuda:0", {True})])
def test_parameters_without_gradient_are_searched_where_there_are_any(
    device: str, searched: set[bool], spare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On GPUs only then, since each search walks through the graph; neither statistics nor draws are touched."""
    options: list[dict[str, Any]] = []
    monkeypatch.setattr(group_module, "is_known", lambda model: True)
    monkeypatch.setattr(ProcessGroup, "_any", lambda _, own: own)
    monkeypatch.setattr(group_module, "DistributedDataParallel", lambda model, **given: options.append(given))
    monkeypatch.setattr(nn.SyncBatchNorm, "convert_sync_batchnorm", lambda model: model)
    model, images = WithSpare(spare), torch.ones(2, 3, 4, 4)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert may_have_unused(model, images) == spare
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.layers[1] = nn.Identity()
    group = ProcessGroup.__new__(ProcessGroup)
    group.device = torch.device(device)
    group.wrap(model, model, images)
    assert options[0]["find_unused_parameters"] == (spare in searched)


@pytest.mark.parametrize(("here", "elsewhere"), [(True, False), (False, True), (False, False)])
def test_all_processes_search_if_one_must(here: bool, elsewhere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that search exchange one message more, for which the others would wait."""
    options: list[dict[str, Any]] = []
    monkeypatch.setattr(group_module, "DistributedDataParallel", lambda model, **given: options.append(given))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(float(elsewhere)))
    group = ProcessGroup.__new__(ProcessGroup)
    group.device = torch.device("cpu")
    agreed = group._any(here)
    assert agreed == (here or elsewhere)
    group.device = torch.device("cuda:0")
    monkeypatch.setattr(ProcessGroup, "_any", lambda _, own: agreed)
    monkeypatch.setattr(group_module, "may_have_unused", lambda *_: here)
    group.wrap(nn.Linear(2, 2), nn.Linear(2, 2), torch.zeros(1))
    assert options[0]["find_unused_parameters"] == agreed


def test_networks_whose_ways_are_not_known_may_leave_out_a_parameter() -> None:
    """One pass over blank images says nothing of another one."""
    assert may_have_unused(WithSpare(spare=False), torch.ones(2, 3, 4, 4))
