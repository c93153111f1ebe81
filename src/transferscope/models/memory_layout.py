"""The memory layout of a network's tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Store the parameters and buffers of 4 axes, weights of convolutions of images, in a layout, in place.

    `nn.Module.to` does so for those of 5 axes as well, and fails, since channels_last is for 4 axes only. A network of
    which torch `corrupts_memory` in channels_last stays as it is, and its images must (`as_input`).
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


def first_weight(model: nn.Module) -> Tensor:
    """The first convolution's weight, of the model's type, device and memory format; else any parameter."""
    parameters = list(model.parameters())
    return next((parameter for parameter in parameters if parameter.ndim == 4), parameters[0])


def as_input(images: Tensor, weight: Tensor) -> Tensor:
    """Images in the type and memory format of a model's `first_weight`; the same object where nothing changes."""
    if images.dtype != weight.dtype:
        images = images.to(weight.dtype)
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        images = images.contiguous(memory_format=torch.channels_last)
    return images
