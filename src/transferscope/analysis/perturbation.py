"""One module on its way from its initial to its final value, disturbed by noise; all others keep their final values."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from transferscope.analysis.interpolation import blend
from transferscope.analysis.states import State


class DirectPath:
    """(1 - alpha) initial + alpha final."""

    name = "direct"

    def __init__(self, initial: State, final: State, positions: Sequence[float]) -> None:
        self.initial, self.final, self.positions = initial, final, positions

    def values(self, keys: Sequence[str], position: float) -> dict[str, Tensor]:
        return {key: blend(self.initial[key], self.final[key], position) for key in keys}


class OptimizationPath:
    """The values that training went through."""

    name = "optimization"

    def __init__(self, initial: State, trajectory: Mapping[int, State]) -> None:
        self.initial, self.trajectory, self.positions = initial, trajectory, tuple(trajectory)

    def values(self, keys: Sequence[str], position: float) -> dict[str, Tensor]:
        return {key: self.trajectory[int(position)][key] for key in keys}


Case = tuple[str, float, float]
"""(module, position, sigma)."""

Path = DirectPath | OptimizationPath


@dataclass
class Mover:
    """Writes one module's perturbed values into the model, and its final ones back."""

    name: str
    keys: tuple[str, ...]
    model: nn.Module
    path: Path
    final: State
    sigmas: Sequence[float]
    draws: Sequence[int]
    seed: int
    only: Collection[Case] | None
    noise: dict[int, dict[str, Tensor]] = field(init=False)
    cases: list[tuple[float, float, int]] = field(init=False)
    """(position, sigma, draw), in the order in which they are measured."""

    def __post_init__(self) -> None:
        own = self.model.state_dict()
        parameters = dict(self.model.named_parameters())
        self.targets = {key: own[key] for key in self.keys}
        self.disturbed = [key for key in self.keys if key in parameters and own[key].is_floating_point()]
        self.noise = {
            draw: {key: standard_noise(self.final[key], self.seed, key, draw) for key in self.disturbed}
            for draw in self.draws
        }
        self.cases = [
            (position, float(sigma), draw)
            for position in self.path.positions
            for sigma in self.sigmas
            for draw in (self.draws if sigma > 0 else [0])
            if self.only is None or (self.name, position, sigma) in self.only
        ]

    def each_case(self) -> Iterator[int]:
        """Set the module to every case in turn, yielding its index; the final values are written back at the end."""
        position, values = None, {}
        for index, (at, sigma, draw) in enumerate(self.cases):
            if at != position:
                position, values = at, self.path.values(self.keys, at)
            self._write(values)
            if sigma > 0:
                self._write_disturbed(values, draw, sigma)
            yield index
        self.restore()

    def distance(self, position: float) -> float:
        """l2 distance of the module's parameters at `position` from their initial value."""
        values = self.path.values(self.keys, position)
        squares = ((values[key].double() - self.path.initial[key].double()).square().sum() for key in self.disturbed)
        return math.fsum(square.item() for square in squares) ** 0.5

    def restore(self) -> None:
        """Write the final values back."""
        self._write(self.final)

    def _write_disturbed(self, values: State, draw: int, sigma: float) -> None:
        # Added in the precision of the values, so that a bfloat16 model rounds once.
        for key in self.disturbed:
            torch.add(values[key], self.noise[draw][key], alpha=sigma, out=self.targets[key])

    def _write(self, values: State) -> None:
        for key, target in self.targets.items():
            target.copy_(values[key])


def standard_noise(like: Tensor, seed: int, key: str, draw: int) -> Tensor:
    """N(0, 1) of the shape and place of `like`: one stream per (seed, parameter, draw), drawn on the CPU."""
    digest = hashlib.sha256(f"{seed}/{key}/{draw}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    noise = torch.empty_like(like)
    return noise.copy_(torch.randn(like.shape, generator=generator, dtype=torch.float32))
