"""One network that takes the weights of many models in turn, so that measuring them takes the memory of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from transferscope.analysis.batchnorm import batchnorm_layers, recompute_statistics
from transferscope.analysis.evaluator import Batches
from transferscope.analysis.states import State
from transferscope.measure.bench import workspace
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.compatible import classifier_keys
from transferscope.models.layers import classifier_layers, image_channels
from transferscope.models.parametrised import is_plain
from transferscope.models.stored_state import load_stored, store_state


class ReusedNetwork:
    """The architecture of a checkpoint, where weights are put for a while; it holds none of its own meanwhile."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.plain = is_plain(checkpoint.metadata, checkpoint.source)
        """True if the layers of the checkpoint's own network hold the weights that they apply."""
        self.network = workspace(checkpoint)
        self.like = {key: tensor.to("meta") for key, tensor in self.network.state_dict().items()}
        self.shared = _shared_parameters(self.network)
        self.device = next(self.network.parameters()).device
        self.normalised = bool(batchnorm_layers(self.network))
        """True if it has BatchNorm."""
        self.head = _head_of(self.network)
        """The linear layer that classifies; None where there are several, or another one."""
        self.classifier = classifier_keys(self.network)
        """The tensors of the classifier."""
        self.channels = image_channels(self.network)
        self._release()

    def _release(self) -> None:
        self._assign(self.like)

    def _assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors in the place of the network's own; one that several layers share stays one."""
        own = {key: nn.Parameter(tensors[key]) for key in set(self.shared.values())}
        self.network.load_state_dict(
            dict(tensors) | {key: own[first] for key, first in self.shared.items()}, assign=True
        )

    @contextmanager
    def worn(self, state: State, *, copy: bool = False) -> Iterator[nn.Module]:
        """The network with the very tensors of `state`, or with copies that may be written to."""
        tensors = {key: _moved(state[key], like.dtype, self.device, copy=copy) for key, like in self.like.items()}
        self._assign(tensors)
        del tensors
        try:
            yield self.network
        finally:
            self._release()

    @contextmanager
    def mapped(self, state: State, file: Path) -> Iterator[nn.Module]:
        """The network with weights as they lie in `file` meanwhile, which are to be read only."""
        store_state(state, file)
        try:
            with self.worn(load_stored(file)) as network:
                yield network
        finally:
            file.unlink()

    @contextmanager
    def settled(self, state: dict[str, Tensor], training: Callable[[], Batches]) -> Iterator[nn.Module]:
        """The network with merged weights, whose statistics of BatchNorm become those of training images."""
        with self.worn(state) as network:
            if self.normalised:
                recompute_statistics(network, training())
                for name in batchnorm_layers(network):
                    for statistic in ("running_mean", "running_var"):
                        key = f"{name}.{statistic}"
                        state[key] = network.get_buffer(key).to(state[key].device, state[key].dtype)
            yield network


def _moved(tensor: Tensor, dtype: torch.dtype, device: torch.device, *, copy: bool) -> Tensor:
    return tensor.detach().to(device, dtype, copy=copy)


def _shared_parameters(network: nn.Module) -> dict[str, str]:
    """Names of parameters that have several, with the first of them."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: several[0] for several in names.values() if len(several) > 1 for name in several}


def _head_of(network: nn.Module) -> str | None:
    """The linear layer that classifies; None where there are several, or another one."""
    layers = classifier_layers(network)
    return layers[0] if len(layers) == 1 and isinstance(network.get_submodule(layers[0]), nn.Linear) else None
