"""Checks of state_dicts for the landscape analyses: same tensors, finite values, in-place writes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transferscope.models.state_dicts import ComputedState as ComputedState
from transferscope.models.state_dicts import state_digest as state_digest
from transferscope.models.state_dicts import widened as widened
from transferscope.system.errors import UserError

State = Mapping[str, Tensor]

RUNNING_STATISTICS = ("running_mean", "running_var")

_NAMED = 8


@dataclass(frozen=True)
class TensorKinds:
    """Tell weights from statistics among the tensors of a state_dict; counters and the like are neither.

    weights: parameters, a tensor that several layers share once. statistics: floating-point buffers, as the running
    means and variances of BatchNorm, which follow from weights and images.
    """

    weights: frozenset[str]
    statistics: frozenset[str]

    @staticmethod
    def of_model(model: nn.Module) -> TensorKinds:
        """As the model registered them."""
        every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        own = {name for name, parameter in model.named_parameters() if parameter.is_floating_point()}
        buffers = {key for key, tensor in model.state_dict().items() if tensor.is_floating_point()} - every
        return TensorKinds(frozenset(own), frozenset(key for key in buffers if not _is_auxiliary(model, key)))

    @staticmethod
    def of_state(state: State) -> TensorKinds:
        """By name, where no model is at hand: what is called running_mean or running_var is a statistic."""
        floating = {key for key, tensor in state.items() if tensor.is_floating_point()}
        statistics = {key for key in floating if key.rpartition(".")[2] in RUNNING_STATISTICS}
        return TensorKinds(frozenset(floating - statistics), frozenset(statistics))


def _is_auxiliary(model: nn.Module, key: str) -> bool:
    """True if a buffer holds the vectors of spectral normalisation's power iteration."""
    path, _, name = key.rpartition(".")
    layer = model.get_submodule(path)
    return hasattr(layer, name.removesuffix("_u").removesuffix("_v") + "_orig") or name in ("_u", "_v")


def check_same_tensors(state_a: State, state_b: State, name_a: str = "a", name_b: str = "b") -> None:
    """Raise a UserError that lists the tensors by which two states differ in name or shape."""
    differences = [f"{key} only in {name_a}" for key in state_a if key not in state_b]
    differences += [f"{key} only in {name_b}" for key in state_b if key not in state_a]
    differences += [
        f"{key} {tuple(tensor.shape)} in {name_a} but {tuple(state_b[key].shape)} in {name_b}"
        for key, tensor in state_a.items()
        if key in state_b and tensor.shape != state_b[key].shape
    ]
    complex_valued = [key for key, tensor in state_a.items() if tensor.is_complex()]
    if complex_valued:
        raise UserError(f"{name_a} holds complex tensors, which have no analysis yet: {_enumerate(complex_valued)}")
    if differences:
        raise UserError(
            f"{name_a} and {name_b} are not weights of one architecture: {_enumerate(differences)}; "
            "compare checkpoints of the same model and number of classes"
        )


def check_modules(modules: Mapping[str, Iterable[str]], state: State) -> None:
    """Raise a UserError where a module names a tensor that the state lacks."""
    for module, keys in modules.items():
        missing = [key for key in keys if key not in state]
        if missing:
            raise UserError(f"module {module}: the checkpoint has no tensor {_enumerate(missing)}")


def find_module(name: str, modules: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The state_dict keys of a module, or a UserError that names the modules most like `name`."""
    if name in modules:
        return modules[name]
    near = difflib.get_close_matches(name, modules, n=3, cutoff=0.3) or list(modules)
    raise UserError(f"no module {name!r} in this model; did you mean {', '.join(near)}?")


def nonfinite_tensors(state: State) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity."""
    return [key for key, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]


def describe_nonfinite(state: State, name: str) -> str:
    """One phrase that names the non-finite tensors of a state; empty where all are finite."""
    names = nonfinite_tensors(state)
    return f"{name} has non-finite weights in {_enumerate(names)}" if names else ""


@torch.no_grad()
def write_state(model: nn.Module, state: State) -> None:
    """Copy `state` into the model's own tensors: no storage, memory format or dtype of the model changes.

    Each tensor is asked for once, as it may be computed. Raises UserError for tensors of other names or shapes, after
    those that fit are written.
    """
    own = model.state_dict()
    given = dict.fromkeys(state, torch.empty(0))
    for key, tensor in own.items():
        if key in state:
            new = state[key]
            given[key] = tensor if new.shape == tensor.shape else new
            if given[key] is tensor:
                tensor.copy_(new)
    check_same_tensors(own, given, "the model", "the state")


def stored_like(state: State, model: nn.Module) -> dict[str, Tensor]:
    """`state` on the model's devices and in its memory formats, so that repeated in-place writes stream through memory.

    Half precision becomes float32, float64 stays: points between two states are computed in float32 at least.
    """
    own = model.state_dict()
    check_same_tensors(own, state, "the model", "the state")
    return {key: _stored_like(tensor, own[key]) for key, tensor in state.items()}


def _stored_like(tensor: Tensor, like: Tensor) -> Tensor:
    moved = widened(tensor.detach().to(like.device))
    if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
        return moved.contiguous(memory_format=torch.channels_last)
    return moved.contiguous()


def _enumerate(items: list[str]) -> str:
    rest = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + rest
