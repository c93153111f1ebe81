"""Copies of a run share its epochs up to the split to the bit, and no later one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transferscope.experiment.options import AugmentationOptions
from transferscope.experiment.run import RunSpec
from transferscope.images.split import PackedSplit
from transferscope.models.series import CheckpointSeries, report_difference
from transferscope.training.loop import train_run

Make = Callable[..., Any]


def trained(run: RunSpec, train: PackedSplit, test: PackedSplit, folder: Path) -> CheckpointSeries:
    series, _ = train_run(run, train, test, initial=None, folder=folder / run.name, device="cpu")
    return series


def alike(a: CheckpointSeries, b: CheckpointSeries, epoch: int) -> bool:
    """Whether the weights of both at an epoch are the same to the bit."""
    first, second = (series.load(epoch).state_dict for series in (a, b))
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("split", [0, 1, 2])
def test_a_copy_shares_the_epochs_up_to_the_split(
    split: int, make_run: Make, train_split: PackedSplit, held_out_split: PackedSplit, tmp_path: Path
) -> None:
    """Its weights are the parent's at every epoch up to the split, with all draws of augmentation, and at none after.

    The parent is what it is without the copy; momentum goes on, so that epochs after the split differ by their order
    alone: a copy with the parent's order seed is the parent.
    """
    parent = make_run(keep_epochs="all", augmentation=AugmentationOptions(flip=True, mixup=0.5))
    shared = {"split_from": "toy.rit_1", "split_epoch": split, "shared_order_seed": parent.order_seed}
    copy = parent.model_copy(update={"name": "copy_1", "order_seed": 99, **shared})
    twin = copy.model_copy(update={"name": "twin_1", "order_seed": parent.order_seed})
    made = {run.name: trained(run, train_split, held_out_split, tmp_path) for run in (parent, copy, twin)}
    for epoch in range(4):
        assert alike(made["rit_1"], made["copy_1"], epoch) == (epoch <= split)
        assert alike(made["rit_1"], made["twin_1"], epoch)


def test_what_is_no_exact_copy_is_reported(
    make_run: Make,
    train_split: PackedSplit,
    held_out_split: PackedSplit,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Weights that differ before the split, as of another machine, are a warning with their largest difference."""
    parent = trained(make_run(keep_epochs=(1,)), train_split, held_out_split, tmp_path)
    other = make_run(name="other_1", keep_epochs=(1,)).model_copy(update={"order_seed": 8})
    copy = trained(other, train_split, held_out_split, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert report_difference(copy, parent, 0) == 0
        assert not caplog.messages
        difference = report_difference(copy, parent, 2)
    a, b = (series.load(1).state_dict for series in (parent, copy))
    assert difference == pytest.approx(max(float((a[key] - b[key]).abs().max()) for key in a))
    assert caplog.messages == [
        message for message in caplog.messages if "toy.other_1 is no exact copy of toy.rit_1: at epoch 1" in message
    ]
