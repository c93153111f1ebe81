"""Candidates merged by each method: weights, and the settings that the choosing images decide."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from transferscope.analysis.alignment import Permutation, PermutationGroups, permutation_groups
from transferscope.analysis.evaluator import Batches
from transferscope.analysis.merging import (
    align_to_first,
    aligned_average,
    diagonal_fisher,
    fisher_merge,
    greedy_soup,
    regmean,
    rescaled_average,
    task_arithmetic,
    ties,
    uniform_soup,
    wise_ft,
)
from transferscope.analysis.states import State
from transferscope.experiment.options import FROM_PARENT, MERGE_METHODS, MergeMethod, MergingOptions
from transferscope.experiment.seeds import derive_seed
from transferscope.measure.bench import feed_of, stream
from transferscope.measure.merge_candidates import MergeCandidates
from transferscope.measure.merge_images import MergeImages
from transferscope.models.stored_state import store_state
from transferscope.system.errors import UserError

log = logging.getLogger(__name__)


def methods_for(wanted: Sequence[MergeMethod] | None, num_candidates: int, has_parent: bool) -> Sequence[MergeMethod]:
    """The methods that are asked for, or all that apply; UserError where one cannot be."""
    if num_candidates == 0:
        raise UserError("there is nothing to merge: give two candidates, or one and its parent")
    if num_candidates == 1 and not has_parent:
        raise UserError("one candidate has nothing to be merged with: give another one, or its parent")
    if wanted is None:
        if num_candidates == 1:
            return ("wise_ft",)
        if not has_parent:
            log.info("the candidates have no parent: %s need one and are left out", ", ".join(FROM_PARENT))
        return [method for method in MERGE_METHODS if has_parent or method not in FROM_PARENT]
    orphans = [method for method in wanted if method in FROM_PARENT] if not has_parent else []
    if orphans:
        raise UserError(f"{', '.join(orphans)}: starts from the parent of the candidates: give it, or other methods")
    alone = [method for method in wanted if method not in FROM_PARENT] if num_candidates == 1 else []
    if alone:
        raise UserError(f"{', '.join(alone)}: one candidate has nothing to be merged with: give another one")
    return wanted


class MergeMethods:
    """Every method, applied to the candidates."""

    def __init__(self, candidates: MergeCandidates, images: MergeImages, options: MergingOptions) -> None:
        self.candidates, self.images, self.options = candidates, images, options
        self.network, self.folder = candidates.network, candidates.folder

    def settled(self, state: dict[str, Tensor]) -> AbstractContextManager[nn.Module]:
        """The network with merged weights, whose statistics of BatchNorm become those of training images."""
        return self.network.settled(
            state, lambda: self.images.all_training("statistics of BatchNorm", self.options.statistics)
        )

    def _choice_of(self, state: dict[str, Tensor]) -> float:
        with self.settled(state) as network:
            return self.images.choice(network)[0]

    def make(self, method: MergeMethod, singles: Sequence[float]) -> tuple[dict[str, Tensor], str]:
        """Merged weights, and the settings that were chosen, in words.

        singles: The score of each candidate on the choosing images, by which the greedy soup takes them.
        """
        options, states, names = self.options, self.candidates.states, self.candidates.names
        if method == "uniform":
            return uniform_soup(states, names), f"{len(states)} candidates"
        if method == "greedy":
            soup, kept = greedy_soup(states, singles, self._choice_of, names)
            return soup, f"{len(kept)} of {len(states)}: {', '.join(names[place] for place in kept)}"
        if method in FROM_PARENT:
            return self._from_parent(method)
        if method == "fisher":
            information = [self._fisher(place) for place in range(len(states))]
            return fisher_merge(states, information), f"{options.fisher_examples} images"
        if method == "regmean":
            images = [self._training_of(place, "RegMean", options.statistics) for place in range(len(states))]
            with self.network.worn(states[0], copy=True) as network:
                merged = regmean(network, states, images, non_diagonal=options.non_diagonal)
            return merged, f"non-diagonal {options.non_diagonal:g}"
        moved = float(np.mean([one.moved for one in self._permutations[1:]]))
        setting = f"{100 * moved:.0f} % of channels moved"
        if method == "aligned":
            return aligned_average(self._groups, states, self._permutations), setting
        few = self.images.in_one_batch(self.images.all_training("correction of variance", options.statistics))
        with self._mapped(0) as network:
            return rescaled_average(network, self._groups, states, self._permutations, few).state, setting

    def _from_parent(self, method: MergeMethod) -> tuple[dict[str, Tensor], str]:
        """The setting that is best on the choosing images, the first of equal ones."""
        parent, states, options = self.candidates.parent, self.candidates.states, self.options
        assert parent is not None
        free = self.candidates.free(parent)

        def made(value: float) -> dict[str, Tensor]:
            if method == "wise_ft":
                return wise_ft(parent, states, value, free)
            if method == "task_arithmetic":
                return task_arithmetic(parent, states, value, free)
            return ties(parent, states, options.density, value, free)

        values = options.alphas if method == "wise_ft" else options.scales
        scores = [self._choice_of(made(value)) for value in values]
        best = values[int(np.nanargmax(scores))] if not np.isnan(scores).all() else values[0]
        name = "alpha" if method == "wise_ft" else "scale"
        kept = f", density {options.density:g}" if method == "ties" else ""
        return made(best), f"{name} {best:g}{kept}"

    def _mapped(self, place: int) -> AbstractContextManager[nn.Module]:
        """The network with the weights of a candidate as they lie in a file, which are to be read only."""
        return self.network.mapped(self.candidates.states[place], self.folder / f"mapped_{place}.pt")

    def _training_of(self, place: int, what: str, limit: int) -> Batches:
        """Training images of a candidate's own task, or of all where that is none of the tasks."""
        return self.images.training_of(self.candidates.metadata[place].task, what, limit)

    def _fisher(self, place: int) -> State:
        """The Fisher information of a candidate, which waits in a file."""
        images = self._training_of(place, "Fisher information", self.options.fisher_examples)
        seed = derive_seed("merging", "fisher", self.candidates.names[place])
        with self._mapped(place) as network:
            multi_label = self.images.tasks[0].multi_label
            information = diagonal_fisher(network, images, multi_label=multi_label, seed=seed)
        return store_state(information, self.folder / f"fisher_{place}.pt")

    @cached_property
    def _groups(self) -> PermutationGroups:
        first = self.images.tasks[0]
        images, _ = next(iter(stream(feed_of(first.choice_split), first.channels, size=2)))
        with self._mapped(0) as network:
            return permutation_groups(network, images)

    @cached_property
    def _permutations(self) -> list[Permutation]:
        return align_to_first(self._groups, self.candidates.states)
