"""Eigenvalues and singular values of many small matrices, on all cores or on the accelerator."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor


def singular_values(matrices: Tensor) -> Tensor:
    """All singular values of real or complex matrices (..., m, n), descending: (..., min(m, n))."""
    if matrices.device.type != "cpu":
        return torch.linalg.svdvals(matrices)
    return _on_all_cores(lambda batch: np.linalg.svd(batch, compute_uv=False), matrices)


def hermitian_eigenvalues(matrices: Tensor) -> Tensor:
    """All eigenvalues of symmetric or Hermitian matrices (..., n, n), ascending; only the lower triangle is read."""
    if matrices.device.type != "cpu":
        return torch.linalg.eigvalsh(matrices)
    return _on_all_cores(np.linalg.eigvalsh, matrices)


def _on_all_cores(decompose: Callable[[np.ndarray], np.ndarray], matrices: Tensor) -> Tensor:
    """Share the batch between as many Python threads as torch may use, each with a single BLAS thread.

    For sizes of 64 to 512 this is several times faster than one matrix after the other on several BLAS threads, and
    the result does not depend on the number of threads. NumPy's LAPACK releases the interpreter lock.
    """
    batch = matrices.reshape(-1, *matrices.shape[-2:]).numpy()
    num_workers = min(torch.get_num_threads(), len(batch))
    parts = np.array_split(batch, min(len(batch), 4 * num_workers))
    with _libraries().limit(limits=1, user_api="blas"), ThreadPoolExecutor(num_workers) as pool:
        values = np.concatenate(list(pool.map(decompose, parts)))
    return torch.from_numpy(values).reshape(*matrices.shape[:-2], values.shape[-1])


@cache
def _libraries() -> ThreadpoolController:
    """The loaded BLAS libraries; looking for them takes milliseconds, which is as long as a small layer."""
    return ThreadpoolController()
