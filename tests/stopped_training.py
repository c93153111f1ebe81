"""Trainings that stop at a chosen call, and the optimizer steps that are taken after it."""

from __future__ import annotations

from typing import Any

import pytest

from transferscope.training.together import Together
from transferscope.training.trainee import Alone


class KilledError(Exception):
    """Stands for a process that ends here."""


def fail_at(owner: Any, name: str, call: int, *, after: bool = False, monkeypatch: pytest.MonkeyPatch) -> None:
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


def note_steps(trainee: type[Alone] | type[Together], patch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The number of runs, the epoch and the step of each optimizer step that is taken from now on."""
    taken: list[tuple[int, int, int]] = []
    original = trainee.take_step

    def noted(self: Any, epoch: int, step: int, *args: Any) -> Any:
        taken.append((len(self.members), epoch, step))
        return original(self, epoch, step, *args)

    patch.setattr(trainee, "take_step", noted)
    return taken
