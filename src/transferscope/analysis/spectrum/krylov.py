"""The largest singular values of a linear map by filtered block Lanczos, to float64 accuracy.

Three things keep it quick. A Chebyshev polynomial of A^T A that is large above the wanted values and at most 1 below
them takes the place of A^T A, so that a small basis suffices. The basis grows in float32, where a convolution costs a
quarter of its float64 price: its span is what counts, since the values come from a projection of the float64 map onto
it (Rayleigh and Ritz), whose error is quadratic in that of the span. Residuals in float64 say when that is enough.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import acosh, cosh

import torch
from torch import Tensor

from transferscope.analysis.spectrum.linear_map import LinearMap

BLOCK = 4
"""Vectors that are mapped at once. Zero padding makes pairs of values that are equal to 1e-8: one vector finds one."""
GUARD = 8
"""Vectors beyond those asked for, which keep the projection's gap open."""
MAX_BASIS = 256
BASIS_BYTES = 384 * 2**20
"""The basis is restarted at the smaller of the two."""
MAX_MAPS = 4000
"""Applications of the map for one filter after which what there is is reported, with its error."""
GAIN = 10.0
"""Factor by which the filter favours the largest value over the unwanted ones."""
MAX_DEGREE = 16
SPAN_TOLERANCE = 3e-5
"""Error of the wanted vectors in the float32 basis."""
TOLERANCE = 7e-7
"""Error of a value, as a part of the largest one, that ends the refinement in float64."""
MAX_REFINEMENTS = 4
MAX_EDGES = 8
"""Number of times that the filter is lowered, where fewer values than wanted lie above its edge."""
REACHED = 1.02
"""The filtered value above which a vector is certainly one of the largest."""
PATIENCE = 60
"""Applications of the filter to a block after which a filter that lets too few values through is lowered."""
CHECKS = 6
"""Steps with a new random direction, by which further copies of a value show, before the basis is believed."""
CLOSE = 1e-3
"""Ritz values closer than this part of the largest one may mix."""


@dataclass(frozen=True)
class TopValues:
    """The largest singular values and their vectors."""

    values: Tensor
    """float64 (num,), descending."""
    vectors: Tensor
    """float64 (num, *shape of the map's smaller side), orthonormal."""
    errors: Tensor
    """float64 (num,): the estimated error of each value, from its residual and the gap below the found values."""
    num_maps: int
    """Applications of the map and its adjoint, each vector counted."""


class Gram:
    """A^T A or A A^T, the smaller of the two, on vectors (n, size) whose channels come last."""

    def __init__(self, linear: LinearMap) -> None:
        self.of_inputs = linear.num_inputs <= linear.num_outputs
        self.shape = linear.in_shape if self.of_inputs else linear.out_shape
        self.size = linear.num_values
        self.device = linear.weight.device
        self.num_maps = 0
        self._linear = {torch.float64: linear.to(torch.float64), torch.float32: linear.to(torch.float32)}

    def images(self, vectors: Tensor) -> Tensor:
        """Vectors as images (n, channels, ...), without a copy."""
        return vectors.reshape(len(vectors), *self.shape[1:], self.shape[0]).movedim(-1, 1)

    def forth(self, vectors: Tensor) -> Tensor:
        """From the smaller side to the other: (n, size) to (n, other size)."""
        linear = self._linear[vectors.dtype]
        self.num_maps += len(vectors)
        images = self.images(vectors)
        return _flat(linear.forward(images) if self.of_inputs else linear.adjoint(images))

    def back(self, vectors: Tensor) -> Tensor:
        """The adjoint of `forth`."""
        linear = self._linear[vectors.dtype]
        shape = linear.out_shape if self.of_inputs else linear.in_shape
        images = vectors.reshape(len(vectors), *shape[1:], shape[0]).movedim(-1, 1)
        return _flat(linear.adjoint(images) if self.of_inputs else linear.forward(images))

    def __call__(self, vectors: Tensor) -> Tensor:
        return self.back(self.forth(vectors))


def _flat(images: Tensor) -> Tensor:
    return images.movedim(1, -1).reshape(len(images), -1)


