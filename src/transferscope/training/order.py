"""The order of the examples and the seeds of all draws: functions of (order_seed, epoch, step), and of nothing else."""

from __future__ import annotations

import numpy as np


def epoch_order(order_seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Permutation of the training examples in an epoch."""
    return np.random.default_rng([order_seed, epoch]).permutation(num_examples)


def step_seed(order_seed: int, epoch: int, step: int) -> int:
    """Seed of all draws of a step: augmentation, mixup, dropout."""
    return int(np.random.SeedSequence([order_seed, epoch, step, 1]).generate_state(1, np.uint64)[0]) >> 2
