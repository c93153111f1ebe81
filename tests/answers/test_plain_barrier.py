"""The barrier of a comparison against a loop of plain torch, at the comparison's own places."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compared_networks import CLASSES, draw, train
from transferscope.answers.comparison import compare

PLACES = 11
IMAGES = {"train": draw(200, 3), "test": draw(300, 1)}
"""Training images are one batch, so that statistics of BatchNorm do not depend on how they are divided."""
NOTHING_ELSE = dict.fromkeys(("mistakes", "similarity", "spectrum", "merging"))
ANALYSES = {
    "landscape": {
        "alphas": {"points": PLACES}, "resamples": 60, "max_examples": None,
        "basin": None, "criticality": None, "connection": None,
    }
} | NOTHING_ELSE  # fmt: skip


def network(seed: int, *, normalised: bool) -> nn.Module:
    """A small network that knows stripes, from a seed of its own."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d if normalised else lambda _: nn.Identity()
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), norm(12), nn.ReLU(), nn.Conv2d(12, 16, 3, 2), norm(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, CLASSES),
    )  # fmt: skip
    return train(model, 80, seed)


@torch.no_grad()
def accuracy(a: nn.Module, b: nn.Module, alpha: float) -> float:
    """Test accuracy of (1 - alpha) a + alpha b, with statistics of BatchNorm of one pass over the training images."""
    model = copy.deepcopy(a)
    for own, other in zip(model.parameters(), b.parameters(), strict=True):
        own.copy_((1 - alpha) * own + alpha * other)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    model.train()(IMAGES["train"][0])
    images, labels = IMAGES["test"]
    predicted: Tensor = model.eval()(images).argmax(dim=1)
    return float((predicted == labels).double().mean())


@pytest.mark.parametrize("normalised", [False, True])
def test_the_barrier_is_that_of_plain_torch_at_its_own_place(normalised: bool) -> None:
    """Accuracies of all places, the largest gap, and its place; the card's estimate lies within its interval there."""
    a, b = (network(seed, normalised=normalised) for seed in (4, 5))
    compared = compare(a, b, images=IMAGES, analyses=ANALYSES)
    points = compared.tables["interpolation"].query("split == 'test' and metric == 'accuracy' and 0 <= alpha <= 1")
    row = compared.tables["barriers"].query("split == 'test' and metric == 'accuracy'").iloc[0]
    alphas = np.linspace(0, 1, PLACES)
    values = np.array([accuracy(a, b, float(alpha)) for alpha in alphas])
    gaps = (1 - alphas) * values[0] + alphas * values[-1] - values
    assert np.allclose(points.sort_values("alpha")["value"], values, atol=1.01 / 300)  # a tie of two classes at most
    place = int(np.abs(alphas - row["barrier_alpha"]).argmin())
    assert gaps[place] >= gaps.max() - 2 / 300
    assert row["largest_gap"] == pytest.approx(gaps[place], abs=2 / 300)
    assert gaps[place] > 0.04
    answer = compared.card["basin"]
    assert answer.value == row["barrier"]
    assert answer.low <= gaps[place] <= answer.high
    assert abs(answer.value - gaps[place]) < 0.03
