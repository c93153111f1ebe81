"""Choose the number format in which a device computes a network."""

from __future__ import annotations

import torch

from transferscope.experiment.gpu_support import BFLOAT16_SINCE
from transferscope.experiment.options import Precision, TrainingPrecision

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def has_bfloat16(device: torch.device) -> bool:
    """True if the device computes bfloat16 itself, of a GPU by its compute capability."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= BFLOAT16_SINCE


def training_type(precision: TrainingPrecision, device: torch.device) -> torch.dtype:
    """The type of products and convolutions in training.

    `auto` is bfloat16 on GPUs that have it, float16 on others, where the loss has to be scaled, and float32 on the CPU.
    """
    if precision != "auto":
        return TYPES[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if has_bfloat16(device) else torch.float16


def analyses_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision of analyses; `auto` is bfloat16 on GPUs that have it and float32 elsewhere.

    Not float16: nothing scales what overflows there.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and has_bfloat16(device) else "float32"
