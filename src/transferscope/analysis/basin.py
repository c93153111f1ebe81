"""Measure whether models lie in one basin: (epsilon, delta) of Definition 3.1 for the hull of their weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transferscope.analysis.barriers import Interval, higher_is_better
from transferscope.analysis.content import Combinations, content_of, derived, name_content
from transferscope.analysis.evaluator import Evaluate
from transferscope.analysis.hull_samples import Ray, half_normal_quadrature, sample_points, sample_rays
from transferscope.analysis.intervals import skewed_interval
from transferscope.analysis.states import State, check_same_tensors, nonfinite_tensors, stored_like
from transferscope.system.errors import UserError
from transferscope.system.renamed import renamed_object

TABLE = ["condition", "delta", "excess", "low", "high", "threshold", "num_samples"]
CONDITIONS = ("noise", "ray")

Losses = NDArray[np.float64]
"""The loss on all examples, then under every resample of them."""


@dataclass(frozen=True)
class Basin:
    """Measurements of the convex hull of some checkpoints.

    center: mu, the mean loss over the hull. epsilon: the mean absolute deviation from it, condition (1), which tells
    hulls in one basin from others. delta: the smallest length at which the mean excess loss reaches 2 epsilon both for
    noise of that expected length, condition (2), and for a displacement of that length outward along the ray, (3), with
    its interval; 0 where the rim itself is that high, infinite where no length is. excess: the table behind delta,
    a row per condition and length, the rim (length 0) included. num_states: of two, the hull is a segment and its rim
    the two checkpoints, so that at length 0 their own loss is compared with the mean between them.

    In 1,000 simulations the intervals over examples of a bowl with skewed losses hold mu in 94 to 95 % and epsilon in
    92 % (100 examples) and 95 % (500), and those over draws hold delta in 97 %.
    """

    metric: str
    center: Interval
    epsilon: Interval
    delta: Interval
    excess: pd.DataFrame
    num_states: int


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
    num_refinements: int = 3,
    progress: Callable[[int], None] | None = None,
) -> Basin:
    """Estimate (epsilon, delta) of Definition 3.1 with S = the convex hull of two or more checkpoints.

    Uniform on S means: weights w = sum_i c_i w_i with c uniform on the simplex, which is the uniform measure on the
    hull where the checkpoints are affinely independent. The pairs (w1, w2) of conditions (2) and (3) are independent
    and of the same kind, f(w1, w2) is where the ray from w1 through w2 leaves the simplex. v of condition (2) is
    N(0, (delta²/n) I) over the n parameters, buffers excluded; the displacement of condition (3) has length |v|, v ~
    N(0, delta²), and all lengths share the same underlying draws.

    Two checkpoints: the hull is integrated on an even grid of num_points (trapezoids), every ray leaves at one of the
    checkpoints, num_rays / 2 at each. More checkpoints: points and rays come from Latin hypercubes. The expectation
    over |v| of condition (3) is a Gauss quadrature along each ray, of 3 nodes, for two checkpoints up to 8.

    The text (facts.md, Definition 3.1) asks each condition for given (epsilon, delta); we report the smallest epsilon
    that satisfies (1) and, for it, the smallest delta that satisfies (2) and (3). Every convex set is a basin for a
    pair that is large enough, so a large epsilon, not the lack of a delta, says that a hull is none. `deltas` are
    lengths to begin with; where none is enough the largest is doubled, up to 6 times, and the smallest that is
    enough is narrowed down by num_refinements halvings, between which the excess is interpolated linearly.

    evaluate: model -> metrics, where `metric` must be one that is lower when better (a loss or an error): a number, or
    the number and then its values under resamples of the examples. Intervals are bootstraps over the draws and, where
    there are resamples, over the examples. Costs num_points and per length 2 num_rays evaluations, 4 num_rays for more
    than two checkpoints; `progress(1)` after each. `model` is the workspace.
    """
    deltas = sorted(float(delta) for delta in deltas)
    _check(states, deltas, metric, num_points, num_rays)
    hull = _Hull(model, states, evaluate, metric, progress)
    generator = np.random.default_rng(seed)
    points, weights = sample_points(generator, len(states), num_points)
    inside = np.stack([hull.loss(point) for point in points])
    rays = sample_rays(generator, len(states), num_rays) if deltas else []
    bootstrap = _Bootstrap(inside, weights, rays, len(states) == 2, seed)
    walls = _Walls(hull, rays, bootstrap)
    for delta in [0.0, *deltas] if deltas else []:
        walls.measure(delta)
    if deltas:
        walls.narrow_down(num_refinements)
    epsilon = _interval(bootstrap.epsilons, confidence, len(points))
    epsilon = replace(epsilon, low=max(epsilon.low, 0.0))  # it cannot be below 0
    return Basin(
        metric,
        _interval(bootstrap.centers, confidence, len(points)),
        epsilon,
        walls.delta(confidence) if deltas else Interval(math.inf, 0.0, math.inf, 0),
        walls.table(confidence),
        len(states),
    )


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
        if names := nonfinite_tensors(state):
            raise UserError(
                f"checkpoint {index} has non-finite weights in {names[0]}: it lies in no basin, leave it out"
            )


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
        self.names = Combinations("affine", model, self.states)
        self.model, self.evaluate, self.metric, self.progress = model, evaluate, metric, progress
        parameters = dict(model.named_parameters())
        self.own = model.state_dict()
        self.moved = [key for key, tensor in self.own.items() if key in parameters and tensor.is_floating_point()]
        self.num_weights = sum(self.own[key].numel() for key in self.moved)
        self._measured: dict[bytes, Losses] = {}

    def loss(self, coefficients: NDArray[np.float64]) -> Losses:
        """At a point of the hull, measured once."""
        key = coefficients.tobytes()
        if key not in self._measured:
            self._write(coefficients)
            self._measured[key] = self._measure()
        return self._measured[key]

    def leave(self, ray: Ray, delta: float) -> tuple[Losses, Losses]:
        """At the ray's end, displaced by noise and outward."""
        if delta == 0:
            return self.loss(ray.exit), self.loss(ray.exit)
        self._write(ray.exit)
        self._add_noise(ray.noise_seed, delta / math.sqrt(self.num_weights))
        noise = self._measure()
        unit = ray.direction / self._length(ray.direction)
        lengths = half_normal_quadrature(ray.num_lengths)
        return noise, sum(
            (weight * self.loss(ray.exit + delta * length * unit) for length, weight in lengths), np.zeros(1)
        )

    def _measure(self) -> Losses:
        metrics = self.evaluate(self.model)
        if self.metric not in metrics:
            raise UserError(f"evaluate gives no metric {self.metric!r}, only {', '.join(metrics)}")
        if self.progress:
            self.progress(1)
        return np.atleast_1d(np.asarray(metrics[self.metric], dtype=np.float64))

    @torch.no_grad()
    def _write(self, coefficients: NDArray[np.float64]) -> None:
        nearest = int(np.argmax(coefficients))
        for key, target in self.own.items():
            tensors = [state[key] for state in self.states]
            if target.is_floating_point():
                target.copy_(combine(tensors, coefficients))
            else:
                target.copy_(tensors[nearest])
        self.names.name(coefficients.tolist())

    @torch.no_grad()
    def _add_noise(self, seed: int, sigma: float) -> None:
        generator, before = torch.Generator().manual_seed(seed), content_of(self.model)
        for key in self.moved:
            noise = torch.randn(self.own[key].shape, generator=generator).to(self.own[key].device)
            self.own[key].add_(noise, alpha=sigma)
        name_content(self.model, derived("noise", before, seed, sigma))

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


