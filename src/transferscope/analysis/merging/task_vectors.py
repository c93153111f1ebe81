"""Merges that start from the parent: WiSE-FT, task arithmetic and TIES.

A task vector is what training added to the parent, tau_i = theta_i - theta_parent. Tensors that the parent lacks or has
in another shape (the classifier of its own task) have no task vector; they are averaged over the candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from transferscope.analysis.interpolation import blend
from transferscope.analysis.merging.candidates import (
    check_candidates,
    check_parent,
    has_counterpart,
    in_parts,
    mean_tensor,
)
from transferscope.analysis.states import State, TensorKinds, widened
from transferscope.system.errors import UserError

_HALF = 16
"""Bits of a float32 that one pass of `_smallest_kept` decides."""


def wise_ft(parent: State, states: Sequence[State], alpha: float, free: Collection[str] = ()) -> dict[str, Tensor]:
    """(1 - alpha) parent + alpha mean of the candidates (Wortsman et al. 2022, arXiv 2109.01903, Eq. 1).

    The paper has one candidate; of several the uniform soup takes its place. alpha 0 gives the parent and 1 the soup,
    bit by bit, but for tensors without a counterpart in the parent, which are the soup's at every alpha.

    Args:
        free: Tensors that the parent may lack, as `models.compatible.classifier_keys` names them.

    Raises UserError for alpha outside [0, 1], and as `check_candidates` and `check_parent` do. Memory: the result and
    two tensors.
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha}: give a number from 0 (the parent) to 1 (the candidates)")
    check_candidates(states)
    check_parent(parent, states, free)
    return {key: _between(parent, states, key, alpha) for key in states[0]}


def _between(parent: State, states: Sequence[State], key: str, alpha: float) -> Tensor:
    mean = mean_tensor(states, key)
    return blend(parent[key], mean, alpha) if has_counterpart(parent, key, mean) else mean


def task_arithmetic(
    parent: State, states: Sequence[State], scale: float, free: Collection[str] = ()
) -> dict[str, Tensor]:
    """parent + scale * sum_i tau_i (Ilharco et al. 2023, arXiv 2212.04089, section 2).

    scale 0 is the parent, 1 / K the uniform soup of K candidates. Running statistics are averaged, since a sum of them
    may be a negative variance; arguments and errors else are those of `wise_ft`.
    """
    if not math.isfinite(scale):
        raise UserError(f"scale is {scale}: give a finite number, such as 0.3")
    check_candidates(states)
    check_parent(parent, states, free)
    moved = _with_vectors(parent, states)
    return {key: _summed(parent, states, key, scale, key in moved) for key in states[0]}


def _summed(parent: State, states: Sequence[State], key: str, scale: float, moved: bool) -> Tensor:
    mean = mean_tensor(states, key)
    if not moved:
        return mean
    start = parent[key].to(mean.device)
    dtype = torch.promote_types(mean.dtype, widened(start).dtype)
    total = torch.zeros(mean.shape, dtype=torch.float64, device=mean.device)
    del mean
    for state in states:
        for own, begun, moves in in_parts(state[key], start, total):
            moves += own.double() - begun.double()
    return _from_start(start, scale, total, dtype)


def _from_start(start: Tensor, scale: float, moves: Tensor, dtype: torch.dtype) -> Tensor:
    """start + scale * moves, computed in float64."""
    made = torch.empty(moves.shape, dtype=dtype, device=moves.device)
    for part, begun, moved in in_parts(made, start, moves):
        part.copy_(begun.double() + scale * moved)
    return made


