"""Checkpoints as analyses of weights see them, where the forward pass computes weights from what is stored.

A stored tensor of such a layer says little: ten times the tensor may be the same function. Analyses of weights take
a model of plain layers in its place (`plain_layers`): the same function, whose stored weights are those that forward
applied.
"""

from __future__ import annotations

import json
from functools import lru_cache

from torch import Tensor, nn

from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, check_named
from transferscope.models.plain_layers import has_plain_layers, make_plain
from transferscope.models.plain_layers import layers_of_unknown_map as layers_of_unknown_map
from transferscope.models.state_dicts import widened
from transferscope.models.zoo import tried_network


def analysed_model(checkpoint: Checkpoint) -> nn.Module:
    """The checkpoint's model as analyses of weights see it, in evaluation mode: the same function, plain layers."""
    model = checkpoint.build()
    if not is_plain(checkpoint.metadata, checkpoint.source):
        make_plain(model)
    return model


def analysed_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The state_dict of `analysed_model`; that of the checkpoint itself where all of its layers are plain.

    Tensors of half precision and of eight bits are widened to float32, which holds their values exactly.
    """
    state = (
        checkpoint.state_dict
        if is_plain(checkpoint.metadata, checkpoint.source)
        else analysed_model(checkpoint).state_dict()
    )
    return {key: widened(tensor) for key, tensor in state.items()}


def is_plain(metadata: CheckpointMetadata, source: str) -> bool:
    """True where all layers of an architecture apply the weights that they store; not known without a name."""
    name = metadata.architecture
    if name is not None:
        check_named(name, source)
    return name is not None and _is_plain_architecture(name, json.dumps(metadata.model_options))


@lru_cache
def _is_plain_architecture(name: str, options: str) -> bool:
    return has_plain_layers(tried_network(name, json.loads(options)))
