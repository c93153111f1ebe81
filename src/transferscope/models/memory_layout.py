"""The memory layout of a network's tensors."""

from __future__ import annotations

import torch
from torch import nn


def lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Store the parameters and buffers of 4 axes, weights of convolutions of images, in a layout, in place.

    `nn.Module.to` does so for those of 5 axes as well, and fails, since channels_last is for 4 axes only.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=layout)
