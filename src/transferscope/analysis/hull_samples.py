"""Points and rays of a convex hull of checkpoints, as coefficients of the checkpoints."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc


def sample_points(
    generator: np.random.Generator, num_states: int, num_points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Barycentric coordinates (num_points, num_states) and their weights, which sum to 1."""
    if num_states > 2:
        return uniform_on_simplex(_stratified(generator, num_points, num_states - 1)), np.full(
            num_points, 1 / num_points
        )
    alphas = np.linspace(0, 1, num_points)
    weights = np.full(num_points, 1.0)
    weights[[0, -1]] = 0.5
    return np.column_stack([1 - alphas, alphas]), weights / weights.sum()


def _stratified(generator: np.random.Generator, num: int, dimensions: int) -> NDArray[np.float64]:
    return np.asarray(qmc.LatinHypercube(dimensions, rng=generator).random(num))


def uniform_on_simplex(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Uniform points of the unit cube (num, d) as uniform points of the simplex (num, d + 1): gaps between them."""
    edges = np.pad(np.sort(draws, axis=1), ((0, 0), (1, 1)))
    edges[:, -1] = 1.0
    return np.diff(edges, axis=1)


@dataclass(frozen=True)
class Ray:
    """The point where the ray leaves the hull, its direction in coefficients, and how its end is displaced."""

    exit: NDArray[np.float64]
    direction: NDArray[np.float64]
    noise_seed: int
    num_lengths: int


def sample_rays(generator: np.random.Generator, num_states: int, num_rays: int) -> list[Ray]:
    """Of two checkpoints the rays that leave at the first come first, then as many at the second."""
    if num_states == 2:
        half, ends = math.ceil(num_rays / 2), np.eye(2)
        return [
            Ray(ends[end], ends[end] - ends[1 - end], int(generator.integers(2**62)), min(max(half, 3), 8))
            for end in (0, 1)
            for _ in range(half)
        ]
    draws = _stratified(generator, num_rays, 2 * (num_states - 1))
    starts, through = (uniform_on_simplex(part) for part in np.split(draws, 2, axis=1))
    return [
        Ray(last_inside(start, end), end - start, int(generator.integers(2**62)), 3)
        for start, end in zip(starts, through, strict=True)
    ]


@functools.cache
def half_normal_quadrature(num: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights of E f(|v|), v ~ N(0, 1), exact for polynomials f of degree 2 num - 1.

    The orthogonal polynomials of the half-normal density by Stieltjes' procedure on a fine grid, then Golub and Welsch.
    """
    points, measure = np.polynomial.legendre.leggauss(400)
    points, measure = 7 * (points + 1), measure * np.exp(-np.square(7 * (points + 1)) / 2)
    measure /= measure.sum()
    before, current = np.zeros_like(points), np.ones_like(points)
    diagonal, squares = [], []
    for degree in range(num):
        norm = (measure * current**2).sum()
        diagonal.append((measure * points * current**2).sum() / norm)
        squares.append(norm / (measure * before**2).sum() if degree else 0.0)
        before, current = current, (points - diagonal[-1]) * current - squares[-1] * before
    beside = np.sqrt(squares[1:])
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return tuple(zip(nodes.tolist(), np.square(vectors[0]).tolist(), strict=True))


def last_inside(start: NDArray[np.float64], through: NDArray[np.float64]) -> NDArray[np.float64]:
    """The last point of the ray from `start` through `through` that is in the simplex (barycentric coordinates)."""
    direction = through - start
    falling = direction < 0
    if not falling.any():
        return through
    length = np.min(start[falling] / -direction[falling])
    point = np.clip(start + length * direction, 0, None)
    return point / point.sum()
