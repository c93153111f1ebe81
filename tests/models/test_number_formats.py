"""The number format that each device computes in."""

from __future__ import annotations

import pytest
import torch

from transferscope.models.precision import TYPES, analyses_precision, training_type

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("device", "capability", "training", "analyses"),
    [
        (CPU, None, torch.float32, "float32"),
        (GPU, (7, 0), torch.float16, "float32"),  # V100
        (GPU, (7, 5), torch.float16, "float32"),  # T4
        (GPU, (8, 0), torch.bfloat16, "bfloat16"),  # A100
        (GPU, (9, 0), torch.bfloat16, "bfloat16"),  # H100
        (GPU, (12, 0), torch.bfloat16, "bfloat16"),
    ],
)
def test_auto_follows_the_compute_capability(
    device: torch.device,
    capability: tuple[int, int] | None,
    training: torch.dtype,
    analyses: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what was asked for by name stays; the CPU is asked nothing."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda of: {GPU: capability}[of])
    assert training_type("auto", device) == training
    assert analyses_precision("auto", device) == analyses
    for name, dtype in TYPES.items():
        assert training_type(name, device) == dtype  # type: ignore[arg-type]
    assert analyses_precision("bfloat16", device) == "bfloat16"