def ties(
    parent: State, states: Sequence[State], density: float = 0.2, scale: float = 1.0, free: Collection[str] = ()
) -> dict[str, Tensor]:
    """Trim, elect signs, merge (Yadav et al. 2023, arXiv 2306.01708, Algorithm 1).

    Of each task vector the largest `density` of all values stay, over all tensors together, and others become 0; every
    weight gets the sign of the sum of what stayed; the values of that sign, zeros left out, are averaged; the result is
    parent + scale * average. Values as large as the smallest that stays, stay as well. Where the sum is exactly 0 the
    weight is the parent's, while the authors' code takes the sign that most weights have.

    Args:
        density: Part of the values that stay, 0 < density <= 1; 0.2 in the paper.
        free: As for `wise_ft`.

    Symmetric in the candidates. Raises UserError for a density outside its range, and as `wise_ft` does. Memory: the
    result, three tensors and a sum in float64; the smallest value that stays is found in two passes over a candidate.
    """
    if not 0 < density <= 1:
        raise UserError(f"density is {density}: give a part above 0 and at most 1, such as 0.2")
    check_candidates(states)
    check_parent(parent, states, free)
    keys = _with_vectors(parent, states)
    bounds = [_smallest_kept(parent, state, keys, density) for state in states]
    return {key: _elected(parent, states, key, bounds, scale, key in keys) for key in states[0]}


def _with_vectors(parent: State, states: Sequence[State]) -> list[str]:
    """Tensors that have a task vector; running statistics, which follow from weights and images, have none."""
    weights = TensorKinds.of_state(states[0]).weights
    return [key for key, tensor in states[0].items() if key in weights and has_counterpart(parent, key, tensor)]


def _trimmed(
    start: Tensor, states: Sequence[State], key: str, bounds: Sequence[float], *others: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Trimmed values of a tensor of each candidate, some at a time, with views of other tensors in the same places."""
    for state, bound in zip(states, bounds, strict=True):
        for own, begun, *beside in in_parts(state[key], start, *others):
            vector = own.double() - begun.double()
            yield vector.where(vector.abs().float() >= bound, 0), *beside


def _elected(
    parent: State, states: Sequence[State], key: str, bounds: Sequence[float], scale: float, moved: bool
) -> Tensor:
    if not moved:
        return mean_tensor(states, key)
    first = states[0][key]
    start = parent[key].detach().to(first.device)
    dtype = torch.promote_types(torch.promote_types(first.dtype, torch.float32), start.dtype)
    total = torch.zeros(first.shape, dtype=torch.float64, device=first.device)
    del first
    for vector, sum_ in _trimmed(start, states, key, bounds, total):
        sum_ += vector
    sign = total.sign().to(torch.int8)
    count = torch.zeros(total.shape, dtype=torch.int32, device=total.device)
    total.zero_()
    for vector, elected, sum_, kept in _trimmed(start, states, key, bounds, sign, total, count):
        agrees = (vector.sign() == elected) & (elected != 0)
        sum_ += vector.where(agrees, 0)
        kept += agrees
    for sum_, kept in in_parts(total, count):
        sum_.copy_(scale * sum_ / kept.clamp(min=1))
    return _from_start(start, 1, total, dtype)


def _smallest_kept(parent: State, state: State, keys: Sequence[str], density: float) -> float:
    """The k-th largest size of a task vector's values, as float32, where k is the part `density` of them, rounded up.

    Sizes are ordered as their bit patterns are, so counts of the upper 16 bits find the upper half of the answer, and
    counts of the lower ones among those the rest: exact, without a sorted copy.
    """
    kept = max(1, math.ceil(density * sum(state[key].numel() for key in keys)))

    def sizes() -> Iterator[Tensor]:
        for key in keys:
            own = state[key]
            for part, begun in in_parts(own, parent[key].to(own.device)):
                yield (part.double() - begun.double()).abs().float().cpu().view(torch.int32)

    upper, kept = _largest(lambda: (bits >> _HALF for bits in sizes()), kept)
    lower, _ = _largest(lambda: (bits[bits >> _HALF == upper] & ((1 << _HALF) - 1) for bits in sizes()), kept)
    return float(torch.tensor((upper << _HALF) | lower, dtype=torch.int32).view(torch.float32))


def _largest(values: Callable[[], Iterator[Tensor]], rank: int) -> tuple[int, int]:
    """The rank-th largest of integers below 2^16, and its rank among those that are equal to it."""
    counts = torch.zeros(1 << _HALF, dtype=torch.int64)
    for part in values():
        counts += torch.bincount(part, minlength=1 << _HALF)
    above = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(above, rank))
    value = (1 << _HALF) - 1 - place
    return value, rank - int(above[place] - counts[value])
