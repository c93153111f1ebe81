"""The largest singular values of a linear map by filtered block Lanczos in float32.

Three things keep it quick. A Chebyshev polynomial of A^T A that is large above the wanted values and at most 1 below
them takes the place of A^T A, so that a small basis suffices. A convolution in float32 costs a fifth of its float64
price, and its rounding does not add up: the polynomial is steep at its end, so its value says the eigenvalue better
than its own precision. The error of a value is quadratic in that of its vector, so the basis ends once the values have
converged, long before their vectors; residuals say when that is.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from math import acosh

import torch
from torch import Tensor

from transferscope.analysis.spectrum.linear_map import LinearMap

BLOCK = 2
"""Vectors that are mapped at once. Zero padding makes pairs of values that are equal to 1e-8: one vector finds one.

Larger blocks need lower polynomials, though more vectors altogether.
"""
GUARD = 8
"""Vectors beyond those asked for, which keep the projection's gap open."""
PROJECTED = 4
"""Vectors that are mapped at once in float64, where none of the values is above the filter's edge."""
MAX_BASIS = 256
BASIS_BYTES = 384 * 2**20
"""The basis is restarted at the smaller of the two."""
MAX_MAPS = 4000
"""Applications of the map for one filter after which what there is is reported, with its error."""
GAIN = 10.0
"""Factor by which the filter favours the largest value over the unwanted ones."""
MAX_DEGREE = 16
STEEP = 4
"""Degree of the filter from which its value in float32 says a singular value to `ROUNDING`; else float64 does."""
VECTOR_TOLERANCE = 3e-5
"""Error of the wanted vectors in the basis, where they are asked for; float32 reaches no less."""
TOLERANCE = 7e-7
"""Error of a value, as a part of the largest one, that ends the basis."""
ROUNDING = 2e-7
"""Largest error that float32 leaves in a value, as a part of the largest one."""
MAX_EDGES = 8
"""Edges that are tried in steps of a tenth, where fewer values than wanted lie above one; the last is found."""
REACHED = 1.02
"""The filtered value above which a vector is certainly one of the largest."""
PATIENCE = 120
"""Applications of the filter to a block after which a filter that lets too few values through is lowered."""
CHECKS = 6
"""Steps with a new random direction, by which further copies of a value show, before the basis is believed."""


@dataclass(frozen=True)
class TopValues:
    """The largest singular values."""

    values: Tensor
    """float64 (num,), descending."""
    error: float
    """The largest estimated error of a value, from the residuals and the gap below the found values."""
    vectors: Tensor | None
    """float64 (num, *shape of the map's smaller side), where asked for."""
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


@dataclass(frozen=True)
class _Ritz:
    """The largest Ritz values and vectors of a filtered map."""

    vectors: Tensor
    """float64 (num, size), orthonormal."""
    values: Tensor
    """float64 (num,): singular values of the map itself, where all are above the filter's edge."""
    error: float
    above: bool
    """True where all are above the filter's edge, below which their order is not known."""


@torch.no_grad()
def top_values(
    linear: LinearMap, num: int, edge: float, bound: float, seed: int = 0, *, vectors: bool = False
) -> TopValues:
    """The `num` largest singular values of a map, each to 1e-6 of the largest.

    edge: a guess of the value below which nothing is wanted, as the 3 num-th largest; bound: at least the largest. A
    wrong guess costs time alone. The start is random with `seed`. vectors: whether their vectors are wanted too, those
    of the smaller side, which takes some 15 % longer; those of values that nearly agree are any basis of their span.
    """
    gram = Gram(linear)
    num = min(num, gram.size)
    for number in range(1, MAX_EDGES + 2):
        filtered = _Filter(gram, min(edge, 0.98 * bound), bound)
        is_steep = filtered.degree >= STEEP
        pairs = _ritz(gram, filtered, num, seed, vectors=vectors or not is_steep)
        if pairs.above:
            # The vectors have converged: values in float64, whose error is quadratic in theirs, as before.
            pairs = pairs if is_steep else replace(_projected(gram, pairs.vectors), error=pairs.error)
            break
        edge *= 0.9
        if number == MAX_EDGES:
            # A value on a span is at most that of the whole map, so this edge is below all that are wanted.
            edge = min(edge, 0.98 * float(_projected(gram, pairs.vectors).values[-1]))
    else:
        pairs = _projected(gram, pairs.vectors)
    error = pairs.error + ROUNDING * float(pairs.values[0])
    return TopValues(pairs.values.cpu(), error, gram.images(pairs.vectors) if vectors else None, gram.num_maps)


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

    def eigenvalues(self, filtered: Tensor) -> Tensor:
        """Eigenvalues of the Gram matrix that the polynomial takes to these; the edge's for any of 1 or less."""
        return self._half * (1 + torch.cosh(torch.acosh(filtered.clamp_min(1)) / self.degree))

    def _scaled(self, vectors: Tensor) -> Tensor:
        return self._gram(vectors).div_(self._half).sub_(vectors)


