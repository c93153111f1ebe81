"""Number of singular values of a large map below a threshold: stochastic Lanczos quadrature, with error bars.

A random direction z sees the share z^T 1[A^T A < t^2] z of the values below t, whose mean over directions is the true
share f. Probes are orthonormal: the variance of their mean is known exactly, 2 f (1 - f) (n - p) / (p (n - 1) (n + 2))
for p of them in n dimensions, and as many as there are dimensions would see everything. Golub and Kahan's
bidiagonalisation turns that share into a quadrature. With one node moved to t (Gauss and Radau), the weights below it
and the weight at it bound the share from both sides (Chebyshev, Markov and Stieltjes). It works on A instead of A^T A,
so float32 resolves values down to 1e-6 of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from transferscope.analysis.spectrum.krylov import Gram
from transferscope.analysis.spectrum.linear_map import LinearMap

NUM_STEPS = 100
STANDARD_ERROR = 0.0035
"""Of a share, from the random directions; their number follows from it and from the number of values."""
MAX_PROBES = 128
PROBE_BYTES = 64 * 2**20
"""Probes are mapped together as far as one of their vectors takes no more."""
EXHAUSTED = 3e-6
"""A step below this part of the largest ends the quadrature: the probe's own space is exhausted."""


@dataclass(frozen=True)
class Density:
    """The spectral density of a map, as seen by random directions."""

    alphas: NDArray[np.float64]
    """(num_probes, num_steps): the diagonals of the upper bidiagonal matrices."""
    betas: NDArray[np.float64]
    """(num_probes, num_steps): what stands above them; the last one leaves the matrix and the Radau node needs it."""
    num_values: int

    def shares_below(
        self, thresholds: ArrayLike, confidence: float = 0.95
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Share of the singular values below each threshold: estimate, low and high."""
        limits = np.asarray(thresholds, dtype=np.float64)
        below, at = np.mean([self._radau(probe, limits) for probe in range(len(self.alphas))], axis=0)
        estimate = below + at / 2
        # The smoothed share keeps an error bar where no probe sees anything.
        size, probes = self.num_values, len(self.alphas)
        freedom = (size + 2) * probes / 2
        smoothed = (estimate * freedom + 1) / (freedom + 2)
        variance = smoothed * (1 - smoothed) / freedom * (size - probes) / max(1, size - 1)
        margin = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(variance)
        return estimate, np.maximum(below - margin, 0), np.minimum(below + at + margin, 1)

    def quantiles(self, shares: ArrayLike) -> NDArray[np.float64]:
        """The values below which the shares lie, by interpolation between the nodes."""
        nodes, cumulative = self._nodes()
        return np.interp(np.asarray(shares, dtype=np.float64), cumulative, nodes)

    def edge(self, num: int) -> float:
        """A value below the `num` largest ones, though not far: pairs of equal values share a node."""
        nodes = np.sqrt(_gauss(*self._tridiagonal(0)[:2])[0].clip(0))
        share = 1 - 1.5 * num / self.num_values
        return min(float(nodes[max(0, len(nodes) - num)]), float(self.quantiles(max(share, 0.0))))

    def largest(self) -> float:
        """The largest node: at most the largest singular value, and close to it."""
        return float(self._nodes()[0][-1])

    def smallest(self) -> float:
        """The smallest node: at least the smallest singular value."""
        return float(self._nodes()[0][0])

    def _nodes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Nodes of all probes, ascending, and the share up to the middle of each."""
        rules = [_gauss(*self._tridiagonal(probe)[:2]) for probe in range(len(self.alphas))]
        nodes = np.sqrt(np.concatenate([nodes for nodes, _ in rules]).clip(0))
        weights = np.concatenate([weights for _, weights in rules]) / len(rules)
        order = np.argsort(nodes, kind="stable")
        return nodes[order], np.cumsum(weights[order]) - weights[order] / 2

    def _radau(self, probe: int, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weight below each limit and the weight at it, of the quadrature with a node there: (2, num_limits)."""
        diagonal, off, last = self._tridiagonal(probe)
        below = np.empty((2, len(limits)))
        for index, limit in enumerate(limits):
            below[:, index] = _weights_below(diagonal, off, last, float(limit) ** 2)
        return below

    def _tridiagonal(self, probe: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """B^T B of a probe, up to where its space is exhausted: diagonal, off-diagonal, and the entry that follows."""
        alphas, betas = self.alphas[probe], self.betas[probe]
        small = EXHAUSTED * max(alphas.max(), betas.max())
        ends = np.flatnonzero((betas <= small) | (alphas <= small))
        num = int(ends[0]) + 1 if len(ends) else len(alphas)
        alphas, betas = alphas[:num], betas[:num]
        before = np.concatenate([[0.0], betas[:-1]])
        off = alphas * betas
        exhausted = bool(len(ends))
        return alphas**2 + before**2, off[:-1], 0.0 if exhausted else float(off[-1])


def _gauss(diagonal: NDArray[np.float64], off: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of the quadrature of a tridiagonal matrix."""
    nodes, vectors = eigh_tridiagonal(diagonal, off)
    return nodes, vectors[0] ** 2


def _weights_below(
    diagonal: NDArray[np.float64], off: NDArray[np.float64], last: float, node: float
) -> tuple[float, float]:
    """The weight below a node and at it, of the quadrature that has it."""
    if not last:  # the quadrature is exact as it is
        nodes, weights = _gauss(diagonal, off)
        return float(weights[nodes < node].sum()), 0.0
    # The last diagonal entry that makes `node` an eigenvalue follows from the continued fraction of the others.
    pivot = diagonal[0] - node
    tiny = np.finfo(np.float64).tiny
    for entry, squared in zip(diagonal[1:], off**2, strict=True):
        pivot = entry - node - squared / (pivot if pivot else tiny)
    end = node + last**2 / (pivot if pivot else tiny)
    nodes, weights = _gauss(np.append(diagonal, end), np.append(off, last))
    place = int(np.abs(nodes - node).argmin())
    return float(weights[:place].sum()), float(weights[place])


@torch.no_grad()
def density(linear: LinearMap, seed: int = 0, num_steps: int = NUM_STEPS) -> Density:
    """The spectral density of a map from random directions of the smaller side of its matrix."""
    gram = Gram(linear)
    wanted = gram.size / (1 + 2 * (STANDARD_ERROR * gram.size) ** 2)
    num_probes = min(gram.size, MAX_PROBES, max(1, round(wanted + 0.5)))
    generator = torch.Generator().manual_seed(seed)
    together = max(1, PROBE_BYTES // (4 * max(linear.num_inputs, linear.num_outputs)))
    starts = torch.linalg.qr(torch.randn(gram.size, num_probes, generator=generator)).Q.T.contiguous()
    bands = [_bidiagonalise(gram, part.to(gram.device), num_steps) for part in starts.split(together)]
    alphas, betas = (np.concatenate(parts) for parts in zip(*bands, strict=True))
    return Density(alphas, betas, gram.size)


def _bidiagonalise(gram: Gram, start: Tensor, num_steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Golub and Kahan's recurrence for several probes at once, in float32 and without reorthogonalisation.

    Rounding makes the largest values appear again, with weights that add up to the true ones.
    """
    right, _ = _normalised(start)
    left, alpha = _normalised(gram.forth(right))
    alphas, betas = [alpha], []
    for step in range(num_steps):
        right, beta = _normalised(gram.back(left) - alpha * right)
        betas.append(beta)
        if step < num_steps - 1:
            left, alpha = _normalised(gram.forth(right) - beta * left)
            alphas.append(alpha)
    return _columns(alphas), _columns(betas)


def _normalised(vectors: Tensor) -> tuple[Tensor, Tensor]:
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / norms.clamp_min(torch.finfo(vectors.dtype).tiny), norms


def _columns(steps: Sequence[Tensor]) -> NDArray[np.float64]:
    return torch.cat(list(steps), dim=1).double().cpu().numpy()
