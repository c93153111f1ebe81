"""Seeds and orders: every draw follows from names and numbers alone.

A run's initial weights follow from the study's seed, its task, kind and replica (`initialisation_seed_of`), and so does
its order seed (`order_seed_of`). The order of the examples of an epoch, and the draws of an optimizer step, follow from
the order seed and the number of the epoch and of the step. Adding to a study changes no seed of what was there, and a
training that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from names and numbers; the same on every machine and in every version."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def initialisation_seed_of(study_seed: int, task: str, kind: str, replica: int) -> int:
    """Seed of the initial weights of a run; runs that share them have that of the kind whose weights are drawn."""
    return derive_seed(study_seed, task, kind, replica, "initialisation")


def order_seed_of(study_seed: int, task: str, kind: str, replica: int, *split_epoch: int) -> int:
    """Seed of the order of the examples and of all draws of a run; `split_epoch`: of a copy that splits there."""
    return derive_seed(study_seed, task, kind, replica, "order", *split_epoch)


def epoch_order(order_seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Permutation of the training examples in an epoch."""
    return np.random.default_rng([order_seed, epoch]).permutation(num_examples)


def step_seed(order_seed: int, epoch: int, step: int) -> int:
    """Seed of all draws of an optimizer step: augmentation, mixup, dropout."""
    return int(np.random.SeedSequence([order_seed, epoch, step, 1]).generate_state(1, np.uint64)[0]) >> 2
