"""Training of one run."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from transferscope.experiment.options import AugmentationOptions, ModelOptions
from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import epoch_order, step_seed
from transferscope.images.split import PackedSplit
from transferscope.models.initialisation import initialise
from transferscope.system.errors import UserError
from transferscope.system.folder_lock import run_folder_held
from transferscope.training import trainee
from transferscope.training.distributed.launch import train as launch
from transferscope.training.evaluation import evaluate, evaluated_examples
from transferscope.training.loop import train_run

Make = Callable[..., Any]


def reference_training(run: RunSpec, split: PackedSplit) -> tuple[list[float], nn.Module]:
    """A plain loop over tensors, with torch's optimizer, scheduler and clipping; losses step by step."""
    options = run.training
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (split.pictures.mean, split.pictures.std))
    inputs = (torch.from_numpy(np.array(split.images)) / 255 - mean) / std
    labels = torch.from_numpy(split.labels)
    model = initialise(run.model, split.num_classes, init_seed=run.init_seed)
    scalars = [p for n, p in model.named_parameters() if p.numel() == 1 and ("bias" in n or "scale" in n)]
    weights = [p for p in model.parameters() if all(p is not scalar for scalar in scalars)]
    groups = [{"params": weights, "lr": options.lr}, {"params": scalars, "lr": options.lr * options.scalar_lr_factor}]
    optimizer = torch.optim.SGD(groups, momentum=options.momentum, weight_decay=options.weight_decay, foreach=False)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(options.milestones), gamma=options.decay_factor)
    losses = []
    for epoch in range(1, options.epochs + 1):
        for indices in torch.from_numpy(epoch_order(run.order_seed, epoch, len(split))).split(options.batch_size):
            loss = F.cross_entropy(model(inputs[indices]), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm or math.inf)
            optimizer.step()
            losses.append(loss.item())
        scheduler.step()
    return losses, model


def test_losses_are_those_of_a_plain_loop(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """Twenty epochs of one step each give, step by step, the losses of an independent loop with torch's own parts."""
    run = make_run(epochs=20, batch_size=40, warmup_fraction=0, milestones=(8, 15), clip_norm=0.5, lr=0.2)
    _, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    expected, _ = reference_training(run, train_split)
    assert history["train_loss"].tolist()[1:] == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < expected[0]


def test_weights_are_those_of_a_plain_loop(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """Five epochs of three steps, the last batch smaller, lead to the weights of the independent loop."""
    run = make_run(epochs=5, batch_size=16, warmup_fraction=0, milestones=(3,), clip_norm=1.0)
    series, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    losses, model = reference_training(run, train_split)
    trained = series.load("final").state_dict
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-6, msg=name)
    sizes = np.array([16, 16, 8])
    means = np.array(losses).reshape(5, 3) @ sizes / 40
    assert history["train_loss"].tolist()[1:] == pytest.approx(means.tolist(), rel=1e-5)


def test_same_run_twice_gives_the_same_bytes(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, files_of: Make, tmp_path: Path
) -> None:
    """Checkpoints, index and history are equal byte for byte, and torch's global random state plays no part."""
    run = make_run(augmentation=AugmentationOptions(flip=True, mixup=0.7), keep_epochs="all")
    for seed in (1, 2):
        torch.manual_seed(seed)
        train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / str(seed))
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert torch.initial_seed() == 2


def test_order_depends_on_seed_and_epoch_only() -> None:
    """Each epoch is a permutation, another for another epoch or seed, the same whenever it is asked for."""
    first = epoch_order(3, 1, 50)
    assert sorted(first) == list(range(50))
    assert (first == epoch_order(3, 1, 50)).all()
    assert (first != epoch_order(3, 2, 50)).any()
    assert (first != epoch_order(4, 1, 50)).any()
    assert len({step_seed(3, epoch, step) for epoch in range(9) for step in range(9)}) == 81


