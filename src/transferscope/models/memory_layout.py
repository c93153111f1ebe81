"""The memory layout of a network's tensors."""

from __future__ import annotations

import torch
from torch import nn


def lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Store the parameters and buffers of 4 axes, weights of convolutions of images, in a layout, in place.

    `nn.Module.to` does so for those of 5 axes as well, and fails, since channels_last is for 4 axes only. A network of
    which torch `corrupts_memory` in channels_last stays as it is.
    """
    if layout == torch.channels_last and corrupts_memory(model):
        return
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=layout)


def corrupts_memory(model: nn.Module) -> bool:
    """True if the backward pass of torch 2.15 in channels_last writes beyond its memory.

    On CPUs without AVX-512 it does so in convolutions of single pixels with a stride that read 2 to 6 channels.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        return False
    return any(
        isinstance(layer, nn.Conv2d)
        and layer.weight.device.type == "cpu"
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and 1 < layer.weight.shape[1] < 7
        for layer in model.modules()
    )
