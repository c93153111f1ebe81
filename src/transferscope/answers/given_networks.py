"""Networks that a notebook gives as objects, under names that `build_model` takes.

A name stands for copies of the network as it was given. It says what the network looks like, so that two networks of
one class with the same layers have the same name, and their weights can be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from transferscope.models.classifier_size import with_classes
from transferscope.models.duplicate import duplicate
from transferscope.models.image_input import is_known, mark_classifier
from transferscope.models.layers import classifier_layers, num_outputs_of
from transferscope.system.errors import UserError
from transferscope.system.references import allow

_NETWORKS: dict[str, nn.Module] = {}


def without_wrappers(network: nn.Module) -> nn.Module:
    """The network inside of what runs it on several devices, averages its weights or compiles it."""
    while True:
        if isinstance(network, (nn.DataParallel, DistributedDataParallel, AveragedModel)):
            network = network.module
        elif isinstance(compiled := getattr(network, "_orig_mod", None), nn.Module):  # of torch.compile
            network = compiled
        else:
            return network


def name_of(network: nn.Module) -> str:
    """The name under which copies of a network are built from now on, in this process."""
    kind = type(network)
    layout = [f"{kind.__module__}.{kind.__qualname__}", repr(network)]
    layout += [f"{key} {tuple(tensor.shape)}" for key, tensor in network.state_dict().items()]
    digest = hashlib.sha256("\n".join(layout).encode()).hexdigest()[:12]
    name = f"{kind.__name__}_{digest}"
    if name not in _NETWORKS:
        kept = duplicate(network).cpu().float()
        if not is_known(kept):
            mark_classifier(kept)
        _NETWORKS[name] = kept
    reference = f"{__name__}:{name}"
    allow(reference)
    return reference


def num_outputs(reference: str) -> int:
    """Classes of a network that was given, by its classifier. Raises UserError where it has none."""
    network = _NETWORKS[reference.rpartition(":")[2]]
    layers = classifier_layers(network)
    if not layers:
        raise UserError(f"{type(network).__name__} has no linear or convolutional layer: give a classifier of images")
    return num_outputs_of(network, layers[0])


def shown(architecture: str) -> str:
    """The class of a network that was given, or the name of an architecture."""
    prefix = f"{__name__}:"
    return architecture.removeprefix(prefix).rpartition("_")[0] if architecture.startswith(prefix) else architecture


def __getattr__(name: str) -> Callable[..., nn.Module]:
    if name not in _NETWORKS:
        raise AttributeError(name)

    def build(num_classes: int, **options: Any) -> nn.Module:
        """Copy the network, with a fresh classifier where it is asked for with other classes."""
        return with_classes(duplicate(_NETWORKS[name]), num_classes)

    return build