def test_history_has_a_row_for_each_epoch(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """Epoch 0 is the untrained model; the last row's metrics are those of the final checkpoint."""
    run = make_run(epochs=3, milestones=(2,), warmup_fraction=0)
    series, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert history["lr"].tolist()[1:] == pytest.approx([0.05, 0.05, 0.005])
    assert history.columns.tolist() == [
        *("task", "run", "epoch", "lr", "train_loss"),
        *("train_accuracy", "train_loss_eval", "test_accuracy", "test_loss"),
    ]
    final = evaluate(series.load("final").build(), held_out_split)
    assert (history["test_accuracy"].iloc[-1], history["test_loss"].iloc[-1]) == (final["accuracy"], final["loss"])
    assert history.equals(pd.read_csv(tmp_path / "history.csv", float_precision="round_trip"))
    assert pd.read_csv(tmp_path / "timings.csv")["epoch"].tolist() == [0, 1, 2, 3]


def test_epoch_0_is_the_initialised_model(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """The first checkpoint holds the weights that the initialisation seed draws."""
    run = make_run(epochs=1)
    series, _ = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    expected = initialise(run.model, 3, init_seed=run.init_seed).state_dict()
    saved = series.load(0).state_dict
    assert all(torch.equal(saved[name], value) for name, value in expected.items())
    metadata = series.load("final").metadata
    assert (metadata.epoch, metadata.task, metadata.run, metadata.fingerprint) == (1, "toy", "rit_1", run.fingerprint)


def test_pretrained_runs_start_from_their_checkpoint(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """All but the classifier comes from `initial`, and other initial weights are another run."""
    source, _ = train_run(make_run(), train_split, held_out_split, initial=None, folder=tmp_path / "source")
    run = make_run(name="pt_1", epochs=1).model_copy(update={"initialisation": "pretrained", "init_seed": 9})
    series, _ = train_run(run, train_split, held_out_split, initial=source.load("final"), folder=tmp_path / "target")
    start, given = series.load(0).state_dict, source.load("final").state_dict
    changed = [name for name in given if not torch.equal(start[name], given[name])]
    assert changed == ["fc.weight", "fc.bias"]
    other, _ = train_run(run, train_split, held_out_split, initial=source.load(0), folder=tmp_path / "target")
    assert not torch.equal(other.load(0).state_dict["conv1.weight"], given["conv1.weight"])


def test_a_run_may_take_a_part_of_what_its_start_holds(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """Its statistics, or the first modules: epoch 0 is what `initialise` makes of it."""
    source, _ = train_run(make_run(), train_split, held_out_split, initial=None, folder=tmp_path / "source")
    initial, run = source.load("final"), make_run(name="pt_1", epochs=1)
    for part in ({"transfer": "statistics"}, {"transfer_until": "layer1.0"}):
        chosen = run.model_copy(update={"initialisation": "pretrained", "fingerprint": str(part)} | part)
        series, _ = train_run(chosen, train_split, held_out_split, initial=initial, folder=tmp_path / "target")
        expected = initialise(run.model, 3, init_seed=run.init_seed, pretrained=initial, **part).state_dict()
        assert all(torch.equal(series.load(0).state_dict[name], value) for name, value in expected.items())
        assert not torch.equal(series.load(0).state_dict["layer2.0.conv1.weight"], initial.state_dict["conv1.weight"])


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(("num_processes", "model"), [(1, ModelOptions(name="resnet18")), (2, None)])
def test_frozen_features_stay_to_the_bit_while_the_classifier_learns(
    make_split: Make, make_run: Make, tmp_path: Path, num_processes: int, model: ModelOptions | None
) -> None:
    """With BatchNorm in one process, without in two; the loss still falls."""
    train, test = (make_split(48, part=part, folder=tmp_path / part) for part in ("train", "test"))
    run = make_run(epochs=2, lr=0.2, frozen="features", num_processes=num_processes)
    run = run.model_copy(update={"model": model or run.model})
    series, history = launch(run, train, test, initial=None, folder=tmp_path / "run")
    first, last = series.load(0).state_dict, series.load("final").state_dict
    assert {key for key in first if not torch.equal(first[key], last[key])} == {"fc.weight", "fc.bias"}
    assert history["train_loss_eval"].iloc[-1] < history["train_loss_eval"].iloc[0]


def test_which_epochs_are_kept(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """0, the named ones, best and final; or all of them."""
    series, history = train_run(
        make_run(epochs=5, keep_epochs=(2,)), train_split, held_out_split, initial=None, folder=tmp_path / "some"
    )
    best = int(history.loc[history["test_accuracy"].iloc[1:].idxmax(), "epoch"])
    assert (set(series.epochs), series.best, series.final) == ({0, 2, best, 5}, best, 5)
    assert len(list((tmp_path / "some").glob("epoch_*"))) == len(series.epochs)
    every, _ = train_run(
        make_run(epochs=3, keep_epochs="all"), train_split, held_out_split, initial=None, folder=tmp_path / "all"
    )
    assert every.epochs == (0, 1, 2, 3)


def test_best_is_chosen_on_the_validation_split_if_there_is_one(
    make_split: Make, make_run: Make, tmp_path: Path
) -> None:
    """A validation split that is the training split makes best the epoch of the best training accuracy."""
    train, test = make_split(40), make_split(24, part="test")
    series, history = train_run(
        make_run(epochs=6, lr=0.2), train, test, initial=None, folder=tmp_path, validation_split=train
    )
    assert history["validation_accuracy"].equals(history["train_accuracy"])
    assert series.best == history["validation_accuracy"].iloc[1:].idxmax()


def test_evaluation_may_be_rarer(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """With `evaluate_every` 2 of 5 epochs: metrics at 0, 2, 4 and at the end."""
    run = make_run(epochs=5, evaluate_every=2)
    _, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    assert history.loc[history["test_loss"].notna(), "epoch"].tolist() == [0, 2, 4, 5]
    assert history["train_loss"].notna().tolist() == [False] + [True] * 5


def test_multi_label_history_has_auc_by_class(make_split: Make, make_run: Make, tmp_path: Path) -> None:
    """Mean AUC and one for each finding, on both splits; and the task, which shows its findings, is learnt."""
    train, test = make_split(60, multi_label=True), make_split(30, part="test", multi_label=True)
    series, history = train_run(make_run(epochs=8, lr=0.2), train, test, initial=None, folder=tmp_path)
    wanted = {"train_auc", "test_auc", "train_auc/ant", "test_auc/cat"}
    assert wanted <= set(history.columns)
    assert series.best == history["test_auc"].iloc[1:].idxmax()
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[1]


def test_a_diverging_run_stops_and_says_so(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """With an absurd learning rate the loss leaves the numbers: status, history, and finite final weights."""
    run = make_run(epochs=6, lr=1e18, clip_norm=None, warmup_fraction=0)
    series, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    assert series.status == "diverged"
    assert math.isnan(history["train_loss"].iloc[-1])
    assert history["epoch"].iloc[-1] == series.final + 1
    assert all(torch.isfinite(value).all() for value in series.load("final").state_dict.values())
    again, _ = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path)
    assert again.status == "diverged"


@pytest.mark.parametrize("snapshot_seconds", [0, 300])
@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_a_diverged_run_ends_with_the_epoch_before(
    epoch: int, snapshot_seconds: float, train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its weights are there, also where nothing else would have kept them."""
    every, _ = train_run(
        make_run(epochs=4, lr=0.3, keep_epochs="all"), train_split, held_out_split, initial=None, folder=tmp_path / "every"
    )  # fmt: skip
    original, steps = trainee.take_step, 3 * epoch

    def take_step(*args: Any) -> torch.Tensor:
        nonlocal steps
        steps -= 1
        return original(*args) if steps else torch.full((2,), math.nan, dtype=torch.float64)

    monkeypatch.setattr(trainee, "take_step", take_step)
    run = make_run(epochs=4, lr=0.3, snapshot_seconds=snapshot_seconds)
    series, _ = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "run")
    assert (series.status, series.final) == ("diverged", epoch - 1)
    for name, value in every.load(epoch - 1).state_dict.items():
        assert torch.equal(series.load("final").state_dict[name], value), name


def test_a_finished_run_is_not_trained_again(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path, monkeypatch: Any
) -> None:
    """The second call reads the folder; another plan, or other images, trains anew and leaves nothing of the old."""
    _, history = train_run(make_run(), train_split, held_out_split, initial=None, folder=tmp_path)
    monkeypatch.setattr(trainee, "initialise", lambda *_, **__: pytest.fail("trained again"))
    _, again = train_run(make_run(), train_split, held_out_split, initial=None, folder=tmp_path)
    assert again.equals(history)
    monkeypatch.undo()
    series, shorter = train_run(make_run(epochs=1), train_split, held_out_split, initial=None, folder=tmp_path)
    assert (series.final, len(shorter), len(list(tmp_path.glob("epoch_*")))) == (1, 2, 2)


def test_a_training_holds_its_folder(make_split: Make, make_run: Make, tmp_path: Path) -> None:
    """Called directly, as in a notebook: a second one in the folder is one line, whatever its plan, until it has ended.

    A finished run is returned though the folder is held, since nothing is written.
    """
    parts, lines = (make_split(40), make_split(24, part="test")), []

    def try_another(*_: object) -> None:
        for other in (make_run(), make_run(lr=0.5)):
            with pytest.raises(UserError, match=r"is in use by another run .*`models_folder` of its own") as refused:
                train_run(other, *parts, initial=None, folder=tmp_path / "run")
            lines.append(str(refused.value))

    _, history = train_run(make_run(), *parts, initial=None, folder=tmp_path / "run", progress=try_another)
    assert len(lines) > 1
    assert not (tmp_path / "run" / ".running").exists()
    with run_folder_held(tmp_path / "run"):
        assert train_run(make_run(), *parts, initial=None, folder=tmp_path / "run")[1].equals(history)


def test_other_images_are_another_run(make_split: Make, make_run: Make, tmp_path: Path) -> None:
    """A series made from other images is not taken for this run's, though the plan is the same."""
    test = make_split(24, part="test")
    first, _ = train_run(make_run(), make_split(40), test, initial=None, folder=tmp_path)
    before = first.load("final").state_dict
    second, _ = train_run(make_run(), make_split(40, seed=1), test, initial=None, folder=tmp_path)
    assert not torch.equal(before["fc.weight"], second.load("final").state_dict["fc.weight"])


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bfloat16"},
        # With 4 channels it would stay in the usual layout on some CPUs (`memory_layout.corrupts_memory`).
        {"channels_last": True, "widths": (8, 16)},
        {"label_smoothing": 0.1},
        {"augmentation": AugmentationOptions(flip=True, rotate=10, mixup=0.5)},
    ],
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_options_train(
    make_split: Make, make_run: Make, tmp_path: Path, options: dict[str, Any], multi_label: bool
) -> None:
    """Every option lowers the loss of an easy task."""
    train, test = (make_split(48, part=part, multi_label=multi_label) for part in ("train", "test"))
    _, history = train_run(make_run(epochs=6, lr=0.2, **options), train, test, initial=None, folder=tmp_path)
    assert history["train_loss_eval"].iloc[-1] < history["train_loss_eval"].iloc[0]


def test_a_compiled_model_leaves_the_same_checkpoints(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path, monkeypatch: Any
) -> None:
    """Same names and, by a backend that generates no code, same values; also where the run goes on from a snapshot."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, expected = train_run(make_run(), train_split, held_out_split, initial=None, folder=tmp_path / "plain")
    run = make_run(compile=True, snapshot_seconds=0)

    def killed(steps: int, note: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "fast", progress=killed)
    fast, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "fast")
    assert history.equals(expected)
    for name, value in plain.load("final").state_dict.items():
        assert torch.equal(fast.load("final").state_dict[name], value), name


def test_train_metrics_on_a_sample(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """They are those of the same examples at every epoch; test metrics, the best and the weights are those of all."""
    every, _ = train_run(make_run(), train_split, held_out_split, initial=None, folder=tmp_path / "every")
    run = make_run(evaluate_train_on=11)
    series, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "some")
    indices = evaluated_examples(train_split, 11)
    assert indices is not None
    assert len(set(indices.tolist())) == 11
    assert series.best == every.best
    for which in (0, "final"):
        checkpoint = series.load(which)
        for name, value in every.load(which).state_dict.items():
            assert torch.equal(checkpoint.state_dict[name], value)
        row = history.iloc[series.epoch(which)]
        seen = evaluate(checkpoint.build(), train_split.subset(indices))
        assert (row["train_accuracy"], row["train_loss_eval"]) == pytest.approx(
            (seen["accuracy"], seen["loss"]), rel=1e-6
        )
        whole = evaluate(checkpoint.build(), held_out_split)
        assert row["test_accuracy"] == pytest.approx(whole["accuracy"])
    assert evaluated_examples(train_split, 40) is None


def test_progress_counts_every_step(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """The hook hears of 3 steps an epoch, with the loss so far."""
    heard: list[tuple[int, str]] = []
    train_run(
        make_run(epochs=2),
        train_split,
        held_out_split,
        initial=None,
        folder=tmp_path,
        progress=lambda steps, note: heard.append((steps, note)),
    )
    assert sum(steps for steps, _ in heard) == 6
    assert "loss" in heard[-1][1]


def test_inputs_that_do_not_fit_are_refused(make_split: Make, make_run: Make, tmp_path: Path) -> None:
    """Empty split, other kind of labels, missing or superfluous initial weights, a run that is a file."""
    train, test, run = make_split(40), make_split(24, part="test"), make_run()
    bad = {
        "the train split of 'toy' is empty": (run, train.subset([]), test, None),
        "the test split of 'toy' has other classes": (run, train, make_split(24, part="test", multi_label=True), None),
        "needs the checkpoint it starts from": (
            run.model_copy(update={"initialisation": "pretrained"}), train, test, None,
        ),
        "takes no checkpoint": (run, train, test, SimpleNamespace(state_dict={})),
        "there is nothing to train": (
            run.model_copy(update={"initialisation": "checkpoint"}), train, test, None,
        ),
    }  # fmt: skip
    for message, (given, part, held_out, initial) in bad.items():
        with pytest.raises(UserError, match=message):
            train_run(given, part, held_out, initial=initial, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("images", "fits"), [(33, False), (34, True)])
def test_one_image_left_over_for_batchnorm_is_named_before_training(
    make_split, make_run, tmp_path, images, fits
) -> None:
    """Where the last layers of a network see one pixel, BatchNorm cannot train on one image."""
    run = make_run(epochs=1).model_copy(update={"model": ModelOptions(name="resnet18")})
    splits = make_split(images), make_split(8, part="test")
    if fits:
        train_run(run, *splits, initial=None, folder=tmp_path)
        return
    with pytest.raises(UserError, match=r"training.batch_size: 16 leaves one of the 33 images of toy over"):
        train_run(run, *splits, initial=None, folder=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
