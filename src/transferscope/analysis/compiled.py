"""Networks, and parts of them, by torch's compiler."""

from __future__ import annotations

import torch
from torch import nn

GRAPHS = 256
"""Kinds of network and shapes of batch that one forward method is compiled for; torch gives up after 8 by itself."""


def compiled(network: nn.Module) -> nn.Module:
    """The network by torch's compiler, which sees each shape of batch once.

    Shapes are fixed, since code for batches of any size is slower. Weights that are written in place take no new code,
    and neither do other networks of the same structure. Values differ by rounding.
    """
    return torch.compile(network, dynamic=False, recompile_limit=GRAPHS)  # type: ignore[return-value]
