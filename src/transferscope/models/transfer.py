"""Parts of a pre-trained model that a run may start from: its statistics alone, or its first modules alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from transferscope.models.modules import find_modules
from transferscope.system.errors import UserError


def statistics_of(weights: Mapping[str, Tensor], network: nn.Module, *, seed: int) -> dict[str, Tensor]:
    """Random parameters with the mean and the standard deviation of each pre-trained tensor, and nothing else of it.

    Values are drawn from a normal distribution by `seed` and the tensor's name, then shifted and scaled so that mean
    and standard deviation (over all values of the tensor, not of a sample) are those of `weights` up to the rounding
    of its type. A tensor whose values are all equal stays as it is, so Fixup's scalars do; of two values the order is
    drawn. Buffers, such as BatchNorm's running statistics, are left out, since training estimates them anew.

    Source: mean-variance initialisation, Raghu et al. 2019 (arXiv 1902.07208), section 5.
    """
    parameters = dict(network.named_parameters())
    return {name: _drawn_alike(value, name, seed) for name, value in weights.items() if name in parameters}


def _drawn_alike(value: Tensor, name: str, seed: int) -> Tensor:
    wide = value.double()
    mean, std = wide.mean(), wide.std(correction=0)
    if value.numel() == 1 or std == 0:
        return value.clone()
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    standard = (drawn - drawn.mean()) / drawn.std(correction=0)
    made = (standard * std.cpu() + mean.cpu()).to(value.dtype)
    # Among millions of draws a few round to the very number that they replace.
    return torch.where(made == value.cpu(), torch.nextafter(made, torch.full_like(made, torch.inf)), made)


def up_to_module(weights: Mapping[str, Tensor], network: nn.Module, last: str) -> dict[str, Tensor]:
    """The weights of the modules of analysis from the first one to `last`, buffers included.

    Modules are those of `find_modules`, in its order: that of the forward pass for ResNet-like networks, of
    registration for others. Source: weight transfer of the first modules, Matsoukas et al. 2022 (arXiv 2203.01825).

    Raises:
        UserError: the network has no such module; the message lists those that it has.
    """
    modules = find_modules(network)
    names = list(modules)
    if last not in modules:
        raise UserError(f"there is no module {last!r}; modules are {', '.join(names)}")
    kept = {key for name in names[: names.index(last) + 1] for key in modules[name]}
    return {key: value for key, value in weights.items() if key in kept}
