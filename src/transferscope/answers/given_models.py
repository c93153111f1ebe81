"""Checkpoints of what a notebook has: paths, state dicts, networks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from transferscope.answers.given_networks import name_of, num_outputs, without_wrappers
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint
from transferscope.models.compatible import infer_num_classes
from transferscope.models.image_input import fixed_side
from transferscope.models.recognition import hints_of, recognize
from transferscope.models.state_dicts import check_values
from transferscope.models.zoo import tried_network
from transferscope.system.errors import UserError
from transferscope.system.references import allow, is_reference

log = logging.getLogger(__name__)

Given = str | Path | Mapping[str, Tensor] | nn.Module | Checkpoint
"""A model as `compare` takes it."""


@dataclass(frozen=True)
class GivenModel:
    """A checkpoint under its architecture's names, with its label, its file and the side of images that it demands."""

    label: str
    checkpoint: Checkpoint
    file: str
    side: int | None


def take(given: Given, label: str, task: str, run: str, model: str | nn.Module | None) -> GivenModel:
    """Make a checkpoint of a model.

    model: name of the architecture of files and state dicts, or a network whose copies take the weights; None: as the
    file says, or recognised from the tensors.

    Raises:
        UserError: The weights cannot be read, fit no network that is known, or are no numbers.
    """
    file = str(given) if isinstance(given, str | Path) else ""
    checkpoint = _checkpoint(given, label)
    check_values(checkpoint.state_dict, where=label)
    if checkpoint.metadata.architecture is None:
        checkpoint = _named(checkpoint, label, model, file)
    checkpoint = checkpoint.fitted()
    known = checkpoint.metadata
    assert known.architecture is not None
    if known.num_classes is None:
        source = checkpoint.source
        classes = infer_num_classes(checkpoint.state_dict, known.architecture, known.model_options, source=source)
        checkpoint = checkpoint.with_metadata(num_classes=classes)
    side = fixed_side(tried_network(known.architecture, known.model_options))
    epoch = 1 if known.epoch is None else known.epoch
    return GivenModel(label, checkpoint.with_metadata(task=task, run=run, epoch=epoch), file, side)


def _checkpoint(given: Given, label: str) -> Checkpoint:
    if isinstance(given, Checkpoint):
        return given
    if isinstance(given, str | Path):
        return load_checkpoint(given)
    if isinstance(given, nn.Module):
        given = without_wrappers(given)
        state = {key: _values(tensor, key, label) for key, tensor in given.state_dict().items()}
        reference = name_of(given)
        return Checkpoint(state, CheckpointMetadata(architecture=reference, num_classes=num_outputs(reference)))
    if isinstance(given, Mapping):
        state = {str(key): tensor for key, tensor in given.items()}
        others = [key for key, tensor in state.items() if not isinstance(tensor, Tensor)]
        if others or not state:
            raise UserError(
                f"{label}: {others[0] if others else 'it'} is no tensor: give a state_dict, a path or a network"
            )
        return Checkpoint({key: tensor.detach().cpu() for key, tensor in state.items()})
    raise UserError(f"{label} is a {type(given).__name__}: give a path, a state_dict, a network or a Checkpoint")


def _values(tensor: Any, name: str, label: str) -> Tensor:
    """A copy of a tensor on the CPU. Raises UserError where it has no values, or is none, as after quantising."""
    if not isinstance(tensor, Tensor) or tensor.is_quantized:
        raise UserError(f"{label}: {name} is no tensor of numbers: give the network before it is quantised")
    if is_lazy(tensor) or tensor.is_meta:
        raise UserError(f"{label}: {name} has no values yet: put an image through the network, or load its weights")
    return tensor.detach().cpu().clone()


def _named(checkpoint: Checkpoint, label: str, model: str | nn.Module | None, file: str) -> Checkpoint:
    """The checkpoint with its architecture, as it is named or recognised."""
    if isinstance(model, nn.Module):
        reference = name_of(without_wrappers(model))
        return checkpoint.with_metadata(architecture=reference, num_classes=num_outputs(reference))
    if model is not None:
        if is_reference(model):
            allow(model)
        return checkpoint.with_metadata(architecture=model)
    try:
        recognition = recognize([checkpoint.state_dict], hints=hints_of(checkpoint, file))
    except UserError as error:
        raise UserError(f"{label}: {error}") from None
    line = f"recognised as {recognition.name} with {recognition.num_classes} classes ({recognition.evidence})"
    log.log(logging.WARNING if recognition.rivals else logging.INFO, "%s: %s", label, line)
    named = checkpoint.with_metadata(
        architecture=recognition.name, model_options=recognition.options, num_classes=recognition.num_classes
    )
    return named.with_notes([line])


def labels_for(number: int, names: Sequence[str] | None) -> list[str]:
    """A, B, C and so on, or the names given. Raises UserError where their number differs or a name is there twice."""
    if names is None:
        return [chr(ord("A") + index) if number <= 26 else f"model {index + 1}" for index in range(number)]
    if len(names) != number or len(set(names)) != number:
        raise UserError(f"names: {len(names)} are given ({', '.join(names)}) for {number} models: give each its own")
    return list(names)