@torch.no_grad()
def top_values(linear: LinearMap, num: int, edge: float, bound: float, seed: int = 0) -> TopValues:
    """The `num` largest singular values of a map, each to about 1e-7 of the largest, and their vectors.

    edge: a guess of the value below which nothing is wanted, as the 3 num-th largest; bound: at least the largest. A
    wrong guess costs time alone. The start is random with `seed`. The vectors are those of the smaller side.
    """
    gram = Gram(linear)
    num = min(num, gram.size)
    for _ in range(MAX_EDGES):
        filtered = _Filter(gram, min(edge, 0.98 * bound), bound)
        basis, next_value, reaches = _basis(gram, filtered, num, seed)
        if reaches:
            break
        edge *= 0.9
    vectors, theta, residuals = _project(gram, basis)
    for _ in range(MAX_REFINEMENTS):
        errors = _errors(theta, residuals, next_value)
        wrong = errors > TOLERANCE * theta[0].sqrt()
        if not bool(wrong.any()) or gram.num_maps > 2 * MAX_MAPS:
            break
        wider = _orthonormal(_corrections(filtered, residuals[wrong]), vectors)
        vectors, theta, residuals = _project(gram, torch.cat([vectors, wider]), keep=len(vectors))
    values, errors = theta.clamp_min(0).sqrt(), _errors(theta, residuals, next_value)
    return TopValues(values.cpu(), gram.images(vectors), errors.cpu(), gram.num_maps)


class _Filter:
    """A Chebyshev polynomial of the Gram matrix: at most 1 from 0 to the edge, `GAIN` or so at the bound."""

    def __init__(self, gram: Gram, edge: float, bound: float) -> None:
        self._gram = gram
        self._half = max(edge, 0.05 * bound) ** 2 / 2
        reach = max(bound**2 / self._half - 1, 1 + 1e-4)
        self.degree = min(MAX_DEGREE, max(1, round(acosh(GAIN) / acosh(reach))))

    def __call__(self, vectors: Tensor) -> Tensor:
        before, now = vectors, self._scaled(vectors)
        for _ in range(self.degree - 1):
            before, now = now, self._scaled(now).mul_(2).sub_(before)
        return now

    def eigenvalue(self, filtered: float) -> float:
        """The eigenvalue of the Gram matrix that the polynomial takes to a value; the edge's for any of 1 or less."""
        return self._half * (1 + cosh(acosh(max(filtered, 1.0)) / self.degree))

    def _scaled(self, vectors: Tensor) -> Tensor:
        return self._gram(vectors).div_(self._half).sub_(vectors)


