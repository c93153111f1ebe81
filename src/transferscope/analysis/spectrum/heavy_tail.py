"""Power laws in the tails of weights' eigenvalues, as weightwatcher's alpha (Martin and Mahoney, JMLR 2021).

The exponent is the maximum-likelihood estimate of a continuous power law above a threshold, and the threshold is the
eigenvalue at which the fit is closest by Kolmogorov and Smirnov (Clauset, Shalizi and Newman, SIAM Review 2009). No
claim of the study rests on it: many spectra are no power law, and a fit has an exponent all the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

MIN_EIGENVALUES = 20
"""A spectrum with fewer positive eigenvalues has no fit."""
ZERO = 1e-10
"""Eigenvalues up to this part of the largest count as zeros."""
MAX_CANDIDATES = 10_000
"""Thresholds that are tried, evenly spaced in the sorted eigenvalues where there are more."""


class PowerLaw(NamedTuple):
    """The fit p(x) ~ x^-alpha above `xmin`; NaN where there is none."""

    alpha: float
    xmin: float
    num_tail: int
    """Eigenvalues from `xmin` on."""
    distance: float
    """Largest difference between the tail's distribution and the fit's."""


NO_FIT = PowerLaw(float("nan"), float("nan"), 0, float("nan"))


def layer_eigenvalues(weight: Tensor) -> Tensor:
    """Eigenvalues of W^T W of a weight (c_out, c_in/groups, *kernel), float64: those of every tap's matrix together.

    This is weightwatcher's choice for convolutions, and another map than the convolution.
    """
    taps = weight.detach().double().flatten(2) if weight.ndim > 2 else weight.detach().double()[..., None]
    return torch.linalg.svdvals(taps.movedim(-1, 0)).square().flatten().cpu()


def fit_power_law(eigenvalues: ArrayLike) -> PowerLaw:
    """The power law of the largest eigenvalues, and from where on it holds."""
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64))
    values = values[values > ZERO * values[-1]] if len(values) else values
    if len(values) < MIN_EIGENVALUES or values[0] == values[-1]:
        return NO_FIT
    logs = np.log(values)
    # The last two eigenvalues are no tail to fit.
    starts = np.unique(np.linspace(0, len(values) - 3, min(len(values) - 2, MAX_CANDIDATES)).astype(int))
    fits = [_fit(logs, int(start)) for start in starts]
    distances = np.array([distance for _, distance in fits])
    best = int(distances.argmin())
    start = int(starts[best])
    return PowerLaw(fits[best][0], float(values[start]), len(values) - start, float(distances[best]))


def _fit(logs: NDArray[np.float64], start: int) -> tuple[float, float]:
    """The exponent above one threshold and its distance from the tail's distribution."""
    excess = logs[start:] - logs[start]
    total = float(excess.sum())
    if not total:
        return float("nan"), float("inf")
    exponent = len(excess) / total
    fitted = -np.expm1(-exponent * excess)
    return 1 + exponent, float(np.abs(fitted - np.arange(len(excess)) / len(excess)).max())
