"""Blend the examples of a batch with each other (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """The draws of mixup for a batch."""

    weight: float | Tensor
    """Part of each example in its blend; the rest is its partner's. One for all, or float64 `(B,)`."""
    partners: Tensor
    """int64 (B,): the position of each example's partner."""

    @classmethod
    def draw(cls, count: int, alpha: float, generator: torch.Generator) -> Mixing:
        """Draw one weight ~ Beta(alpha, alpha) for the batch, and a permutation of its `count` examples."""
        weight = _draw_beta(alpha, generator)
        return cls(weight, torch.randperm(count, generator=generator, device=generator.device))

    @classmethod
    def joined(cls, several: Sequence[Mixing], count: int) -> Mixing:
        """The draws of several batches of `count` examples each, as of one batch."""
        weights = torch.tensor([mixing.weight for mixing in several], dtype=torch.float64).repeat_interleave(count)
        return cls(weights, torch.cat([mixing.partners + index * count for index, mixing in enumerate(several)]))

    def blend(self, batch: Tensor, others: Tensor) -> Tensor:
        """The blend of images (B, ...) with those of their partners."""
        weight = self.weight
        if isinstance(weight, Tensor):
            weight = weight.to(batch.device, batch.dtype, non_blocking=True).view(-1, *[1] * (batch.ndim - 1))
        return torch.lerp(others, batch, weight)

    def blend_targets(self, targets: Tensor) -> Tensor:
        """The blend of the targets (B, num_classes) of the batch; -1 (ignored) in either stays so."""
        other = self.partners.to(targets.device, non_blocking=True)
        ignored = (targets < 0) | (targets[other] < 0)
        return self.blend(targets, targets[other]).masked_fill_(ignored, -1.0)


def mixup(batch: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blend each example with another of the batch: lambda x + (1 - lambda) x', the same for the targets.

    One lambda ~ Beta(alpha, alpha) for the batch (Zhang et al. 2018, as in the authors' code). A target that is
    ignored (-1) in either example is ignored in the blend.

    Args:
        batch: float (B, ...).
        targets: float (B, num_classes): one-hot, or probabilities, or labels in {1, 0, -1}.
        alpha: 0 leaves everything as it is.
    """
    if alpha == 0:
        return batch, targets
    assert targets.is_floating_point()
    assert len(targets) == len(batch)
    mixing = Mixing.draw(len(batch), alpha, generator)
    others = batch[mixing.partners.to(batch.device, non_blocking=True)]
    return mixing.blend(batch, others), mixing.blend_targets(targets)


def _draw_beta(alpha: float, generator: torch.Generator) -> float:
    """One draw of Beta(alpha, alpha), by NumPy from a seed that the generator gives."""
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device).item()
    return float(np.random.default_rng(int(seed)).beta(alpha, alpha))
