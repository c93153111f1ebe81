"""The smallest singular values by shift and invert: Lanczos on the inverse of the Gram matrix."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from transferscope.analysis.spectrum.krylov import Gram
from transferscope.analysis.spectrum.linear_map import LinearMap

SHIFTED_FLOPS = 5e10
"""Largest cost of the factorisation; 5,300 rows."""
SHIFT = 1e-13
"""Added to the Gram matrix's diagonal, as a part of its trace, so that a singular one has a factorisation too."""


def shifted_flops(linear: LinearMap) -> float:
    """Operations of the factorisation."""
    return linear.num_values**3 / 3


@torch.no_grad()
def smallest_values(linear: LinearMap, num: int, seed: int = 0) -> Tensor:
    """The `num` smallest singular values, float64 and descending, good to 1e-6 of the largest."""
    gram = Gram(linear)
    size = gram.size
    num = min(num, size - 1)
    rows = [
        gram(torch.eye(size, dtype=torch.float64, device=gram.device)[part]) for part in torch.arange(size).split(64)
    ]
    matrix = torch.cat(rows).cpu().numpy()
    shift = SHIFT * float(np.trace(matrix))
    matrix[np.diag_indices(size)] += shift
    factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    inverse = LinearOperator((size, size), matvec=lambda vector: cho_solve(factor, vector, check_finite=False))
    start = np.random.default_rng(seed).standard_normal(size)
    largest = eigsh(inverse, k=num, which="LA", v0=start, ncv=min(size, 3 * num + 20), return_eigenvectors=False)
    values = np.sqrt((1 / largest - shift).clip(0))
    return torch.from_numpy(np.sort(values)[::-1].copy())
