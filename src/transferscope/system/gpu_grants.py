"""The GPUs that the present thread may use, granted by a runner and read by whatever computes.

`framework.runners.gpu_runner` grants them to a node by its tag `gpus-<number>`, in the order of
`framework.runners.slots`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_granted: ContextVar[tuple[int, ...] | None] = ContextVar("granted_gpus", default=None)


@contextmanager
def granted(gpus: tuple[int, ...]) -> Iterator[None]:
    """Inside, this thread has these GPUs, by torch's indices in this process, and no others."""
    token = _granted.set(gpus)
    try:
        yield
    finally:
        _granted.reset(token)


def granted_gpus() -> tuple[int, ...] | None:
    """Torch's indices of the GPUs that were granted to this thread; None where no runner grants any."""
    return _granted.get()


def give_back_memory() -> None:
    """Let go of the GPU memory that torch keeps for later: a training in a process of its own may need it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def visible_to_child() -> dict[str, str]:
    """The environment variable that shows a child process the granted GPUs only; empty where no runner grants any."""
    gpus = granted_gpus()
    if gpus is None:
        return {}
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = ours.split(",") if ours else None
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[gpu].strip() if names else str(gpu) for gpu in gpus)}