def _ritz(gram: Gram, filtered: _Filter, num: int, seed: int, *, vectors: bool) -> _Ritz:
    """The `num` largest Ritz values and vectors, once the values, or with `vectors` both, have converged."""
    wanted = min(num + GUARD, gram.size)
    limit = min(gram.size, max(wanted + 4 * BLOCK, min(MAX_BASIS, BASIS_BYTES // (4 * gram.size))))
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(min(BLOCK, gram.size), gram.size, generator=generator).to(gram.device)
    basis = torch.empty(limit, gram.size, device=gram.device)
    projected = torch.zeros(limit, limit, dtype=torch.float64)
    block, filled = _orthonormal(start, basis[:0]), 0
    checks, believed, error, before = 0, torch.zeros(num, dtype=torch.float64), 0.0, gram.num_maps
    for step in itertools.count():
        begin, filled = filled, filled + len(block)
        basis[begin:filled] = block
        rest, coefficients = _split(filtered(block), basis[:filled])
        projected[begin:filled, :filled] = coefficients
        projected[:filled, begin:filled] = coefficients.T
        theta, weights = torch.linalg.eigh(projected[:filled, :filled])
        theta, weights = theta.flip(0), weights.flip(1)
        leaks = _leaks(rest, weights[begin:filled])
        values = filtered.eigenvalues(theta[:num]).sqrt()
        # The checks leave the residuals of the basis before them out, so its error stays with what they say.
        error = max(error if checks else 0.0, _error(filtered, theta, leaks, num))
        done = filled > wanted and error <= TOLERANCE * float(values[0])
        if vectors:
            done = done and bool((leaks[:num] <= VECTOR_TOLERANCE * theta[:num].abs()).all())
        checks += checks > 0
        checked = done and checks > CHECKS
        stable = checked and bool((values - believed <= TOLERANCE * values[0]).all())
        low = filled >= num and float(theta[num - 1]) < REACHED
        hopeless = low and step > PATIENCE
        if filled == gram.size:
            error = 0.0
        if stable or filled == gram.size or gram.num_maps - before > MAX_MAPS or hopeless:
            kept = (weights[:, :num].T.to(basis) @ basis[:filled]).double()
            return _Ritz(torch.linalg.qr(kept.T).Q.T, values, error, not low)
        if limit - filled < len(block):
            number = max(min(wanted + (limit - wanted) // 2, limit - 2 * BLOCK), min(wanted, limit - len(block)))
            basis[:number] = weights[:, :number].T.to(basis) @ basis[:filled]
            projected.zero_()
            projected.diagonal()[:number] = theta[:number]
            filled = number
        if done and (checks == 0 or checked):
            rest, checks, believed = torch.zeros_like(rest[:1]), 1, values
        block = _next_block(rest, basis[:filled], limit - filled, float(theta[0].abs()), generator)
    raise AssertionError


def _leaks(rest: Tensor, weights: Tensor) -> Tensor:
    """Residual norms of the Ritz vectors, from their weights on the last block, float64."""
    products = (rest @ rest.T).double().cpu()
    return (weights * (products @ weights)).sum(0).clamp_min(0).sqrt()


def _error(filtered: _Filter, theta: Tensor, leaks: Tensor, num: int) -> float:
    """The largest error of the `num` largest singular values, from filtered Ritz values and their residual norms."""
    kept = min(num + GUARD, len(theta) - 1)
    following = float(theta[kept]) if kept else 0.0
    errors = _ritz_errors(theta[: max(1, kept)], leaks[: max(1, kept)], following)[:num]
    reached = theta[: len(errors)]
    return float((filtered.eigenvalues(reached).sqrt() - filtered.eigenvalues(reached - errors).sqrt()).max())


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
    """A float32 orthonormal basis of the vectors' span beside the others; directions of rounding are dropped."""
    tiny = torch.finfo(vectors.dtype)
    for again in (False, True):
        vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(tiny.tiny)
        if len(others) and not again:
            vectors = torch.addmm(vectors, vectors @ others.T, others, alpha=-1)
        values, rotation = torch.linalg.eigh((vectors @ vectors.T).double())
        kept = values > tiny.eps * values[-1]
        vectors = (rotation[:, kept] / values[kept].sqrt()).T.to(vectors) @ vectors
    return vectors


def _projected(gram: Gram, basis: Tensor) -> _Ritz:
    """The Ritz values of the float64 map itself on a span, as of a map with fewer positive values than wanted."""
    mapped = torch.cat([gram(part) for part in basis.split(PROJECTED)])
    theta, weights = torch.linalg.eigh(basis @ mapped.T)
    theta, weights = theta.flip(0), weights.flip(1)
    vectors = weights.T @ basis
    errors = (weights.T @ mapped - theta[:, None] * vectors).norm(dim=1)
    # The difference of two squares over the sum of their roots.
    roots = theta.clamp_min(0).sqrt() + (theta - errors).clamp_min(0).sqrt()
    errors = torch.minimum(errors / roots.clamp_min(torch.finfo(theta.dtype).tiny), errors.sqrt())
    return _Ritz(vectors, theta.clamp_min(0).sqrt(), float(errors.max()), above=False)


def _ritz_errors(theta: Tensor, norms: Tensor, next_value: float) -> Tensor:
    """Errors of Ritz values (descending) from their residual norms, where what the basis lacks is below `next_value`.

    The missing part couples two Ritz vectors by at most the product of their norms over the gap. Such a coupling moves
    their values by its square over their distance, and by no more than itself where they are close.
    """
    gaps = (theta - next_value).clamp_min(0)
    products = norms[:, None] * norms
    couplings = 2 * products / (gaps + (gaps.square() + 4 * products).sqrt()).clamp_min(torch.finfo(theta.dtype).tiny)
    distances = (theta[:, None] - theta).abs().clamp_min(torch.finfo(theta.dtype).tiny)
    return torch.minimum(couplings, couplings.square() / distances).sum(1)
