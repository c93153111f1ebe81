"""The fitted temperature is the optimum of the loss, and changes nothing but the loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transferscope.analysis.connection import fit_temperature, tempered
from transferscope.analysis.connection.tempering import BOUND
from transferscope.system.errors import UserError

GENERATOR = torch.Generator().manual_seed(3)


def single(scale: float = 1.0, examples: int = 4000) -> tuple[Tensor, Tensor]:
    """Logits that are `scale` times those from which the labels were drawn."""
    true = 2 * torch.randn(examples, 5, generator=GENERATOR)
    labels = torch.multinomial(true.softmax(1), 1, generator=GENERATOR)[:, 0]
    return scale * true, labels


def multi(scale: float = 1.0, examples: int = 4000) -> tuple[Tensor, Tensor]:
    """The same for three findings an example, a fifth of them unknown."""
    true = 2 * torch.randn(examples, 3, generator=GENERATOR)
    labels = torch.bernoulli(true.sigmoid(), generator=GENERATOR).long()
    unknown = torch.rand(labels.shape, generator=GENERATOR) < 0.2
    return scale * true, torch.where(unknown, -1, labels)


@pytest.mark.parametrize("draw", [single, multi])
@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
def test_scale_is_recovered(draw, scale: float) -> None:
    """Logits that were multiplied by a number after the labels were drawn get about that number as temperature."""
    temperature = fit_temperature(*draw(scale))
    assert temperature.value == pytest.approx(scale, rel=0.08)
    assert not temperature.at_bound


def test_no_grid_is_better() -> None:
    """Torch's own losses over a fine grid of temperatures have their minimum at the fitted one."""
    logits, labels = single(0.5, 300)
    temperature = fit_temperature(logits, labels)
    grid = np.geomspace(0.05, 20, 4001)
    losses = [float(F.cross_entropy(logits.double() / t, labels)) for t in grid]
    assert temperature.value == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)
    assert temperature.loss <= min(losses) + 1e-12

    logits, labels = multi(0.5, 300)
    known = labels >= 0
    temperature = fit_temperature(logits, labels)
    losses = [
        float(F.binary_cross_entropy_with_logits(logits[known].double() / t, labels[known].double())) for t in grid
    ]
    assert temperature.value == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)
    assert temperature.loss <= min(losses) + 1e-12


def test_equivariance() -> None:
    """Ten times the logits have ten times the temperature, and the same loss."""
    logits, labels = single(1.0, 500)
    one, ten = fit_temperature(logits, labels), fit_temperature(10 * logits, labels)
    assert ten.value == pytest.approx(10 * one.value, rel=1e-4)
    assert ten.loss == pytest.approx(one.loss, rel=1e-6)


def test_order_is_kept() -> None:
    """Tempered logits have the order of the logits, in each row and over examples, so accuracy and AUC stay."""
    logits, labels = single(3.0, 200)
    cooled = tempered(logits, fit_temperature(logits, labels))
    assert torch.equal(cooled.argsort(1), logits.argsort(1))
    assert torch.equal(cooled.argsort(0), logits.argsort(0))


def test_bounds() -> None:
    """Right answers only, and answers worse than chance, run to a bound and say so."""
    logits, _ = single(1.0, 100)
    right = fit_temperature(logits, logits.argmax(1))
    wrong = fit_temperature(logits, logits.argmin(1))
    assert (right.value, right.at_bound) == (1 / BOUND, True)
    assert (wrong.value, wrong.at_bound) == (BOUND, True)
    flat = fit_temperature(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    assert (flat.value, flat.at_bound) == (1.0, True)
    assert flat.loss == pytest.approx(math.log(3))


def test_bad_input() -> None:
    """Non-finite logits give NaN; nothing to fit on is an error."""
    assert math.isnan(fit_temperature(torch.tensor([[math.nan, 1.0]]), torch.tensor([0])).value)
    with pytest.raises(UserError, match="0 logits"):
        fit_temperature(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(UserError, match="all are -1"):
        fit_temperature(torch.zeros(2, 2), torch.full((2, 2), -1))
