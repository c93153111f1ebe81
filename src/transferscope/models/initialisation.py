"""Initial weights of a run: random ones, or those of a pre-trained model, or part of them, under a new classifier."""

from __future__ import annotations

import logging

from torch import nn

from transferscope.experiment.options import ModelOptions, Transfer
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.compatible import check_compatible, classifier_keys
from transferscope.models.fit_to_model import fit_to_model
from transferscope.models.transfer import statistics_of, up_to_module
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

log = logging.getLogger(__name__)


def initialise(
    model: str | ModelOptions,
    num_classes: int,
    *,
    init_seed: int,
    pretrained: Checkpoint | None = None,
    transfer: Transfer = "weights",
    transfer_until: str | None = None,
) -> nn.Module:
    """A model in training mode: all of it drawn by `init_seed`, or all but the classifier taken from `pretrained`.

    With `transfer` "statistics" not the weights are taken but the mean and standard deviation of each tensor
    (`statistics_of`). `transfer_until` names the last module of which anything is taken (`up_to_module`); what comes
    after it is drawn.

    The classifier drawn by a seed is the same with and without `pretrained`. The number of classes of the
    pre-trained model does not matter, nor whether it has a classifier at all; every other tensor must match by name
    and shape. As in the authors' code only the classifier's weight and bias are new: the scalar bias before it, in
    Fixup networks, comes from the pre-trained model.

    Raises UserError that lists what does not match.
    """
    options = ModelOptions(name=model) if isinstance(model, str) else model
    network = build_model(options.name, num_classes, seed=init_seed, **options.options)
    if pretrained is None:
        return network
    _check_architecture(pretrained, options)
    new = classifier_keys(network)
    weights, notes = fit_to_model(pretrained.state_dict, network, ignore=new)
    for note in notes:
        log.info("%s: %s", pretrained.source, note)
    check_compatible(weights, network, source=pretrained.source, expected=options.name, ignore=new)
    if transfer_until is not None:
        weights = up_to_module(weights, network, transfer_until)
    if transfer == "statistics":
        weights = statistics_of(weights, network, seed=init_seed)
    taken = {key: value for key, value in weights.items() if key not in new}
    network.load_state_dict(taken, strict=False)
    return network


def _check_architecture(pretrained: Checkpoint, options: ModelOptions) -> None:
    """Two networks may share every name and shape and still compute different functions."""
    made_as = pretrained.metadata.architecture
    if made_as not in (None, options.name):
        raise UserError(f"{pretrained.source} is of {made_as}, not of {options.name}: pre-train the same architecture")
