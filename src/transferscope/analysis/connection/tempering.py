"""One softmax temperature for a set of logits: it separates a model that is unsure from one that is wrong.

The average of two networks has small logits, so its loss rises even where its predictions stay right (arXiv
2510.08023). Dividing all logits by one number (Guo et al. 2017, "On calibration of modern neural networks") changes
neither accuracy nor AUC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from transferscope.analysis.evaluator import per_example
from transferscope.system.errors import UserError

BOUND = 100.0
"""Temperatures are looked for between 1 / BOUND and BOUND."""


@dataclass(frozen=True)
class Temperature:
    """The number that logits are divided by."""

    value: float
    loss: float
    """Mean loss at that temperature, nats per example or known label."""
    at_bound: bool = False
    """Whether the loss would fall further beyond: predictions that are all right, or no better than chance."""


def fit_temperature(logits: Tensor, labels: Tensor) -> Temperature:
    """The temperature with the smallest loss.

    The loss is convex in 1 / T, so the root of its derivative is the optimum (Brent's method, relative error 1e-6).

    Args:
        logits: (N, num_classes) floating-point.
        labels: As in `evaluation.Batch`: (N,) classes, or (N, num_classes) in {1, 0, -1}, -1 = ignored.

    Returns:
        `value` NaN where a logit is not finite; 1 at the bound where all logits of each example are equal.

    Raises:
        UserError: Without a known label.
    """
    if len(logits) == 0 or len(logits) != len(labels):
        raise UserError(f"a temperature for {len(logits)} logits and {len(labels)} labels: give as many of each")
    if labels.dim() == 2 and not (labels >= 0).any():
        raise UserError("a temperature needs a label that is known: all are -1")
    if not logits.isfinite().all():
        return Temperature(math.nan, math.nan)
    values = logits.double()
    slope = _slope_single(values, labels) if labels.dim() == 1 else _slope_multi(values, labels)
    lowest, highest = slope(1 / BOUND), slope(BOUND)
    if lowest == highest == 0:
        return Temperature(1.0, _loss(values, labels), at_bound=True)
    if lowest >= 0 or highest <= 0:
        value = BOUND if lowest >= 0 else 1 / BOUND
        return Temperature(value, _loss(values / value, labels), at_bound=True)
    value = math.exp(-brentq(lambda power: slope(math.exp(power)), -math.log(BOUND), math.log(BOUND), xtol=1e-6))
    return Temperature(value, _loss(values / value, labels))


def tempered(logits: Tensor, temperature: Temperature | float) -> Tensor:
    """The logits divided by the temperature, in float64."""
    value = temperature.value if isinstance(temperature, Temperature) else temperature
    return logits.double() / value


class _slope_single:
    """Derivative of the cross entropy by 1 / T, as a function of 1 / T."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self.logits = logits - logits.amax(dim=1, keepdim=True)
        self.right = self.logits.gather(1, labels[:, None]).mean()

    def __call__(self, inverse: float) -> float:
        weights = torch.softmax(self.logits * inverse, dim=1)
        return float((weights * self.logits).sum(dim=1).mean() - self.right)


class _slope_multi:
    """Derivative of the binary cross entropy by 1 / T, over known labels."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        known = labels >= 0
        self.logits, self.targets = logits[known], labels[known].double()

    def __call__(self, inverse: float) -> float:
        return float(((torch.sigmoid(self.logits * inverse) - self.targets) * self.logits).mean())


def _loss(logits: Tensor, labels: Tensor) -> float:
    _, losses, known = per_example(logits, labels)
    return float(losses.sum() / known.sum())
