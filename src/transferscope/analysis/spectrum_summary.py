"""Summaries of the singular values of a layer or of a whole network (appendix C, Figures 31 to 33).

Values come with multiplicities throughout, as from `conv_singular_values`; arrays or tensors (num_distinct,).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transferscope.system.errors import UserError

THRESHOLDS = (0.001, 0.01, 0.1)
RELATIVE = (0.01, 0.1, 0.3)
"""Thresholds as parts of the root mean square of the values, so that the scale of the weights has no say."""


def summarise(
    values: ArrayLike, multiplicities: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
    """Norms, ranks and counts of a spectrum.

    frobenius: root of the sum of squares, of the map and not of the kernel (for a convolution of stride 1 the kernel's
    norm times the root of the number of pixels). spectral_norm: the largest value. ratio: frobenius / spectral_norm,
    the term of the generalisation bound. stable_rank: ratio squared. effective_rank: exp of the entropy of the values
    divided by their sum (Roy and Vetterli 2007). condition: largest over smallest, infinite for a singular map.
    count_below_<t>: values below t. relative_below_<t>: values below t times the root of the mean of their squares.
    num_values. For an all-zero map ratio, ranks and condition are NaN.
    """
    sigma, counts = _as_arrays(values, multiplicities)
    frobenius, largest = float(np.sqrt(_sum(counts * sigma**2))), float(sigma.max())
    smallest = float(sigma.min())
    below = count_below(sigma, counts, thresholds)
    scale = frobenius / np.sqrt(counts.sum())
    small = count_below(sigma, counts, scale * np.asarray(RELATIVE))
    ratio = frobenius / largest if largest else float("nan")
    return {
        "frobenius": frobenius,
        "spectral_norm": largest,
        "ratio": ratio,
        "stable_rank": ratio**2,
        "effective_rank": _effective_rank(sigma, counts),
        "condition": (largest / smallest if smallest else float("inf")) if largest else float("nan"),
        **{f"count_below_{t:g}": int(n) for t, n in zip(thresholds, below, strict=True)},
        **{f"relative_below_{t:g}": int(n) for t, n in zip(RELATIVE, small, strict=True)},
        "num_values": int(counts.sum()),
    }


def count_below(values: ArrayLike, multiplicities: ArrayLike, thresholds: ArrayLike) -> NDArray[np.int64]:
    """Number of singular values strictly below each threshold (Figure 33)."""
    sigma, counts = _as_arrays(values, multiplicities)
    order = np.argsort(sigma, kind="stable")
    cumulative = np.concatenate([[0], np.cumsum(counts[order])])
    return cumulative[np.searchsorted(sigma[order], np.asarray(thresholds, dtype=float), side="left")]


def probability_smaller(
    values_a: ArrayLike, multiplicities_a: ArrayLike, values_b: ArrayLike, multiplicities_b: ArrayLike
) -> float:
    """The chance that a singular value drawn from a is smaller than one drawn from b, ties counted half.

    Above 1/2 where a is more concentrated towards 0; needs no threshold (the Mann-Whitney statistic).
    """
    a, counts_a = _as_arrays(values_a, multiplicities_a)
    b, counts_b = _as_arrays(values_b, multiplicities_b)
    order = np.argsort(b, kind="stable")
    cumulative = np.concatenate([[0.0], np.cumsum(counts_b[order], dtype=float)])
    smaller_b = cumulative[np.searchsorted(b[order], a, side="left")]
    not_larger_b = cumulative[np.searchsorted(b[order], a, side="right")]
    larger_b = cumulative[-1] - (smaller_b + not_larger_b) / 2
    return float(_sum(counts_a * larger_b) / (counts_a.sum() * cumulative[-1]))


def _effective_rank(sigma: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    total = _sum(counts * sigma)
    if total == 0:
        return float("nan")
    share = sigma[sigma > 0] / total
    return float(np.exp(-_sum(counts[sigma > 0] * share * np.log(share))))


def _sum(terms: NDArray[np.float64]) -> float:
    """NumPy's own sum: a dot product rounds otherwise with another number of BLAS threads."""
    return float(terms.sum())


def _as_arrays(values: ArrayLike, multiplicities: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sigma, counts = np.asarray(values, dtype=np.float64), np.asarray(multiplicities, dtype=np.int64)
    if sigma.shape != counts.shape or sigma.ndim != 1 or not sigma.size:
        raise UserError(f"values {sigma.shape} and multiplicities {counts.shape}: expected (num_distinct,) for both")
    return sigma, counts
