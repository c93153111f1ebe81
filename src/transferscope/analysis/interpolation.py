"""Weights on the straight line between two models, and metrics along it (Figures 12 to 29 of the paper)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from transferscope.analysis.barriers import barrier
from transferscope.analysis.content import Combinations
from transferscope.analysis.evaluator import Evaluate, Metrics
from transferscope.analysis.states import (
    State,
    check_same_tensors,
    describe_nonfinite,
    nonfinite_tensors,
    stored_like,
    widened,
)
from transferscope.system.errors import UserError

__all__ = [
    "alpha_grid",
    "barrier",
    "blend",
    "coarse_first",
    "interpolate",
    "interpolate_into",
    "trace",
    "walk",
]

logger = logging.getLogger(__name__)


def interpolate(state_a: State, state_b: State, alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) a + alpha b for every floating-point tensor; alpha may lie outside [0, 1].

    alpha 0 and 1 give the very values of a and b, and equal tensors stay equal at every alpha. Swapping a and b and
    putting 1 - alpha for alpha gives the same bits. Integer tensors (counters of BatchNorm) come from the nearer end.
    Non-finite weights stay non-finite and are named in a warning. Returns new tensors, in float32 at least and in
    float64 where a or b is. UserError lists the tensors where the states are not of one architecture.
    """
    _check_ends(state_a, state_b, alpha)
    for state, name in ((state_a, "a"), (state_b, "b")):
        _warn_nonfinite(state, name)
    return {key: blend(tensor, state_b[key], alpha) for key, tensor in state_a.items()}


@torch.no_grad()
def interpolate_into(model: nn.Module, state_a: State, state_b: State, alpha: float) -> None:
    """Write `interpolate(state_a, state_b, alpha)` into the model's own tensors, without new storage.

    Compiled graphs and the memory format stay valid. Fastest where the states lie as the model's tensors do
    (`states.stored_like`).
    """
    _check_ends(state_a, state_b, alpha)
    own = model.state_dict()
    check_same_tensors(own, state_a, "the model", "the checkpoints")
    for key, target in own.items():
        start, end = state_a[key], state_b[key]
        direct = target.dtype == start.dtype == end.dtype and target.device == start.device == end.device
        if direct and alpha not in (0, 1) and widened(target) is target and target.is_floating_point():
            _mix(start, end, alpha, target)
        else:
            target.copy_(blend(start, end, alpha))


def blend(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    """`interpolate` for one tensor, unchecked."""
    if not start.is_floating_point():
        return (start if alpha < 0.5 else end).detach().clone()
    start, end = widened(start.detach()), widened(end.detach().to(start.device))
    dtype = torch.promote_types(start.dtype, end.dtype)
    start, end = start.to(dtype), end.to(dtype)
    if alpha in (0, 1):
        return (end if alpha else start).clone()
    return _mix(start, end, alpha, torch.empty_like(start))


def _mix(start: Tensor, end: Tensor, alpha: float, out: Tensor) -> Tensor:
    """The nearer end plus a part of the difference, rounded alike whichever end is called a."""
    if alpha == 0.5:
        return torch.add(start, end, out=out).mul_(0.5)
    if alpha < 0.5:
        return torch.lerp(start, end, alpha, out=out)
    return torch.lerp(end, start, round(1 - alpha, 15), out=out)


def _check_ends(state_a: State, state_b: State, alpha: float) -> None:
    if not math.isfinite(alpha):
        raise UserError(f"alpha is {alpha}: give a finite number, 0 for the first checkpoint and 1 for the second")
    check_same_tensors(state_a, state_b, "checkpoint a", "checkpoint b")


def _warn_nonfinite(state: State, name: str) -> None:
    if fault := describe_nonfinite(state, f"checkpoint {name}"):
        logger.warning("%s: what is measured there is NaN", fault)


def alpha_grid(low: float, high: float, num: int) -> list[float]:
    """`num` evenly spaced alphas, with 0, .5 and 1 exact where the grid meets them (plain floats may miss by 1e-16)."""
    if num < 2 or not low < high:
        raise UserError(f"a grid of {num} alphas from {low} to {high}: give at least 2 and low < high")
    return [round(low + (high - low) * step / (num - 1), 12) for step in range(num)]


def coarse_first(count: int) -> list[int]:
    """An order of 0 … count-1 that begins with both ends and halves the gaps: early answers, refined as it runs."""
    steps = [2**power for power in range(max(count - 1, 1).bit_length(), -1, -1)]
    indices = [0, count - 1, *(index for step in steps for index in range(0, count, step))]
    return list(dict.fromkeys(indices)) if count else []


def walk(
    model: nn.Module,
    state_a: State,
    state_b: State,
    alphas: Iterable[float],
    evaluate: Evaluate,
    *,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """`trace` as a table of numbers: columns alpha, metric, value, in the order of `alphas`."""
    alphas = [float(alpha) for alpha in alphas]
    advance = (lambda alpha, metrics: progress(1)) if progress else None
    measured = trace(model, state_a, state_b, alphas, evaluate, seen=advance)
    rows = [(alpha, metric, float(value)) for alpha in alphas for metric, value in measured[alpha].items()]
    return pd.DataFrame(rows, columns=["alpha", "metric", "value"])


def trace(
    model: nn.Module,
    state_a: State,
    state_b: State,
    alphas: Iterable[float],
    evaluate: Evaluate,
    *,
    seen: Callable[[float, Metrics], None] | None = None,
) -> dict[float, Metrics]:
    """Metrics of the weights at every alpha, by alpha.

    `model` is the workspace: its weights are overwritten in place and stay at the last point measured. `evaluate`
    maps it to named metrics, at the ends as between them. The points are measured coarse first, each once;
    `seen(alpha, metrics)` is called after each. Where an end that takes part in a point has non-finite weights, its
    metrics are NaN and the log names the tensors: the arg-max of NaN logits is no accuracy.
    """
    alphas = [float(alpha) for alpha in alphas]
    if not alphas:
        raise UserError("alphas is empty: give at least one, for example 0, 0.5 and 1")
    _check_ends(state_a, state_b, alphas[0])
    line = _Line(model, stored_like(state_a, model), stored_like(state_b, model), evaluate)
    measured: dict[float, Metrics] = {}
    for index in coarse_first(len(alphas)):
        alpha = alphas[index]
        if alpha not in measured:
            measured[alpha] = line.measure(alpha)
        if seen:
            seen(alpha, measured[alpha])
    return measured


class _Line:
    """The model as it moves between two states; knows which ends are finite."""

    def __init__(self, model: nn.Module, state_a: State, state_b: State, evaluate: Evaluate) -> None:
        self.model, self.state_a, self.state_b, self.evaluate = model, state_a, state_b, evaluate
        self.finite_a, self.finite_b = not nonfinite_tensors(state_a), not nonfinite_tensors(state_b)
        self.names = Combinations("line", model, (state_a, state_b))
        _warn_nonfinite(state_a, "a")
        _warn_nonfinite(state_b, "b")

    def measure(self, alpha: float) -> Metrics:
        interpolate_into(self.model, self.state_a, self.state_b, alpha)
        self.names.name((1 - alpha, alpha))
        metrics = self.evaluate(self.model)
        finite = (self.finite_a or alpha == 1) and (self.finite_b or alpha == 0)
        return metrics if finite else {name: np.full_like(value, np.nan) for name, value in metrics.items()}
