"""Training in float16: with a scaled loss, whose scale belongs to the state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from transferscope.images.split import PackedSplit
from transferscope.training import device, trainee
from transferscope.training.loop import train_run

Make = Callable[..., Any]


@pytest.fixture
def run(make_run: Make) -> Any:
    return make_run(epochs=2, batch_size=8, precision="float16", snapshot_seconds=0)


def test_it_learns_what_float32_learns(
    run: Any, make_run: Make, train_split: PackedSplit, held_out_split: PackedSplit, tmp_path: Path
) -> None:
    """Weights stay float32 and agree with those of a training in float32 to the precision of half floats."""
    half, _ = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "half")
    plain = make_run(epochs=2, batch_size=8)
    full, _ = train_run(plain, train_split, held_out_split, initial=None, folder=tmp_path / "full")
    start, expected = full.load(0).state_dict, full.load("final").state_dict
    for name, value in half.load("final").state_dict.items():
        assert value.dtype == torch.float32
        moved = (expected[name] - start[name]).norm()
        assert (value - expected[name]).norm() <= 0.1 * moved + 1e-4


def test_the_scale_of_the_loss_survives_a_kill(
    run: Any, train_split: PackedSplit, held_out_split: PackedSplit, files_of: Make, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It grows every three steps here and overflows; a run that goes on takes the same steps, to the bit."""
    growing = partial(torch.amp.GradScaler, init_scale=2.0**20, growth_interval=3)
    monkeypatch.setattr(torch.amp, "GradScaler", growing)
    scales: list[float] = []
    original = trainee.take_step

    def take_step(setup: Any, *args: Any) -> Any:
        scales.append(setup.scaler.get_scale())
        if len(scales) == stop:
            raise KeyboardInterrupt
        return original(setup, *args)

    monkeypatch.setattr(trainee, "take_step", take_step)
    stop = 0
    train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "whole")
    whole = scales.copy()
    assert len(set(whole)) > 2
    scales.clear()
    stop = 8
    with pytest.raises(KeyboardInterrupt):
        train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "broken")
    scales.clear()
    stop = 0
    train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "broken")
    assert scales == whole[5:]  # the second epoch
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(("precision", "scaled"), [("float32", False), ("bfloat16", False), ("float16", True)])
def test_only_float16_scales_its_loss(precision: Any, scaled: bool) -> None:
    assert (device.loss_scaler(torch.device("cpu"), precision) is not None) == scaled
