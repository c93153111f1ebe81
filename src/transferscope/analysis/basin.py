"""Is it one basin? (epsilon, delta) of Definition 3.1 by sampling, and its border along a line (Figure 18)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from transferscope.analysis.barriers import Interval, higher_is_better
from transferscope.analysis.evaluation import Evaluate
from transferscope.analysis.states import State, check_same_tensors, nonfinite_tensors, stored_like
from transferscope.system.errors import UserError

TABLE = ["condition", "delta", "excess", "low", "high", "threshold", "num_samples"]


@dataclass(frozen=True)
class Basin:
    """What sampling found about the convex hull of some checkpoints.

    center: mu, the mean loss over the hull. epsilon: the mean absolute deviation from it, condition (1).
    delta: the smallest of the tried lengths at which the mean excess loss reaches 2 epsilon both for noise of that
    expected length, condition (2), and for a step of that length outward along the ray, condition (3); infinite where
    none of them is enough. excess: the table behind delta, a row per condition and length.
    """

    metric: str
    center: Interval
    epsilon: Interval
    delta: float
    excess: pd.DataFrame


def estimate_basin(
    model: nn.Module,
    states: Sequence[State],
    evaluate: Evaluate,
    deltas: Sequence[float],
    *,
    metric: str = "loss",
    num_points: int = 32,
    num_rays: int = 32,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Callable[[int], None] | None = None,
) -> Basin:
    """Estimate (epsilon, delta) of Definition 3.1 with S = the convex hull of two or more checkpoints.

    Uniform on S means: weights w = sum_i c_i w_i with c uniform on the simplex (Dirichlet(1, …, 1); for two checkpoints
    alpha uniform on [0, 1]). That is the uniform measure on the hull where the checkpoints are affinely independent.
    The pairs (w1, w2) of conditions (2) and (3) are independent draws of the same kind, f(w1, w2) is where the ray from
    w1 through w2 leaves the simplex. v of condition (2) is N(0, (delta²/n) I) over the n parameters, buffers excluded;
    the step of condition (3) has length |v|, v ~ N(0, delta²), and all tried deltas share the same underlying draws.
    The text (facts.md, Definition 3.1) asks each condition for given (epsilon, delta); we report the smallest epsilon
    that satisfies (1) and, for it, the smallest tried delta that satisfies (2) and (3).

    evaluate: model -> metrics, where `metric` must be one that is lower when better (a loss or an error). Costs
    num_points + 2 num_rays len(deltas) evaluations; `progress(1)` after each. Intervals are percentile bootstraps over
    the sampled points or rays, for these examples and this hull. `model` is the workspace.
    """
    deltas = sorted(float(delta) for delta in deltas)
    _check(states, deltas, metric, num_points, num_rays)
    hull = _Hull(model, states, evaluate, metric, progress)
    generator = np.random.default_rng(seed)
    inside = np.array([hull.loss(c) for c in generator.dirichlet(np.ones(len(states)), num_points)])
    center, epsilon = _center_and_epsilon(inside, confidence, seed)
    excess = pd.DataFrame(columns=TABLE)
    if deltas:
        rays = [_Ray.draw(generator, len(states)) for _ in range(num_rays)]
        rows = [row for ray in rays for row in hull.leave(ray, deltas)]
        excess = _excess_table(rows, inside, confidence, seed)
    return Basin(metric, center, epsilon, smallest_delta(excess), excess)


def _check(states: Sequence[State], deltas: Sequence[float], metric: str, num_points: int, num_rays: int) -> None:
    if len(states) < 2:
        raise UserError(f"a hull of {len(states)} checkpoints: give two or more")
    if higher_is_better(metric):
        raise UserError(f"metric {metric!r} is higher when better: a basin is defined for a loss or an error")
    if num_points < 2 or num_rays < 1:
        raise UserError(f"num_points {num_points}, num_rays {num_rays}: give at least 2 points and 1 ray")
    if deltas and deltas[0] <= 0:
        raise UserError(f"deltas {deltas}: lengths must be above 0")
    for index, state in enumerate(states[1:], start=1):
        check_same_tensors(states[0], state, "checkpoint 0", f"checkpoint {index}")
    for index, state in enumerate(states):
        if found := nonfinite_tensors(state):
            raise UserError(
                f"checkpoint {index} has non-finite weights in {found[0]}: it lies in no basin, leave it out"
            )


@dataclass(frozen=True)
class _Ray:
    """Where the ray leaves the hull, its direction in coefficients, and the draws that displace its end."""

    exit: NDArray[np.float64]
    direction: NDArray[np.float64]
    step: float
    """|v| for v ~ N(0, 1)."""
    noise_seed: int

    @staticmethod
    def draw(generator: np.random.Generator, num_states: int) -> _Ray:
        start, through = generator.dirichlet(np.ones(num_states), 2)
        return _Ray(
            last_inside(start, through),
            through - start,
            abs(generator.standard_normal()),
            int(generator.integers(2**62)),
        )


def last_inside(start: NDArray[np.float64], through: NDArray[np.float64]) -> NDArray[np.float64]:
    """The last point of the ray from `start` through `through` that is in the simplex (barycentric coordinates)."""
    direction = through - start
    falling = direction < 0
    if not falling.any():
        return through
    length = np.min(start[falling] / -direction[falling])
    point = np.clip(start + length * direction, 0, None)
    return point / point.sum()


class _Hull:
    """Writes affine combinations of the checkpoints, possibly displaced, into the model and measures the loss."""

    def __init__(
        self,
        model: nn.Module,
        states: Sequence[State],
        evaluate: Evaluate,
        metric: str,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.states = [stored_like(state, model) for state in states]
        self.model, self.evaluate, self.metric, self.progress = model, evaluate, metric, progress
        parameters = dict(model.named_parameters())
        self.own = model.state_dict()
        self.moved = [key for key, tensor in self.own.items() if key in parameters and tensor.is_floating_point()]
        self.num_weights = sum(self.own[key].numel() for key in self.moved)

    def loss(self, coefficients: NDArray[np.float64]) -> float:
        self._write(coefficients)
        return self._measure()

    def leave(self, ray: _Ray, deltas: Sequence[float]) -> Iterator[tuple[str, float, float]]:
        """(condition, delta, loss) at the ray's end, displaced by noise and by a step outward."""
        unit = ray.direction / self._length(ray.direction)
        for delta in deltas:
            self._write(ray.exit)
            self._shake(ray.noise_seed, delta / math.sqrt(self.num_weights))
            yield "noise", delta, self._measure()
            self._write(ray.exit + delta * ray.step * unit)
            yield "ray", delta, self._measure()

    def _measure(self) -> float:
        metrics = self.evaluate(self.model)
        if self.metric not in metrics:
            raise UserError(f"evaluate gives no metric {self.metric!r}, only {', '.join(metrics)}")
        if self.progress:
            self.progress(1)
        return float(metrics[self.metric])

    @torch.no_grad()
    def _write(self, coefficients: NDArray[np.float64]) -> None:
        nearest = int(np.argmax(coefficients))
        for key, target in self.own.items():
            tensors = [state[key] for state in self.states]
            if target.is_floating_point():
                target.copy_(combine(tensors, coefficients))
            else:
                target.copy_(tensors[nearest])

    @torch.no_grad()
    def _shake(self, seed: int, sigma: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        for key in self.moved:
            noise = torch.randn(self.own[key].shape, generator=generator).to(self.own[key].device)
            self.own[key].add_(noise, alpha=sigma)

    def _length(self, direction: NDArray[np.float64]) -> float:
        """l2 length over the parameters of sum_i d_i w_i, where the d_i sum to 0."""
        squares = 0.0
        for key in self.moved:
            terms = (d * state[key].double() for d, state in zip(direction.tolist(), self.states, strict=True))
            squares += torch.stack(list(terms)).sum(dim=0).square().sum().item()
        if squares == 0:
            raise UserError("the checkpoints are equal: their hull is a point without rays; give different ones")
        return math.sqrt(squares)


def combine(tensors: Sequence[Tensor], coefficients: NDArray[np.float64]) -> Tensor:
    """sum_i c_i tensor_i, where the c_i sum to 1: equal tensors stay equal, a coefficient of 0 leaves no trace.

    Computed in float32 at least.
    """
    nearest = int(np.argmax(coefficients))
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    wide = [tensor.detach().to(dtype) for tensor in tensors]
    total = wide[nearest].clone()
    for index, (tensor, coefficient) in enumerate(zip(wide, coefficients, strict=True)):
        if index != nearest and coefficient != 0:
            total.add_(tensor - wide[nearest], alpha=float(coefficient))
    return total


def _center_and_epsilon(losses: NDArray[np.float64], confidence: float, seed: int) -> tuple[Interval, Interval]:
    samples = np.random.default_rng([seed, 1]).choice(losses, (2000, len(losses)))
    means = samples.mean(axis=1)
    spreads = np.abs(samples - means[:, None]).mean(axis=1)
    epsilon = float(np.abs(losses - losses.mean()).mean())
    return (
        _interval(float(losses.mean()), means, confidence, len(losses)),
        _interval(epsilon, spreads, confidence, len(losses)),
    )


def _excess_table(
    rows: Sequence[tuple[str, float, float]], inside: NDArray[np.float64], confidence: float, seed: int
) -> pd.DataFrame:
    """Mean loss outside minus mu, with intervals, beside the 2 epsilon that it must reach."""
    threshold = 2 * float(np.abs(inside - inside.mean()).mean())
    generator = np.random.default_rng([seed, 2])
    table = []
    measured = pd.DataFrame(rows, columns=["condition", "delta", "loss"])
    for (condition, delta), part in measured.groupby(["condition", "delta"], sort=True):
        losses = part["loss"].to_numpy()
        outside = generator.choice(losses, (2000, len(losses))).mean(axis=1)
        centers = generator.choice(inside, (2000, len(inside))).mean(axis=1)
        found = _interval(float(losses.mean() - inside.mean()), outside - centers, confidence, len(losses))
        table.append((condition, delta, found.value, found.low, found.high, threshold, len(losses)))
    return pd.DataFrame(table, columns=TABLE)


def smallest_delta(excess: pd.DataFrame) -> float:
    """The smallest delta at which every condition reaches its threshold; infinite where none does."""
    reached = (excess["excess"] >= excess["threshold"]).groupby(excess["delta"]).all()
    good = reached.index[reached]
    return float(good.min()) if len(good) else math.inf


def _interval(value: float, draws: NDArray[np.float64], confidence: float, num: int) -> Interval:
    low, high = np.percentile(draws, [50 * (1 - confidence), 50 * (1 + confidence)])
    return Interval(value, float(low), float(high), num)


@dataclass(frozen=True)
class LineBoundary:
    """Where a curve over alpha first leaves the tolerance on either side of the checkpoints at 0 and 1.

    low is at or below 0, high at or above 1; -inf or inf where the curve stays within tolerance as far as it was
    measured. connected: whether it stays within tolerance between the ends; without it there is no common basin.
    """

    low: float
    high: float
    connected: bool


def line_boundary(alphas: ArrayLike, values: ArrayLike, tolerance: float, *, higher_is_better: bool) -> LineBoundary:
    """The one-dimensional basin of Figure 18: where the metric is worse than the nearer end by more than `tolerance`.

    Below 0 the reference is the value at 0, above 1 that at 1, between them the chord. The crossing is interpolated
    linearly between measured alphas. NaN counts as worse. UserError without alpha 0 and 1, or for a negative tolerance.
    """
    points, curve = np.asarray(alphas, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if points.ndim != 1 or points.shape != curve.shape:
        raise UserError(f"{points.shape} alphas but {curve.shape} values: give one value per alpha")
    if tolerance < 0:
        raise UserError(f"tolerance is {tolerance}: give 0 or more, in the metric's unit")
    points = points.round(9) + 0.0
    order = np.argsort(points, kind="stable")
    points, curve = points[order], curve[order]
    if 0 not in points or 1 not in points:
        raise UserError("the boundary is measured against the checkpoints: add 0 and 1 to alphas")
    ends = curve[[int(np.flatnonzero(points == end)[0]) for end in (0, 1)]]
    reference = np.interp(points, [0.0, 1.0], ends)
    worse = (reference - curve if higher_is_better else curve - reference) - tolerance
    inside = (points >= 0) & (points <= 1)
    left, right = points <= 0, points >= 1
    return LineBoundary(
        low=_first_crossing(points[left][::-1], worse[left][::-1], -math.inf),
        high=_first_crossing(points[right], worse[right], math.inf),
        connected=bool((worse[inside] <= 0).all()),
    )


def _first_crossing(points: NDArray[np.float64], worse: NDArray[np.float64], never: float) -> float:
    """Where `worse` first rises above 0 going outward from an end."""
    for index in range(1, len(points)):
        if math.isfinite(worse[index]) and worse[index] <= 0:
            continue
        near, far = worse[index - 1], worse[index]
        part = near / (near - far) if math.isfinite(far) else 0.0
        return float(points[index - 1] + part * (points[index] - points[index - 1]))
    return never
