"""Networks, and parts of them, by torch's compiler."""

from __future__ import annotations

from inspect import signature
from typing import cast

import torch
from torch import nn

GRAPHS = 256
"""Kinds of network and shapes of batch that one forward method is compiled for; torch gives up after 8 by itself."""


def compiled(network: nn.Module) -> nn.Module:
    """The network by torch's compiler, which sees each shape of batch once.

    Shapes are fixed, since code for batches of any size is slower. Weights that are written in place take no new code,
    and neither do other networks of the same structure. Values differ by rounding.
    """
    # Older versions of torch lack the argument: what is beyond their 8 graphs runs as it is.
    limit = {"recompile_limit": GRAPHS} if "recompile_limit" in signature(torch.compile).parameters else {}
    return cast(nn.Module, torch.compile(network, dynamic=False, **limit))  # type: ignore[call-overload]
