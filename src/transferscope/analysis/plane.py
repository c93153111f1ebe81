"""The affine plane through three models: coordinates, weights at a point, metrics on a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from transferscope.analysis.basin import combine
from transferscope.analysis.content import Combinations
from transferscope.analysis.evaluator import Evaluate
from transferscope.analysis.states import State, TensorKinds, check_same_tensors, stored_like
from transferscope.system.errors import UserError


class Plane:
    """Orthonormal coordinates on the plane through three checkpoints, in units of l2 distance over their weights.

    The first checkpoint is the origin, the x axis goes through the second, the third has y > 0. Weights count, running
    statistics of BatchNorm do not; kinds says which tensors are which (`TensorKinds.of_model`), by their names where it
    is not given. UserError where the three lie on a line, or are not of one architecture.
    """

    def __init__(self, origin: State, second: State, third: State, *, kinds: TensorKinds | None = None) -> None:
        check_same_tensors(origin, second, "the first checkpoint", "the second checkpoint")
        check_same_tensors(origin, third, "the first checkpoint", "the third checkpoint")
        self.states = (origin, second, third)
        weights = (kinds or TensorKinds.of_state(origin)).weights
        self.keys = [key for key in origin if key in weights]
        self.length = math.sqrt(self._inner(second, second))
        along = self._inner(third, second) / self.length if self.length else 0.0
        self.slant = along
        height_squared = self._inner(third, third) - along**2
        if self.length == 0 or not height_squared > 1e-12 * max(self._inner(third, third), self.length**2):
            raise UserError("the three checkpoints lie on one line (or hold non-finite weights): they span no plane")
        self.height = math.sqrt(height_squared)

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """Coordinates of the three checkpoints."""
        return (0.0, 0.0), (self.length, 0.0), (self.slant, self.height)

    def coefficients(self, x: float, y: float) -> tuple[float, float, float]:
        """Barycentric coordinates of (x, y); exactly 1, 0, 0 and so on at the checkpoints."""
        if (x, y) in self.points:
            index = self.points.index((x, y))
            return tuple(float(i == index) for i in range(3))  # type: ignore[return-value]
        third = y / self.height
        second = (x - third * self.slant) / self.length
        return 1 - second - third, second, third

    def state(self, x: float, y: float) -> dict[str, Tensor]:
        """The weights at (x, y); integer tensors come from the checkpoint that weighs most."""
        return _combine_states(self.states, self.coefficients(x, y))

    def project(self, state: State) -> tuple[float, float, float]:
        """(x, y) of the point of the plane nearest to `state`, and the distance from it."""
        check_same_tensors(self.states[0], state, "the plane's checkpoints", "the state")
        x = self._inner(state, self.states[1]) / self.length
        y = (self._inner(state, self.states[2]) - x * self.slant) / self.height
        return x, y, math.sqrt(max(self._inner(state, state) - x**2 - y**2, 0.0))

    def _inner(self, state_a: State, state_b: State) -> float:
        """<a - origin, b - origin> in float64."""
        origin = self.states[0]
        products = [
            torch.dot(
                (state_a[key].double() - origin[key].double()).flatten(),
                (state_b[key].double() - origin[key].double()).flatten(),
            )
            for key in self.keys
        ]
        return torch.stack(products).sum().item()

    def grid(self, num: int = 15, margin: float = 0.3) -> tuple[list[float], list[float]]:
        """x and y values that cover the three checkpoints and a margin, as a fraction of the extent, on every side."""
        if num < 2 or margin < 0:
            raise UserError(
                f"a grid of {num} points a side with margin {margin}: give at least 2, and a margin of 0 or more"
            )
        axes = []
        for axis in range(2):
            values = [point[axis] for point in self.points]
            extra = margin * (max(values) - min(values))
            axes.append(np.linspace(min(values) - extra, max(values) + extra, num).tolist())
        return axes[0], axes[1]


def _combine_states(states: Iterable[State], coefficients: tuple[float, ...]) -> dict[str, Tensor]:
    states, weights = list(states), np.asarray(coefficients)
    nearest = states[int(weights.argmax())]
    return {
        key: combine([state[key] for state in states], weights) if tensor.is_floating_point() else nearest[key].clone()
        for key, tensor in states[0].items()
    }


def evaluate_plane(
    model: nn.Module,
    plane: Plane,
    x_values: Iterable[float],
    y_values: Iterable[float],
    evaluate: Evaluate,
    *,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Metrics on the grid and at the three checkpoints themselves: columns x, y, point, metric, value.

    `point` is "a", "b", "c" at the checkpoints and "" on the grid. `model` is the workspace.
    """
    grid = [(x, y, "") for y, x in product(list(y_values), list(x_values))]
    marked = [(*place, name) for place, name in zip(plane.points, "abc", strict=True)]
    if not grid:
        raise UserError("the grid is empty: give at least one x and one y")
    states = [stored_like(state, model) for state in plane.states]
    names = Combinations("affine", model, states)
    own, rows = model.state_dict(), []
    for x, y, point in [*marked, *grid]:
        coefficients = plane.coefficients(x, y)
        values = _combine_states(states, coefficients)
        for key, target in own.items():
            target.copy_(values[key])
        names.name(coefficients)
        rows += [(x, y, point, metric, float(value)) for metric, value in evaluate(model).items()]
        if progress:
            progress(1)
    return pd.DataFrame(rows, columns=["x", "y", "point", "metric", "value"])
