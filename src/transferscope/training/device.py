"""Where and how numbers are computed: device, precision, determinism, private random state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils import deterministic as deterministic_settings

Precision = Literal["float32", "bfloat16"]


def choose_device(device: str | torch.device | None) -> torch.device:
    """The given device; None: the current GPU if there is one, else the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bfloat16: matrix products and convolutions in bfloat16 on float32 weights; float32: nothing changes."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def first_weight(model: nn.Module) -> Tensor:
    """The first convolution's weight, which tells the model's type, device and memory format; else any parameter."""
    parameters = list(model.parameters())
    return next((parameter for parameter in parameters if parameter.ndim == 4), parameters[0])


def as_input(images: Tensor, weight: Tensor) -> Tensor:
    """Images in the type and memory format of a model's `first_weight`; the same object where nothing changes."""
    if images.dtype != weight.dtype:
        images = images.to(weight.dtype)
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        images = images.contiguous(memory_format=torch.channels_last)
    return images


@contextmanager
def reproducible(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Inside: torch's deterministic algorithms if asked, and a random state that the outside never sees.

    These switches belong to the process, so two trainings in threads of one process must agree on them.
    """
    before = torch.are_deterministic_algorithms_enabled()
    benchmark, fill = torch.backends.cudnn.benchmark, deterministic_settings.fill_uninitialized_memory  # type: ignore[attr-defined]
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses determinism without it
        torch.use_deterministic_algorithms(True)
        deterministic_settings.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # we read none; filling costs time
    torch.backends.cudnn.benchmark = not deterministic
    gpus = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
        deterministic_settings.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def seed_layers(seed: int, device: torch.device) -> None:
    """Seed what layers such as dropout draw from; only inside `reproducible`."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
