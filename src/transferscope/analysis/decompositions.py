"""Eigenvalues and singular values of many small matrices, on all cores or on the accelerator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from functools import cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor


def singular_values(batches: Iterable[Tensor]) -> Tensor:
    """All singular values of real or complex matrices, descending.

    batches: (..., k, m, n), which may differ in k. Returns (..., sum of k, min(m, n)), where the batches are.
    """
    return _decompose(lambda batch: np.linalg.svd(batch, compute_uv=False), torch.linalg.svdvals, batches)


def hermitian_eigenvalues(batches: Iterable[Tensor]) -> Tensor:
    """All eigenvalues of symmetric or Hermitian matrices, ascending; only the lower triangle is read.

    batches: (..., k, n, n), which may differ in k. Returns (..., sum of k, n), where the batches are.
    """
    return _decompose(np.linalg.eigvalsh, torch.linalg.eigvalsh, batches)


def _decompose(
    on_cpu: Callable[[np.ndarray], np.ndarray], elsewhere: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> Tensor:
    """Decompose batch after batch; on several threads of the CPU the next one is made while one is decomposed.

    There each is shared between as many Python threads as torch may use, each with a single BLAS thread. For sizes of
    64 to 512 this is several times faster than one matrix after the other on several BLAS threads, and the result does
    not depend on the number of threads. NumPy's LAPACK releases the interpreter lock. The limit of BLAS threads belongs
    to the process: who decomposes in several threads at once sets it around all of them, as the project's runners do.
    """
    parts: list[Tensor] = []
    running: _Running | None = None
    num_workers = torch.get_num_threads()
    with _libraries().limit(limits=1, user_api="blas"), ThreadPoolExecutor(num_workers) as pool:
        for matrices in batches:
            if matrices.device.type != "cpu":
                parts.append(elsewhere(matrices))
                continue
            started = _Running(pool, on_cpu, matrices, 4 * num_workers)
            if running is not None:
                parts.append(running.result())
            if num_workers == 1:  # one thread is one thread: nothing is made meanwhile
                wait(started.parts)
            running = started
        if running is not None:
            parts.append(running.result())
    return torch.cat(parts, dim=-2)


class _Running:
    """A batch whose parts are being decomposed."""

    def __init__(
        self, pool: Executor, decompose: Callable[[np.ndarray], np.ndarray], matrices: Tensor, num_parts: int
    ) -> None:
        batch = matrices.reshape(-1, *matrices.shape[-2:]).numpy()
        parts = np.array_split(batch, min(len(batch), num_parts))
        self._shape = matrices.shape[:-2]
        self.parts: list[Future[np.ndarray]] = [pool.submit(decompose, part) for part in parts]

    def result(self) -> Tensor:
        values = np.concatenate([part.result() for part in self.parts])
        return torch.from_numpy(values).reshape(*self._shape, values.shape[-1])


@cache
def _libraries() -> ThreadpoolController:
    """The loaded BLAS libraries; looking for them takes milliseconds, which is as long as a small layer."""
    return ThreadpoolController()
