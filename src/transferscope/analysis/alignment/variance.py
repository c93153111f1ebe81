"""Correction of the variance that averaging two networks takes away, folded into the weights.

Channels of the average of two networks vary less than those of either (Jordan et al., "REPAIR", arXiv 2211.08403).
Behind every convolution and linear layer but the last, layer by layer and each on the output of those corrected before,
a channel is scaled so that its standard deviation over given inputs is the interpolated one of the ends (`rescale`),
and shifted so that its mean is, too (`repair`). A scale folds into the layer's weight and bias exactly, a shift into
its bias, so the result is a plain state_dict. BatchNorm layers get the statistics of the average instead, which has
that very effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from transferscope.analysis.alignment.channel_moments import (
    Moments,
    channel_axis,
    check_count,
    layer_moments,
    listening,
)
from transferscope.analysis.batchnorm import batchnorm_layers
from transferscope.analysis.evaluator import Batches, iterate
from transferscope.analysis.interpolation import interpolate
from transferscope.analysis.states import State, check_same_tensors, describe_nonfinite, write_state
from transferscope.models.duplicate import duplicate
from transferscope.models.layers import evaluation_mode
from transferscope.system.errors import UserError

_DEAD = 1e-6
"""A channel whose standard deviation is below this part of its target, or of its layer's largest, cannot be scaled."""


@dataclass(frozen=True)
class Corrected:
    """The corrected average, and what was done to it."""

    state: dict[str, Tensor]
    """Weights of the same architecture."""
    scales: dict[str, Tensor] = field(repr=False)
    """By layer, (channels,)."""
    shifts: dict[str, Tensor] = field(repr=False)
    """By layer, (channels,): what was added behind the scaling; zero in `rescale`."""
    dead: int = 0
    """Channels that do not vary in the average and were left as they are."""
    normalised: tuple[str, ...] = ()
    """BatchNorm layers whose statistics were recomputed."""


def rescale(model: nn.Module, state_a: State, state_b: State, batches: Batches, alpha: float = 0.5) -> Corrected:
    """(1 - alpha) a + alpha b with the standard deviation of every channel brought to the interpolated one of the ends.

    Args:
        model: The architecture; its own weights stay as they are.
        batches: (inputs, labels) as for `Evaluator`, training images as a rule; labels are not used. With several
            batches every layer needs a pass of its own as far as that layer; one batch needs a single pass, and the
            memory for it. Otherwise memory does not grow with the number of batches.

    Raises:
        UserError: For weights of another architecture or non-finite ones, and for fewer than two values of a channel.
    """
    return CorrectedLine(model, state_a, state_b, batches, shift=False).at(alpha)


def repair(model: nn.Module, state_a: State, state_b: State, batches: Batches, alpha: float = 0.5) -> Corrected:
    """As `rescale`, with the mean of every channel brought to the interpolated one as well.

    A mean is shifted by a bias for every channel. Where a layer has none (Fixup networks have one scalar for a whole
    layer, which cannot shift channels apart) it is a UserError that names the layers: give `add_biases(model)`, the
    same architecture with biases, or use `rescale`. Weights without those biases are taken as having zeros there.
    """
    return CorrectedLine(model, state_a, state_b, batches, shift=True).at(alpha)


def add_biases(model: nn.Module) -> nn.Module:
    """A copy of the model in which every convolution and linear layer has a bias, zero where it had none.

    It computes the same function, and `repair` can shift its channels. Layers in front of a BatchNorm, which takes any
    bias away, stay as they are when they are followed by one in the order of registration.
    """
    extended = duplicate(model)
    layers = list(extended.modules())
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, _ConvNd | nn.Linear) and layer.bias is None and not isinstance(after, _BatchNorm):
            weight = layer.weight
            layer.bias = nn.Parameter(torch.zeros(_channels(layer), dtype=weight.dtype, device=weight.device))
    return extended


