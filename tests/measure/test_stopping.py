"""Lines on as few examples as decide whether there is a barrier."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from transferscope.experiment.options import (
    LookOptions,
    MistakesOptions,
    PictureOptions,
    ReplaceOptions,
    UntilDecidedOptions,
)
from transferscope.experiment.seeds import derive_seed
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.measure import Bench, line, predict, replacement
from transferscope.measure.stopping import drawn_order, looks_at, predict_until_decided
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

SIDE = 16
ALPHAS = (0, 0.5, 1)
EASY = UntilDecidedOptions(margin=0.95, first=16)
NEVER = UntilDecidedOptions(margin=0.99, first=16)


def split_of(part: str, *, multi_label: bool = False, number: int = 60) -> PackedSplit:
    generator = np.random.default_rng(number)
    images = generator.integers(0, 256, (number, 3, SIDE, SIDE), dtype=np.uint8)
    info = SplitInfo("toy", part, ("ant", "bee", "cat"), multi_label, True, PictureOptions(store_size=SIDE), part)
    labels = generator.integers(-1, 2, (number, 3)).astype(np.int8) if multi_label else np.arange(number) % 3
    sizes = np.full((number, 2), SIDE, dtype=np.int32)
    return PackedSplit(info, images, labels, [str(index) for index in range(number)], sizes)


def checkpoint_of(
    seed: int, architecture: str = "fixup_resnet_small", options: dict[str, Any] | None = None
) -> Checkpoint:
    options = {"widths": [4, 8, 8]} if options is None else options
    model = build_model(architecture, 3, seed=seed, **options)
    for name, tensor in model.state_dict().items():
        if name.endswith("weight"):
            tensor.add_(0.05)  # Fixup's classifier starts at zero
    return Checkpoint(
        model.state_dict(),
        CheckpointMetadata(architecture=architecture, num_classes=3, model_options=options),
    )


def bench_of(store: dict[str, Any] | None = None, *, multi_label: bool = False, **options: int) -> Bench:
    splits = {part: split_of(part, multi_label=multi_label) for part in ("train", "test")}
    return Bench(splits, {} if store is None else store, **({"resamples": 50} | options))


def taught_bench(checkpoint: Checkpoint, *, multi_label: bool = False) -> Bench:
    """A bench on which the checkpoint makes no mistake."""
    bench = bench_of(multi_label=multi_label)
    splits = {}
    for part, split in bench.splits.items():
        logits = predict(bench, checkpoint, part).numpy()
        labels = (logits > np.median(logits, axis=0)).astype(np.int8) if multi_label else logits.argmax(axis=1)
        splits[part] = PackedSplit(split.info, split.images, labels, split.example_ids, split.source_sizes)
    return replace(bench, splits=splits)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_decided_line_is_that_of_the_first_examples(multi_label: bool) -> None:
    """Points, barriers and intervals are those of a bench that has the examples of the first look alone."""
    ends = checkpoint_of(1), checkpoint_of(1)
    middle = predict(bench_of(), ends[0], "test").mean(dim=0)
    for one, more in zip(ends, (0.0, 1e-3), strict=True):
        one.state_dict["fc.bias"] += more - middle  # so that each class is the answer for some images
    bench = taught_bench(ends[0], multi_label=multi_label)
    few = line(bench, *ends, ALPHAS, outside=(-1,), until_decided=EASY)
    sizes = few.barriers.set_index("split")["num_examples"]
    assert set(sizes) == ({16} if not multi_label else set(sizes))
    assert sizes.max() < 60
    chosen = {}
    for part, split in bench.splits.items():
        order = np.random.default_rng(derive_seed("toy", part, "order")).permutation(60)
        chosen[part] = split.subset(np.sort(order[: sizes[part].iloc[0]]))
    alone = line(Bench(chosen, resamples=50), *ends, ALPHAS, outside=(-1,))
    for decided, expected in zip(few, alone, strict=True):
        keys = [name for name in ("split", "metric", "alpha") if name in decided]
        decided, expected = (table.sort_values(keys).reset_index(drop=True) for table in (decided, expected))
        pd.testing.assert_frame_equal(decided, expected, rtol=1e-5, atol=1e-7)


def test_points_beyond_the_ends_have_the_statistics_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """With BatchNorm, points beyond are measured on the few examples with statistics of the whole train part."""
    monkeypatch.setattr("transferscope.measure.stopping.decide_barrier", lambda *_, **__: "below")  # at the first look
    ends = [checkpoint_of(seed, "resnet18", {}) for seed in (1, 2)]
    bench = bench_of(resamples=2)
    few = line(bench, *ends, ALPHAS, outside=(-1,), until_decided=EASY)
    order = np.random.default_rng(derive_seed("toy", "test", "order")).permutation(60)
    chosen = {"train": bench.split("train"), "test": bench.split("test").subset(np.sort(order[:16]))}
    whole = line(Bench(chosen, resamples=2), *ends, ALPHAS, outside=(-1,), parts=["test"])
    keys = ["metric", "alpha"]
    decided, expected = (
        table.query("split == 'test'").sort_values(keys).reset_index(drop=True) for table in (few.points, whole.points)
    )
    assert -1 in set(expected["alpha"])
    pd.testing.assert_frame_equal(decided, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("open_metric", ["accuracy", "loss"])
@pytest.mark.parametrize(("decision", "expected"), [("no barrier", 60), ("undecidable", 60), ("barrier", 16)])
def test_a_line_has_a_barrier_in_either_metric_and_none_in_both(
    open_metric: str, decision: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one of accuracy and loss is open, a barrier in the other ends the line, and nothing else does.

    Each is held against its own guessing.
    """
    asked = []

    def decide(*_: Any, higher_is_better: bool, guessing: float, **__: Any) -> str | None:
        asked.append((higher_is_better, round(guessing, 6)))
        return None if higher_is_better == (open_metric == "accuracy") else decision

    monkeypatch.setattr("transferscope.measure.stopping.decide_barrier", decide)
    few = line(bench_of(), checkpoint_of(1), checkpoint_of(2), ALPHAS, parts=["test"], until_decided=EASY)
    assert set(few.barriers["num_examples"]) == {expected}
    assert set(asked) == {(True, round(1 / 3, 6)), (False, round(np.log(3), 6))}


