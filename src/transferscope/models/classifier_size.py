"""Networks that were made for another number of classes, with a fresh classifier."""

from __future__ import annotations

from torch import nn

from transferscope.models.layers import classifier_layers
from transferscope.system.errors import UserError


def with_classes(network: nn.Module, num_classes: int) -> nn.Module:
    """Put a fresh layer in place of each classifying one that has another number of outputs, in the network itself.

    Raises UserError where it is a convolution that sees more than one place.
    """
    for path in classifier_layers(network):
        layer = network.get_submodule(path)
        if isinstance(layer, nn.Linear) and layer.out_features != num_classes:
            network.set_submodule(path, nn.Linear(layer.in_features, num_classes, bias=layer.bias is not None))
        elif isinstance(layer, nn.Conv2d) and layer.out_channels != num_classes:
            if layer.kernel_size != (1, 1):
                raise UserError(f"{type(network).__name__}.{path} classifies by a convolution that is not 1 by 1")
            fresh = nn.Conv2d(layer.in_channels, num_classes, 1, bias=layer.bias is not None)
            network.set_submodule(path, fresh)
    return network
