"""Uniform and greedy soups (Wortsman et al. 2022, arXiv 2203.05482)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from transferscope.analysis.interpolation import blend
from transferscope.analysis.merging.candidates import check_candidates, mean_tensor
from transferscope.analysis.states import State
from transferscope.system.errors import UserError


def uniform_soup(states: Sequence[State], names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The mean of every tensor over all candidates: theta = (1/K) sum_i theta_i.

    Symmetric in the candidates; one candidate, or equal ones, give their own weights bit by bit. New tensors, in
    float32 at least; of integer tensors the elementwise largest. Memory: the result and a tensor.

    Raises UserError for no candidates, for others of another architecture, and for non-finite weights.
    """
    check_candidates(states, names)
    return {key: mean_tensor(states, key) for key in states[0]}


def greedy_soup(
    states: Sequence[State],
    scores: Sequence[float],
    evaluate: Callable[[dict[str, Tensor]], float],
    names: Sequence[str] | None = None,
) -> tuple[dict[str, Tensor], list[int]]:
    """The soup of Recipe 1: candidates in order of their scores, each kept if the soup's score does not fall.

    Args:
        scores: Of each candidate, larger is better, on images that do not judge the soup. Equal scores keep the order.
        evaluate: Score of weights on the same images. It may change buffers of what it is given (statistics).

    Returns:
        The mean of those that were kept, exactly `uniform_soup` of them, and their numbers, the best first.

    Raises UserError as `uniform_soup` does, and where there are not as many scores as candidates. Memory: the soup, the
    one that is tried, and a tensor. `evaluate` is called once for each candidate but the best.
    """
    check_candidates(states, names)
    if len(scores) != len(states):
        raise UserError(f"{len(scores)} scores for {len(states)} candidates: give one for each")
    order = sorted(range(len(states)), key=lambda place: -scores[place])
    kept, best = order[:1], scores[order[0]]
    soup = {key: mean_tensor([states[kept[0]]], key) for key in states[0]}
    for place in order[1:]:
        share = 1 / (len(kept) + 1)
        trial = {key: blend(tensor, states[place][key], share) for key, tensor in soup.items()}
        score = evaluate(trial)
        if score >= best:
            kept, best, soup = [*kept, place], score, trial
        del trial
    del soup
    return {key: mean_tensor([states[place] for place in kept], key) for key in states[0]}, kept
