"""Lines between two models whose true barrier is known, and samples of the examples on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ALPHAS = np.linspace(0, 1, 11)
Floats = NDArray[np.float64]

SHAPES = {
    "flat": np.zeros(11),
    "bowl": 4 * ALPHAS * (1 - ALPHAS),
    "peak": np.maximum(0, 1 - np.abs(ALPHAS - 0.5) / 0.25),
}


def right_or_wrong(
    shape: str, height: float, num: int, generator: np.random.Generator, flips: float = 0.03
) -> tuple[Floats, float]:
    """0 or 1 for every place and example, (11, num), and the true barrier in accuracy.

    A model at each end is right on about 80 % of the examples; between them `height` times the shape fewer, always
    the same ones; and every model errs on its own on a share `flips`, which makes the places as independent of each
    other as they can be.
    """
    rate = 0.8 - height * SHAPES[shape]
    both = generator.random(num) < rate[:, None]
    correct = both ^ (generator.random((11, num)) < flips)
    true = rate * (1 - flips) + (1 - rate) * flips
    chord = (1 - ALPHAS) * true[0] + ALPHAS * true[-1]
    return correct.astype(float), float((chord - true)[1:-1].max())


def losses(shape: str, height: float, num: int, generator: np.random.Generator) -> tuple[Floats, float]:
    """A skewed loss of every example at every place, (11, num), and the true barrier."""
    easy = generator.exponential(1.0, num) * (1 + 0.2 * generator.standard_normal((11, num)))
    return easy + height * SHAPES[shape][:, None], height * float(SHAPES[shape].max())


def rare_losses(
    share: float, height: float, num: int, generator: np.random.Generator, common: float = 0.0
) -> tuple[Floats, float]:
    """Losses of ends that know nearly every example, (11, num), and the true barrier in a bowl.

    All of it but `common` is made by a share of the examples alone, the others are well known everywhere.
    """
    easy = 0.02 * generator.exponential(1.0, num) * (1 + 0.2 * generator.standard_normal((11, num)))
    hard = (generator.random(num) < share) * (height - common) / share
    return easy + (hard + common) * SHAPES["bowl"][:, None], height


def resampled(values: Floats, generator: np.random.Generator, num_resamples: int = 300) -> Floats:
    """The mean of each place over all examples and under every resample, (1 + num_resamples, 11)."""
    num = values.shape[1]
    counts = generator.multinomial(num, np.full(num, 1 / num), num_resamples)
    return np.vstack([values.mean(axis=1), counts @ values.T / num])