class CorrectedLine:
    """`rescale`, or with `shift` `repair`, between two networks at any number of alphas.

    The ends' statistics are measured once, when the line is made; each point then costs the passes of the average.
    Arguments and errors are those of `rescale` and `repair`.
    """

    def __init__(self, model: nn.Module, state_a: State, state_b: State, batches: Batches, *, shift: bool) -> None:
        self.model, self.batches, self.shift = model, batches, shift
        self.ends = _with_zero_biases(model, state_a), _with_zero_biases(model, state_b)
        for state, name in zip(self.ends, ("checkpoint a", "checkpoint b"), strict=True):
            check_same_tensors(model.state_dict(), state, "the network", name)
            if fault := describe_nonfinite(state, name):
                raise UserError(f"{fault}: the average of networks that diverged cannot be corrected")
        network = duplicate(model)
        write_state(network, self.ends[0])
        self.sites = _sites(network, batches)
        self.layers = [name for name in self.sites if not isinstance(network.get_submodule(name), _BatchNorm)]
        if shift:
            _check_biases(network, self.layers)
        self.moments = [layer_moments(model, state, batches, self.layers) for state in self.ends]

    def at(self, alpha: float) -> Corrected:
        """The corrected (1 - alpha) a + alpha b."""
        targets = {name: self._target(name, alpha) for name in self.layers}
        average = interpolate(*self.ends, alpha)
        return _corrected(self.model, average, self.sites, targets, self.batches, shift=self.shift)

    def _target(self, name: str, alpha: float) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of a layer."""
        one, other = (of_layers[name] for of_layers in self.moments)
        return (1 - alpha) * one.mean + alpha * other.mean, (1 - alpha) * one.std + alpha * other.std


def rescale_to_mean(model: nn.Module, average: State, states: Iterable[State], batches: Batches) -> Corrected:
    """An average of any number of networks, every channel with the mean standard deviation that it has in them.

    Args:
        average: Weights that are corrected, as the mean of all `states`; others and arguments else as for `rescale`.
        states: One after the other.

    Memory: one network, as tensors of `average` and of `states` are read when they are needed.

    Raises UserError as `rescale` does, and where there is no state.
    """
    network = duplicate(model)
    write_state(network, average)
    sites = _sites(network, batches)
    layers = [name for name in sites if not isinstance(network.get_submodule(name), _BatchNorm)]
    del network
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    count = 0
    for state in states:
        for name, moments in layer_moments(model, state, batches, layers).items():
            mean, std = sums.get(name, (torch.zeros(()), torch.zeros(())))
            sums[name] = mean + moments.mean, std + moments.std
        count += 1
    if count == 0:
        raise UserError("there is no network whose statistics the average could have: give at least one")
    targets = {name: (mean / count, std / count) for name, (mean, std) in sums.items()}
    return _corrected(model, average, sites, targets, batches, shift=False)


def _corrected(
    model: nn.Module,
    average: State,
    sites: list[str],
    targets: dict[str, tuple[Tensor, Tensor]],
    batches: Batches,
    *,
    shift: bool,
) -> Corrected:
    """The average with the channels of `sites` brought to the targets; those without any are BatchNorm layers."""
    network = duplicate(model)
    write_state(network, average)
    correction = _Correction(network, shift, targets)
    _walk(network, sites, batches, correction)
    state = {key: tensor.detach() for key, tensor in network.state_dict().items()}
    normalised = tuple(name for name in sites if name not in targets)
    return Corrected(state, correction.scales, correction.shifts, correction.dead, normalised)


@dataclass
class _Correction:
    """Changes a layer of the network in place from the moments of its output, or of a BatchNorm's input."""

    network: nn.Module
    shift: bool
    targets: dict[str, tuple[Tensor, Tensor]]
    scales: dict[str, Tensor] = field(default_factory=dict)
    shifts: dict[str, Tensor] = field(default_factory=dict)
    dead: int = 0

    def apply(self, name: str, moments: Moments) -> None:
        layer = self.network.get_submodule(name)
        check_count(name, moments.count)
        if isinstance(layer, _BatchNorm):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.copy_(moments.mean)
            layer.running_var.copy_(moments.squares / (moments.count - 1))
            return
        mean, std = self.targets[name]
        alive = moments.std > _DEAD * torch.maximum(std, moments.std.max())
        scale = torch.where(alive, std / torch.where(alive, moments.std, 1), 1)
        shift = torch.where(alive, mean - scale * moments.mean, 0) if self.shift else torch.zeros_like(mean)
        self.dead += int((~alive).sum())
        self.scales[name], self.shifts[name] = scale.float().cpu(), shift.float().cpu()
        _fold(layer, scale, shift)


