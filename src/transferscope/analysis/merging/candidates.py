"""The networks that are merged: checks, and means of their tensors, one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from transferscope.analysis.states import State, check_same_tensors, describe_nonfinite, widened
from transferscope.system.errors import UserError

PART = 1 << 18
"""Values that are computed with at a time where copies in float64 would take several times a tensor."""
UNRELATED = 0.1
"""Weights correlate less with those of an unrelated network; those of a network with what it started from far more."""


def check_candidates(states: Sequence[State], names: Sequence[str] | None = None) -> None:
    """Raise a UserError for no candidates, for tensors of other names or shapes, and for non-finite weights.

    names: of the candidates in messages; `candidate 1` and so on where there are none.
    """
    if not states:
        raise UserError("there is nothing to merge: give at least one candidate")
    shown = names or [f"candidate {place}" for place in range(1, len(states) + 1)]
    for state, name in zip(states, shown, strict=True):
        if state is not states[0]:
            check_same_tensors(states[0], state, shown[0], name)
        if fault := describe_nonfinite(state, name):
            raise UserError(f"{fault}: leave this candidate out, for no average with it is finite")


def check_parent(
    parent: State, states: Sequence[State], free: Collection[str] = (), name: str = "the parent", of: str = "candidates"
) -> None:
    """Raise a UserError where a state is not what the candidates were trained from.

    It must have every tensor of theirs, in their shapes, but those named in `free` (the classifier of another task), be
    finite, and correlate with each of them (`parent_correlation`): a network that shares the architecture alone is no
    parent, and nor is one whose channels were permuted.
    """
    needed = {key: tensor.to("meta") for key, tensor in states[0].items()}
    given = {key: tensor.to("meta") for key, tensor in parent.items() if key not in free}
    check_same_tensors(given, {key: tensor for key, tensor in needed.items() if key not in free}, name, of)
    if fault := describe_nonfinite(parent, name):
        raise UserError(f"{fault}: give another parent")
    for place, state in enumerate(states, start=1):
        correlation = parent_correlation(parent, state)
        if not correlation >= UNRELATED:
            raise UserError(
                f"{name} is no parent of candidate {place}: their weights correlate by {correlation:.3f}, as those of "
                "unrelated networks do; give the weights that the candidates started from, or no parent"
            )


def parent_correlation(parent: State, state: State) -> float:
    """Pearson's correlation of the weights of two networks, over all tensors of two or more axes that both have.

    Each tensor is centred by its own mean. 1 for the same weights, about 0 for networks that were trained
    independently; NaN where nothing varies.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for key in state:
        if key not in parent:
            continue
        one, other = state[key], parent[key]
        if one.shape == other.shape and one.dim() > 1 and one.is_floating_point():
            x, y = (values.detach().double().cpu() for values in (one, other))
            x, y = x - x.mean(), y - y.mean()
            sums += torch.stack([(x * y).sum(), x.square().sum(), y.square().sum()])
    product, first, second = sums.tolist()
    return product / math.sqrt(first * second) if first > 0 and second > 0 else math.nan


def has_counterpart(parent: State, key: str, like: Tensor) -> bool:
    """True where the parent has a floating-point tensor of that name and shape."""
    return like.is_floating_point() and key in parent and parent[key].shape == like.shape


def mean_of(tensors: Callable[[], Iterable[Tensor]]) -> Tensor:
    """The mean of tensors of one shape, in float32 at least; of equal ones, the very same, in any order.

    Sums are in float64, where those of float32 values are exact; of values that are all float64 the mean is held
    between their smallest and largest. Integer tensors (counters) give the elementwise largest, which is symmetric as
    well.
    """
    total: Tensor | None = None
    low = high = torch.empty(0)
    count, dtype, all_wide = 0, torch.float32, True
    for tensor in tensors():
        tensor = widened(tensor.detach())
        if not tensor.is_floating_point():
            total = tensor.clone() if total is None else torch.maximum(total, tensor)
            continue
        dtype = torch.promote_types(dtype, tensor.dtype)
        all_wide = all_wide and tensor.dtype == torch.float64
        if all_wide:
            low = tensor if count == 0 else torch.minimum(low, tensor)
            high = tensor if count == 0 else torch.maximum(high, tensor)
        total = tensor.to(torch.float64, copy=True) if total is None else total.add_(tensor)
        count += 1
    assert total is not None
    if count == 0:
        return total
    mean = total.div_(count)
    return mean.clamp(low, high) if all_wide else mean.to(dtype)


def in_parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Flat views of some values of each tensor at a time, so that results in float64 stay small.

    All tensors have one number of values. A value written to the view of a contiguous tensor stays in the tensor.
    """
    yield from zip(*(tensor.detach().reshape(-1).split(PART) for tensor in tensors), strict=True)


def mean_tensor(states: Sequence[State], key: str) -> Tensor:
    """`mean_of` the tensor of every state, which are read one after the other."""
    return mean_of(lambda: (state[key] for state in states))