def _basis(gram: Gram, filtered: _Filter, num: int, seed: int) -> tuple[Tensor, float, bool]:
    """An orthonormal basis (num, size) of the wanted vectors to `SPAN_TOLERANCE`, and the eigenvalue that follows.

    Last: whether all of them are above the filter's edge, below which their order is not known.
    """
    wanted = min(num + GUARD, gram.size)
    limit = min(gram.size, max(wanted + 4 * BLOCK, min(MAX_BASIS, BASIS_BYTES // (4 * gram.size))))
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(min(BLOCK, gram.size), gram.size, generator=generator).to(gram.device)
    basis = torch.empty(limit, gram.size, device=gram.device)
    projected = torch.zeros(limit, limit, dtype=torch.float64)
    block, filled = _orthonormal(start, basis[:0]), 0
    checks, believed, before = 0, torch.zeros(num, dtype=torch.float64), gram.num_maps
    for step in itertools.count():
        begin, filled = filled, filled + len(block)
        basis[begin:filled] = block
        rest, coefficients = _split(filtered(block), basis[:filled])
        projected[begin:filled, :filled] = coefficients
        projected[:filled, begin:filled] = coefficients.T
        theta, weights = torch.linalg.eigh(projected[:filled, :filled])
        theta, weights = theta.flip(0), weights.flip(1)
        leak = float(rest.norm()) * weights[begin:filled, :num].norm(dim=0)
        done = filled >= wanted and bool((leak <= SPAN_TOLERANCE * theta[:num].abs()).all())
        checks += checks > 0
        checked = done and checks > CHECKS
        stable = checked and bool((theta[:num] - believed <= SPAN_TOLERANCE * theta[0]).all())
        low = filled >= num and float(theta[num - 1]) < REACHED
        hopeless = low and step > PATIENCE
        if stable or filled == gram.size or gram.num_maps - before > MAX_MAPS or hopeless:
            kept = (weights[:, :num].T.to(basis) @ basis[:filled]).double()
            following = filtered.eigenvalue(float(theta[num])) if filled > num else 0.0
            return _orthonormal(kept, kept[:0]), following, not low
        if limit - filled < len(block):
            number = max(min(wanted + (limit - wanted) // 2, limit - 2 * BLOCK), min(wanted, limit - len(block)))
            basis[:number] = weights[:, :number].T.to(basis) @ basis[:filled]
            projected.zero_()
            projected.diagonal()[:number] = theta[:number]
            filled = number
        if done and (checks == 0 or checked):
            rest, checks, believed = torch.zeros_like(rest[:1]), 1, theta[:num]
        block = _next_block(rest, basis[:filled], limit - filled, float(theta[0].abs()), generator)
    raise AssertionError


def _split(mapped: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The part orthogonal to the basis, and the coefficients of the rest in float64."""
    coefficients = mapped @ basis.T
    return torch.addmm(mapped, coefficients, basis, alpha=-1), coefficients.double().cpu()


def _next_block(rest: Tensor, basis: Tensor, room: int, scale: float, generator: torch.Generator) -> Tensor:
    """An orthonormal block; directions that have died out are drawn anew, so that repeated values are found."""
    alive = rest.norm(dim=1) > 1e-5 * scale
    if not bool(alive.all()):
        fresh = torch.randn(rest.shape, generator=generator).to(rest)
        rest = torch.where(alive[:, None], rest, torch.addmm(fresh, fresh @ basis.T, basis, alpha=-1))
    return _orthonormal(rest[:room], basis)


def _orthonormal(vectors: Tensor, others: Tensor) -> Tensor:
    """An orthonormal basis of the vectors' span beside the others; directions of rounding are dropped."""
    tiny = torch.finfo(vectors.dtype)
    for again in (False, True):
        vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(tiny.tiny)
        if len(others) and not (again and vectors.dtype == torch.float32):
            vectors = torch.addmm(vectors, vectors @ others.T, others, alpha=-1)
        values, rotation = torch.linalg.eigh((vectors @ vectors.T).double())
        kept = values > tiny.eps * values[-1]
        vectors = (rotation[:, kept] / values[kept].sqrt()).T.to(vectors) @ vectors
    return vectors


def _project(gram: Gram, basis: Tensor, keep: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz vectors, values (descending) and residuals of the float64 map on the span of `basis`."""
    mapped = torch.cat([gram(part) for part in basis.split(max(1, BLOCK * 2**14 // gram.size))])
    theta, weights = torch.linalg.eigh(basis @ mapped.T)
    theta, weights = theta.flip(0)[:keep], weights.flip(1)[:, :keep]
    vectors = weights.T @ basis
    return vectors, theta, weights.T @ mapped - theta[:, None] * vectors


def _corrections(filtered: _Filter, residuals: Tensor) -> Tensor:
    """Directions in which Ritz vectors are wrong: the residuals, for what is far below, and filtered for what is near.

    The filter runs in float32, which suffices for corrections.
    """
    scaled = residuals / residuals.norm(dim=1, keepdim=True)
    return torch.cat([scaled, filtered(scaled.float()).double()])


def _errors(theta: Tensor, residuals: Tensor, next_value: float) -> Tensor:
    """Errors of the singular values, from those of the eigenvalues theta.

    Theirs are the residual, or its square over the gap to what the basis does not hold. Ritz values that are close to
    each other share their residuals.
    """
    norms = residuals.norm(dim=1)
    close = (theta[:, None] - theta).abs() <= CLOSE * theta[0]
    shared = (close * norms.square()).sum(1).sqrt()
    gap = (theta - next_value - shared).clamp_min(torch.finfo(theta.dtype).tiny)
    errors = torch.minimum(norms, shared * norms / gap)
    # The difference of two squares over the sum of their roots.
    roots = theta.clamp_min(0).sqrt() + (theta - errors).clamp_min(0).sqrt()
    return torch.minimum(errors / roots.clamp_min(torch.finfo(theta.dtype).tiny), errors.sqrt())
