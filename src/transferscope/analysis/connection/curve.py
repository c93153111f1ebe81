"""A trained curve between two networks: a quadratic Bezier with one bend.

Garipov et al. 2018, "Loss surfaces, mode connectivity, and fast ensembling of DNNs": minima that no straight line
connects are connected by simple curves of low loss. Where such a curve exists the two networks lie in one connected
set of good solutions, straight barrier or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transferscope.analysis.batchnorm import batchnorm_layers
from transferscope.analysis.evaluator import Batch
from transferscope.analysis.interpolation import interpolate
from transferscope.analysis.states import State, check_same_tensors, describe_nonfinite, widened, write_state
from transferscope.models.duplicate import duplicate
from transferscope.models.plain_sgd import PlainSGD
from transferscope.system.errors import UserError

GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, fill the unit interval evenly, however many there are (a sequence of low discrepancy)."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of logits (B, num_classes) against labels."""


@dataclass(frozen=True)
class CurveTraining:
    """Training of a bend: SGD with momentum, a learning rate that falls linearly to 0 after a warm-up."""

    steps: int = 160
    """Optimizer steps."""
    lr: float = 0.2
    """Peak learning rate. A point at t moves by 2 t (1 - t) <= 1/2 of the bend's step, so it exceeds a training's."""
    momentum: float = 0.9
    warmup_fraction: float = 0.1
    clip_norm: float = 2.0
    """Largest norm of the bend's gradient."""

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        part, warmup = (step + 0.5) / self.steps, self.warmup_fraction
        return self.lr * (part / warmup if part < warmup else (1 - part) / (1 - warmup))


def bezier(state_a: State, bend: State, state_b: State, t: float) -> dict[str, Tensor]:
    """(1 - t)^2 a + 2 t (1 - t) bend + t^2 b for every floating-point tensor. New tensors, float32 at least.

    t = 0 and t = 1 give the values of a and b. Integer tensors come from the nearer end. UserError for t outside
    [0, 1] and for states of different architectures.
    """
    if not 0 <= t <= 1:
        raise UserError(f"t is {t}: a curve goes from 0 (the first checkpoint) to 1 (the second)")
    check_same_tensors(state_a, state_b, "checkpoint a", "checkpoint b")
    check_same_tensors(state_a, bend, "the checkpoints", "the bend")
    if t in (0, 1):
        return interpolate(state_a, state_b, t)
    nearer = state_a if t < 0.5 else state_b
    return {
        key: _point(tensor, bend[key], state_b[key], t) if tensor.is_floating_point() else nearer[key].detach().clone()
        for key, tensor in state_a.items()
    }


def train_curve(
    model: nn.Module,
    state_a: State,
    state_b: State,
    batches: Iterable[Batch],
    loss: Loss,
    options: CurveTraining | None = None,
    *,
    advance: Callable[[], None] | None = None,
) -> dict[str, Tensor]:
    """The bend of a quadratic Bezier curve from a to b with a small mean training loss along it.

    Every optimizer step puts a batch through the network at one t of [0, 1], the next of a sequence that fills the
    interval evenly. The bend starts in the middle, where the curve is the straight line. BatchNorm layers normalise by
    the batch while the bend is trained, so statistics are to be recomputed at every point of the curve afterwards.
    Dropout and the like are off: the result depends on the batches and their order alone.

    Args:
        model: The architecture; it is copied, its own weights stay.
        batches: Shuffled batches, at least as many as there are steps. They are taken one at a time.
        loss: Mean loss of a batch.
        advance: Called after every step.

    Returns:
        A state_dict on the CPU; statistics of BatchNorm are those half-way.

    Raises:
        UserError: For weights of another architecture, non-finite ones, too few batches, and where the loss ceases to
            be finite.
    """
    options = options or CurveTraining()
    if options.steps < 1 or not options.lr > 0 or not 0 <= options.warmup_fraction < 1:
        raise UserError(f"{options}: steps and lr must be positive, warmup_fraction at least 0 and below 1")
    for state, name in ((state_a, "checkpoint a"), (state_b, "checkpoint b")):
        check_same_tensors(model.state_dict(), state, "the network", name)
        if fault := describe_nonfinite(state, name):
            raise UserError(f"{fault}: no curve can be trained to a network that diverged")
    trained = _Curve(model, state_a, state_b, options)
    for step, batch in zip(range(options.steps), batches, strict=False):
        trained.step(batch, loss, step)
        if advance:
            advance()
    if trained.done < options.steps:
        raise UserError(f"a curve of {options.steps} steps got {trained.done} batches: give one for each step")
    return trained.bend()


class _Curve:
    """A network that moves along the curve, and the bend that its gradients train."""

    def __init__(self, model: nn.Module, state_a: State, state_b: State, options: CurveTraining) -> None:
        self.options, self.done = options, 0
        self.network = duplicate(model).eval()
        self.middle = interpolate(state_a, state_b, 0.5)
        write_state(self.network, self.middle)
        for layer in batchnorm_layers(self.network).values():
            layer.train()
        named = self.network.named_parameters()
        self.parameters = {name: tensor.requires_grad_() for name, tensor in named if tensor.is_floating_point()}
        self.ends = [
            {name: _like(state[name], tensor) for name, tensor in self.parameters.items()}
            for state in (state_a, state_b)
        ]
        self.bends = {name: tensor.detach().clone() for name, tensor in self.parameters.items()}
        self.optimizer = PlainSGD(list(self.bends.values()), lr=options.lr, momentum=options.momentum)

    def step(self, batch: Batch, loss: Loss, number: int) -> None:
        """One optimizer step of the bend."""
        t = (0.5 + number * GOLDEN) % 1
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                start, end = (ends[name] for ends in self.ends)
                torch.mul(start, (1 - t) ** 2, out=tensor.data)
                tensor.data.add_(self.bends[name], alpha=2 * t * (1 - t)).add_(end, alpha=t**2)
        self.network.zero_grad(set_to_none=True)
        loss(self.network(batch[0]), batch[1]).backward()
        for name, tensor in self.parameters.items():
            self.bends[name].grad = None if tensor.grad is None else tensor.grad.mul_(2 * t * (1 - t))
        norm = nn.utils.clip_grad_norm_(list(self.bends.values()), self.options.clip_norm)
        if not math.isfinite(float(norm)):
            raise UserError(f"the loss on the curve ceases to be finite at learning rate {self.options.lr}: lower it")
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate(number)
        self.optimizer.step()
        self.done += 1

    def bend(self) -> dict[str, Tensor]:
        write_state(self.network, self.middle)
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                tensor.copy_(self.bends[name])
        return {key: tensor.detach().cpu().clone() for key, tensor in self.network.state_dict().items()}


def _point(start: Tensor, bend: Tensor, end: Tensor, t: float) -> Tensor:
    start, bend, end = (widened(tensor.detach()) for tensor in (start, bend, end))
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end


def _like(tensor: Tensor, own: Tensor) -> Tensor:
    """On the device, in the dtype and in the memory format of the network's own tensor."""
    return torch.empty_like(own).copy_(tensor).detach()
