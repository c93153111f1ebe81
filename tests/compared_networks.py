"""Networks that were trained for seconds, and the cards of every two of them, made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from transferscope.analysis.alignment import permutation_groups, permute
from transferscope.answers.comparison import Comparison, compare
from transferscope.models.zoo import build_model

SIDE, CLASSES, NUM_TRAIN, NUM_TEST = 12, 4, 480, 400
OPTIONS = {"blocks": [1, 1], "widths": [8, 12], "stem_kernel": 3, "stem_stride": 1}
MODEL = "fixup_resnet_small"
ANALYSES = {
    "mistakes": {"bootstrap": 100},
    "similarity": {"max_examples": 64},
    "landscape": {
        "alphas": {"points": 5},
        "resamples": 100,
        "connection": {
            "alphas": {"points": 3},
            "ways": ["straight", "rescaled", "aligned", "aligned_rescaled", "modules"],
        },
    },
}


def draw(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy images of stripes in four directions, which a small network confuses now and then."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, number)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    angles = np.pi * labels / CLASSES + generator.normal(0, 0.22, number)
    phase = generator.uniform(0, 2 * np.pi, (number, 1, 1))
    along = np.cos(angles)[:, None, None] * rows + np.sin(angles)[:, None, None] * columns
    waves = np.sin(1.6 * along + phase)[:, None] * generator.uniform(0.4, 1, (number, 3, 1, 1))
    images = waves + generator.normal(0, 0.7, (number, 3, SIDE, SIDE))
    return torch.from_numpy(images).float(), torch.from_numpy(labels)


class OtherNetwork(nn.Sequential):
    """An architecture of its own."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, CLASSES),
        )  # fmt: skip


def train(model: nn.Module, steps: int, seed: int, lr: float = 0.01) -> nn.Module:
    """Train on batches in the order of a seed."""
    images, labels = draw(NUM_TRAIN, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(0, NUM_TRAIN, (32,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return model.eval()


def fixup(seed: int, **options: Any) -> nn.Module:
    return build_model(MODEL, CLASSES, seed=seed, **OPTIONS | options)


@dataclass(frozen=True)
class Trained:
    """Weights by name: `parent` and `first`, `second`, both fine-tuned from it; `permuted`, `unrelated`, `other`."""

    models: dict[str, nn.Module]

    def state(self, name: str) -> dict[str, Tensor]:
        return {key: tensor.clone() for key, tensor in self.models[name].state_dict().items()}

    def logits(self, name: str) -> Tensor:
        """Of the test images, by torch alone."""
        with torch.no_grad():
            return self.models[name](self.images["test"][0])

    @property
    def images(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {"train": draw(NUM_TRAIN, 0), "test": draw(NUM_TEST, 1)}


@cache
def trained_networks() -> Trained:
    parent = train(fixup(0), 90, 0)
    models = {"parent": parent}
    for name, seed in (("first", 1), ("second", 2)):
        copy = fixup(0)
        copy.load_state_dict(parent.state_dict())
        models[name] = train(copy, 25, seed, lr=0.002)
    groups = permutation_groups(models["first"], torch.randn(1, 3, SIDE, SIDE))
    permuted = fixup(0)
    permuted.load_state_dict(permute(groups, groups.random(3), models["first"].state_dict()))
    models["permuted"] = permuted.eval()
    models["unrelated"] = train(fixup(9), 120, 9)
    torch.manual_seed(0)
    models["other"] = train(OtherNetwork(), 120, 3)
    return Trained(models)


@pytest.fixture(scope="session")
def trained() -> Trained:
    return trained_networks()


CASES = {
    "same_basin": ("first", "second"),
    "permuted": ("first", "permuted"),
    "unrelated": ("first", "unrelated"),
    "same_weights": ("first", "first"),
    "other_architecture": ("first", "other"),
}


@cache
def comparison_of(case: str, images: bool = True) -> Comparison:
    """The comparison of a case, by paths, state dicts and networks in turn."""
    trained = trained_networks()
    a, b = CASES[case]
    given = trained.images if images else None
    if case == "other_architecture":
        return compare(trained.models[a], trained.models[b], images=given, analyses=ANALYSES)
    return compare(trained.state(a), trained.state(b), images=given, model=trained.models[a], analyses=ANALYSES)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """Each of the cases."""
    return str(request.param)


def save(trained: Trained, name: str, folder: Path) -> Path:
    path = folder / f"{name}.pth"
    torch.save(trained.state(name), path)
    return path