def test_a_line_between_two_tasks_takes_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look that has 60 % of the examples, however early it is decided; within a task the first look of all."""
    monkeypatch.setattr("transferscope.measure.stopping.decide_barrier", lambda *_, **__: "barrier")
    first, second = checkpoint_of(1), checkpoint_of(2)
    for task, expected in (("toy", 16), ("other", 36)):
        ends = first.with_metadata(task="toy"), second.with_metadata(task=task)
        few = line(bench_of(), *ends, ALPHAS, parts=["test"], until_decided=EASY)
        assert set(few.barriers["num_examples"]) == {expected}


def test_an_undecided_line_is_that_of_all_examples() -> None:
    """With margins that nothing meets every example is measured, and the tables are those without the option."""
    ends = checkpoint_of(1), checkpoint_of(2)
    decided = line(bench_of(), *ends, ALPHAS, until_decided=NEVER)
    expected = line(bench_of(), *ends, ALPHAS)
    for one, other in zip(decided, expected, strict=True):
        keys = [name for name in ("split", "metric", "alpha") if name in one]
        one, other = (table.sort_values(keys).reset_index(drop=True) for table in (one, other))
        pd.testing.assert_frame_equal(one, other, rtol=1e-5, atol=1e-7)


def test_each_example_is_measured_once_and_remembered() -> None:
    """Batches of 16, 8, 12, 18 and 6 of 60 examples, each at three points; a rerun measures nothing."""
    store: dict[str, Any] = {}
    ends = checkpoint_of(1), checkpoint_of(2)
    line(bench_of(store), *ends, ALPHAS, parts=["test"], until_decided=NEVER)
    assert sorted(len(stored["loss"]) for stored in store.values()) == sorted([16, 8, 12, 18, 6] * 3)
    before = len(store)
    line(bench_of(store), *ends, ALPHAS, parts=["test"], until_decided=NEVER)
    assert len(store) == before


def test_without_resamples_nothing_can_be_decided() -> None:
    """The message names the key."""
    with pytest.raises(UserError, match=r"landscape\.resamples"):
        line(bench_of(resamples=0), checkpoint_of(1), checkpoint_of(2), ALPHAS, until_decided=EASY)


@pytest.mark.parametrize("multi_label", [False, True])
def test_models_predict_until_their_pairs_are_decided(multi_label: bool) -> None:
    """A copy replaces its original after few images, a model that is always wrong takes few, a near one takes all.

    Each sees the first images of one order, and its logits are those of `predict`; the rest of the table is that of
    these images alone.
    """
    right = checkpoint_of(1)
    right.state_dict["fc.bias"] -= predict(bench_of(), right, "test").mean(dim=0)
    wrong = checkpoint_of(1)
    for name in ("fc.weight", "fc.bias"):
        wrong.state_dict[name].copy_(-right.state_dict[name])
    near = checkpoint_of(1)
    near.state_dict["fc.bias"].copy_(right.state_dict["fc.bias"] + 0.02 * torch.tensor([1.0, -1.0, 0.0]))
    models = {"right": right, "wrong": wrong, "near": near}
    split = taught_bench(right, multi_label=multi_label).split("test")
    load = {name: lambda name=name: models[name] for name in models}
    options, rule = ReplaceOptions(margin=0.02), LookOptions(first=16)
    predictions = predict_until_decided(split, load, [("right", "wrong"), ("right", "near")], options, rule)
    assert len(predictions["wrong"][0]) < len(predictions["near"][0]) == len(predictions["right"][0]) == 60
    bench = Bench({"test": split}, {})
    for name, (rows, logits) in predictions.items():
        assert (rows == drawn_order(split, "test")[: len(rows)]).all()
        np.testing.assert_allclose(logits, predict(bench, models[name])[rows], rtol=1e-4, atol=1e-5)
    rows, logits = predictions["wrong"]
    seen, first = split.subset(rows), predictions["right"][1][: len(rows)]
    looked, plain = (replacement(seen, first, logits, options, looks=at)[0] for at in (looks_at(60, rule), ()))
    assert set(looked["answer"]) == {"no"}
    assert (looked["accuracy_gain_low"] <= plain["accuracy_gain_low"]).all()
    same = looked.columns.difference(["accuracy_gain_low", "accuracy_gain_high", "answer"])
    pd.testing.assert_frame_equal(looked[same], plain[same])


def test_stopping_needs_a_question() -> None:
    """Without `replace` nothing could be decided; the message names both keys."""
    with pytest.raises(ValidationError, match="until_decided stops when replace is answered"):
        MistakesOptions(until_decided=LookOptions(), replace=None)