_DRAWS = 1000
"""Bootstrap samples where the loss comes without resamples of the examples."""


class _Bootstrap:
    """Resamples of what was drawn, together with those of the examples; index 0 is everything as it is.

    The grid of a segment is not drawn, so it is not resampled; its rays are at each end apart.
    """

    def __init__(
        self, inside: Losses, weights: NDArray[np.float64], rays: Sequence[Ray], segment: bool, seed: int
    ) -> None:
        generator = np.random.default_rng([seed, 1])
        self.num = inside.shape[1] if inside.shape[1] > 1 else 1 + _DRAWS
        points = np.tile(weights, (self.num, 1))
        if not segment:
            size = len(weights) - 1
            points[1:] = generator.multinomial(size, weights, self.num - 1) / size
        losses = self.spread(inside)
        self.centers = np.einsum("bp,pb->b", points, losses)
        self.epsilons = np.einsum("bp,pb->b", points, np.abs(losses - self.centers))
        self.rays = np.full((self.num, len(rays)), 1 / max(len(rays), 1))
        for part in np.array_split(np.arange(len(rays)), 2 if segment else 1) if rays else []:
            # One draw less than there are, so that the spread is that of the mean (Rao and Wu 1988).
            size = max(len(part) - 1, 1)
            drawn = generator.multinomial(size, np.full(len(part), 1 / len(part)), self.num - 1)
            self.rays[1:, part] = drawn * len(part) / size / len(rays)

    def spread(self, losses: Losses) -> Losses:
        return losses if losses.shape[1] == self.num else np.repeat(losses, self.num, axis=1)

    def excess(self, losses: Losses) -> NDArray[np.float64]:
        """Mean loss over the rays minus mu, (num,); losses: (num_rays, 1 or num)."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.einsum("br,rb->b", self.rays, self.spread(losses)) - self.centers


class _Walls:
    """The excess loss outside the hull at every length that was measured."""

    def __init__(self, hull: _Hull, rays: Sequence[Ray], bootstrap: _Bootstrap) -> None:
        self.hull, self.rays, self.bootstrap = hull, rays, bootstrap
        self.excess: dict[float, dict[str, NDArray[np.float64]]] = {}

    def measure(self, delta: float) -> None:
        noise, ray = zip(*(self.hull.leave(ray, delta) for ray in self.rays), strict=True)
        self.excess[delta] = {
            "noise": self.bootstrap.excess(np.stack(noise)),
            "ray": self.bootstrap.excess(np.stack(ray)),
        }

    def narrow_down(self, num_refinements: int) -> None:
        """Measure further lengths around the smallest one that is enough."""
        for _ in range(_DOUBLINGS):
            if self._first_enough() is not None:
                break
            self.measure(2 * max(self.excess))
        for _ in range(num_refinements):
            enough = self._first_enough()
            if enough is None or enough == 0:
                return
            self.measure((max(delta for delta in self.excess if delta < enough) + enough) / 2)

    def _first_enough(self) -> float | None:
        return next((delta for delta in sorted(self.excess) if self._above(delta)), None)

    def _above(self, delta: float) -> bool:
        return all(bool(self.excess[delta][name][0] >= 2 * self.bootstrap.epsilons[0]) for name in CONDITIONS)

    def delta(self, confidence: float) -> Interval:
        lengths = np.array(sorted(self.excess))
        curves = np.stack([np.stack([self.excess[delta][name] for name in CONDITIONS]) for delta in lengths])
        smallest = smallest_delta(lengths, curves - 2 * self.bootstrap.epsilons)
        low, high = np.quantile(smallest, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
        # Between the two lengths that enclose it delta is interpolated, so the interval holds both.
        enough = self._first_enough()
        under = max((delta for delta in self.excess if enough is None or delta < enough), default=0.0)
        high = max(high, math.inf if enough is None else enough)
        return Interval(float(smallest[0]), float(min(low, under)), float(high), len(self.rays))

    def table(self, confidence: float) -> pd.DataFrame:
        rows = []
        for condition in CONDITIONS:
            for delta in sorted(self.excess):
                interval = _interval(self.excess[delta][condition], confidence, len(self.rays))
                threshold = 2 * self.bootstrap.epsilons[0]
                rows.append((condition, delta, interval.value, interval.low, interval.high, threshold, interval.num))
        return pd.DataFrame(rows, columns=TABLE)


_DOUBLINGS = 6


def smallest_delta(lengths: NDArray[np.float64], above: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest length at which every condition is met, for each of num draws; infinite where none is.

    lengths: (num_lengths,), rising. above: (num_lengths, num_conditions, num), excess minus threshold, linear between
    the lengths and constant beyond the last one; NaN counts as not met.
    """
    above = np.where(np.isnan(above), -np.inf, above)
    smallest = np.where((above[-1] >= 0).all(axis=0), lengths[-1], np.inf)
    for index in range(len(lengths) - 2, -1, -1):
        low, high = above[index], above[index + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = np.where(np.isinf(low) | np.isinf(high), 1.0, low / (low - high))
        begin = np.where(low >= 0, 0.0, np.where(high >= 0, crossing, np.inf)).max(axis=0)
        end = np.where(high >= 0, 1.0, np.where(low >= 0, crossing, -np.inf)).min(axis=0)
        with np.errstate(invalid="ignore"):
            at = lengths[index] + begin * (lengths[index + 1] - lengths[index])
        smallest = np.where(begin <= end, at, smallest)
    return smallest


def _interval(draws: NDArray[np.float64], confidence: float, num: int) -> Interval:
    """The value is the first of the draws; the bounds are `skewed_interval` by the rest."""
    value = float(draws[0])
    if not np.isfinite(draws).all():
        return Interval(value, np.nan, np.nan, num)
    return Interval(value, *skewed_interval(value, draws[1:], confidence), num)


def __getattr__(name: str) -> object:
    """Names that stood here in version 0.1."""
    if (known := renamed_object(__name__, name)) is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return known
