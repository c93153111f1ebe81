"""Draw examples from those distributed."""

from __future__ import annotations

import re

import numpy as np

from transferscope.system.errors import UserError

DOMAINNET_SEED = 2020
CHEXPERT_SEED = 1234

_PATIENT = re.compile(r"(?:^|/)(patient[^/]+)/")


def draw_subset(num_examples: int, limit: int | None, seed: int = DOMAINNET_SEED) -> np.ndarray:
    """int64 positions of the study's subset: `limit` of them drawn without replacement where there are more.

    Source: the authors' code, `RandomState(2020).choice(n, 50000, replace=False)`.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}: give a positive number of examples, or None for all")
    if limit is None or num_examples <= limit:
        return np.arange(num_examples, dtype=np.int64)
    return np.random.RandomState(seed).choice(num_examples, limit, replace=False).astype(np.int64)


def draw_by_example(num_examples: int, sizes: tuple[int, ...], seed: int = CHEXPERT_SEED) -> list[np.ndarray]:
    """Consecutive pieces, of the given sizes, of one permutation of all examples.

    Source: the authors' code, `RandomState(1234).permutation(n)`: the first 50,000 train, the next 50,000 test.
    """
    order = np.random.RandomState(seed).permutation(num_examples).astype(np.int64)
    ends = np.cumsum(sizes)
    return [order[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def draw_by_group(groups: np.ndarray, sizes: tuple[int, ...], seed: int = CHEXPERT_SEED) -> list[np.ndarray] | None:
    """Pieces of exactly the given sizes that share no group; None where the groups do not suffice.

    Whole groups are taken in a random order; what exceeds a piece's size of its last group is left out of every piece.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    num_groups = int(group_of.max()) + 1 if len(group_of) else 0
    rank = np.empty(num_groups, dtype=np.int64)
    rank[np.random.RandomState(seed).permutation(num_groups)] = np.arange(num_groups)
    order = np.argsort(rank[group_of], kind="stable")
    rank_in_order = rank[group_of][order]
    pieces, start = [], 0
    for size in sizes:
        if start + size > len(order):
            return None
        pieces.append(order[start : start + size])
        if size:
            last = rank_in_order[start + size - 1]
            start = int(np.searchsorted(rank_in_order, last, side="right"))
    return pieces


def patient_of(path: str) -> str | None:
    """The patient in a path such as `train/patient00001/study1/view1_frontal.jpg`."""
    match = _PATIENT.search(path)
    return match.group(1) if match else None
