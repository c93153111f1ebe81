"""Averages of networks whose channels are matched first (Ainsworth et al. 2022; Jordan et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from transferscope.analysis.alignment import Permutation, PermutationGroups, match_weights
from transferscope.analysis.alignment.groups import apply
from transferscope.analysis.alignment.variance import Corrected, rescale_to_mean
from transferscope.analysis.evaluator import Batches
from transferscope.analysis.merging.candidates import check_candidates, mean_tensor
from transferscope.analysis.states import ComputedState, State


def align_to_first(groups: PermutationGroups, states: Sequence[State]) -> list[Permutation]:
    """For each candidate the order of its channels that comes nearest to the first one's, whose own stays.

    Matching is by weights, each candidate with the first alone, so its cost is linear in the candidates; the average
    depends on which candidate is the first. Raises UserError as `check_candidates` and `match_weights` do.
    """
    check_candidates(states)
    return [groups.identity(), *(match_weights(groups, states[0], state) for state in states[1:])]


def aligned_average(
    groups: PermutationGroups, states: Sequence[State], permutations: Sequence[Permutation]
) -> dict[str, Tensor]:
    """The mean of the candidates with their channels permuted, which leaves each one's function as it is.

    permutations: of each candidate, as `align_to_first` gives them. With identities it is `uniform_soup`. Memory: the
    result and two tensors.
    """
    check_candidates(states)
    return dict(_average(_permuted(groups, states, permutations)))


def _permuted(
    groups: PermutationGroups, states: Sequence[State], permutations: Sequence[Permutation]
) -> list[ComputedState]:
    """The candidates with their channels permuted, tensor by tensor."""

    def permuted(state: State, source: NDArray[np.int64]) -> ComputedState:
        return ComputedState(state.keys(), lambda key: apply(groups, source, {key: state[key]}, [key])[key])

    return [permuted(state, groups.source(order)) for state, order in zip(states, permutations, strict=True)]


def _average(states: Sequence[State]) -> ComputedState:
    return ComputedState(states[0].keys(), lambda key: mean_tensor(states, key))


def rescaled_average(
    model: nn.Module,
    groups: PermutationGroups,
    states: Sequence[State],
    permutations: Sequence[Permutation],
    batches: Batches,
) -> Corrected:
    """`aligned_average` with the standard deviation of every channel brought to the mean one of the candidates.

    Of two candidates it is `alignment.rescale` at the middle. batches: training images, as there. Memory: the result
    and two tensors.
    """
    check_candidates(states)
    permuted = _permuted(groups, states, permutations)
    return rescale_to_mean(model, _average(permuted), permuted, batches)
