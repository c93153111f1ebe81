"""Measure the speed of a device on which costs are estimated."""

from __future__ import annotations

import time
from dataclasses import dataclass

from transferscope.experiment.options import ModelOptions


@dataclass(frozen=True)
class Speed:
    """Images per second of one device: of a training step, and of a forward pass."""

    train: float
    forward: float


def measure_speed(model: ModelOptions, side: int, *, num_classes: int = 10, seconds: float = 5.0) -> Speed:
    """Speed of this machine's first device on random images: float32 steps of SGD, and forward passes."""
    import torch

    from transferscope.models.zoo import build_model

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_model(model.name, num_classes, seed=0, **model.options).to(device)
    batch = 32 if device.type == "cpu" else 256
    images = torch.randn(batch, 3, side, side, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    def forward() -> None:
        with torch.inference_mode():
            network(images).sum().item()

    return Speed(train=batch * _rate(step, device, seconds), forward=batch * _rate(forward, device, seconds))


def _rate(action, device, seconds: float) -> float:  # type: ignore[no-untyped-def]
    """Times per second, after a first one that does not count."""
    import torch

    action()
    started, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - started < seconds:
        action()
        count += 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - started)