def _fold(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Multiply a layer's output channels and add to them, by its weight and bias."""
    assert isinstance(layer, _ConvNd | nn.Linear)
    weight = layer.weight.detach()
    if isinstance(layer, _ConvTransposeNd):
        grouped = weight.view(layer.groups, -1, *weight.shape[1:])
        grouped *= scale.to(weight.dtype).view(layer.groups, 1, -1, *(1,) * (weight.dim() - 2))
    else:
        weight *= scale.to(weight.dtype).view(-1, *(1,) * (weight.dim() - 1))
    if layer.bias is not None:
        bias = layer.bias.detach()
        bias.copy_(scale * bias.double() + shift)


def _walk(network: nn.Module, sites: list[str], batches: Batches, correction: _Correction) -> None:
    """Correct the sites in order of the forward pass, each from moments behind all earlier corrections."""
    if not callable(batches) and len(batches) == 1:
        with torch.no_grad(), evaluation_mode(network), _corrected_on_the_way(network, sites, correction):
            network(batches[0][0])
        return
    for name in sites:
        moments = Moments(channel_axis(network.get_submodule(name)))
        with torch.no_grad(), evaluation_mode(network), _as_far_as(network, name, moments):
            for inputs, _ in iterate(batches):
                try:
                    network(inputs)
                except _Reached:
                    continue
        correction.apply(name, moments)


class _Reached(Exception):
    """The layer of interest has been computed; the rest of the pass is not needed."""


@contextmanager
def _as_far_as(network: nn.Module, name: str, moments: Moments) -> Iterator[None]:
    def listen(_: str, values: Tensor) -> None:
        moments.update(values)
        raise _Reached

    with listening(network, [name], listen):
        yield


@contextmanager
def _corrected_on_the_way(network: nn.Module, sites: list[str], correction: _Correction) -> Iterator[None]:
    """In a single pass over all inputs: each layer is corrected and computed once more."""

    def hook(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        moments = Moments(channel_axis(layer))
        moments.update(inputs[0] if isinstance(layer, _BatchNorm) else output)
        correction.apply(name, moments)
        return layer.forward(*inputs)

    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda layer, inputs, output, name=name: hook(name, layer, inputs, output)
        )
        for name in sites
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sites(network: nn.Module, batches: Batches) -> list[str]:
    """Layers to correct, in order of the forward pass.

    Convolutions and linear layers but those that put out the logits and those whose output is what a BatchNorm reads;
    and BatchNorm layers with stored statistics. UserError for a layer that is used twice, whose two outputs have
    statistics of their own.
    """
    names = {name: layer for name, layer in network.named_modules() if isinstance(layer, _ConvNd | nn.Linear)}
    norms = batchnorm_layers(network)
    order: list[str] = []
    outputs: dict[str, Tensor] = {}
    read: list[Tensor] = []

    def note_output(name: str, output: Tensor) -> None:
        if name in outputs:
            raise UserError(f"layer {name} is used twice in a pass: its outputs cannot be corrected by one scale")
        order.append(name)
        outputs[name] = output

    def note_input(name: str, values: Tensor) -> None:
        order.append(name)
        read.append(values)

    inputs = next(iter(iterate(batches)), None)
    if inputs is None:
        raise UserError("statistics of channels need images: the batches are empty")
    with (
        torch.no_grad(),
        evaluation_mode(network),
        listening(network, list(names), note_output),
        listening(network, list(norms), note_input),
    ):
        result = network(inputs[0][:2])
    logits = {id(part) for part in (result if isinstance(result, tuple | list) else [result])}
    normalised = {id(values) for values in read}
    return [name for name in order if name in norms or id(outputs[name]) not in logits | normalised]


def _with_zero_biases(model: nn.Module, state: State) -> dict[str, Tensor]:
    """The state, with zeros for biases of convolutions and linear layers that only the model has."""
    extended = dict(state)
    for name, layer in model.named_modules():
        key = f"{name}.bias" if name else "bias"
        if isinstance(layer, _ConvNd | nn.Linear) and layer.bias is not None and key not in state:
            extended[key] = torch.zeros_like(layer.bias.detach())
    return {key: extended[key] for key in model.state_dict() if key in extended} | extended


def _check_biases(network: nn.Module, layers: list[str]) -> None:
    without = [name for name in layers if getattr(network.get_submodule(name), "bias", None) is None]
    if without:
        more = f" and {len(without) - 5} more" if len(without) > 5 else ""
        raise UserError(
            f"repair shifts channels by biases, which {', '.join(without[:5])}{more} lack: "
            "give add_biases(model) as the model, or use rescale"
        )


def _channels(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else int(layer.out_channels)  # type: ignore[arg-type]
