"""TensorBoard events of a training."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transferscope.images.split import PackedSplit
from transferscope.system.errors import UserError
from transferscope.training.history import Events
from transferscope.training.loop import train_run

Make = Callable[..., Any]


def read(folder: Path) -> dict[str, dict[int, float]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in accumulator.Tags()["scalars"]
    }


def test_events_are_the_history(
    train_split: PackedSplit, held_out_split: PackedSplit, make_run: Make, tmp_path: Path
) -> None:
    """Every number of the history is an event at its epoch; the history itself is as without events."""
    run = make_run(epochs=2, tensorboard=True)
    _, history = train_run(run, train_split, held_out_split, initial=None, folder=tmp_path / "with")
    events = read(tmp_path / "with" / "events")
    assert events["test/accuracy"] == pytest.approx(dict(zip(history["epoch"], history["test_accuracy"], strict=True)))
    assert events["lr"] == pytest.approx({1: history["lr"][1], 2: history["lr"][2]})
    _, expected = train_run(make_run(epochs=2), train_split, held_out_split, initial=None, folder=tmp_path / "without")
    assert history.equals(expected)


def test_what_a_killed_attempt_wrote_beyond_is_not_shown(tmp_path: Path) -> None:
    """Epoch 2 was written, the run goes on after epoch 1: the new value of epoch 2 counts."""
    first = Events(tmp_path, after=0)
    for epoch, loss in ((1, 3.0), (2, 2.0)):
        first.add({"task": "a", "run": "b", "epoch": epoch, "train_loss": loss})
    first.close()
    second = Events(tmp_path, after=1)
    second.add({"task": "a", "run": "b", "epoch": 2, "train_loss": 1.5})
    second.close()
    assert read(tmp_path)["train/loss"] == {1: 3.0, 2: 1.5}


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names the key and the extra."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"training.tensorboard: .*pip install -e '.\[tensorboard\]'"):
        Events(tmp_path, after=0)
