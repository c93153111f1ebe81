"""Options of merging models."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from transferscope.experiment.options.common import MAX_IMAGES, MAX_SHOWN, BestOrFinal, Fraction, Options, Resamples

MergeMethod = Literal[
    "uniform",
    "greedy",
    "wise_ft",
    "task_arithmetic",
    "ties",
    "fisher",
    "regmean",
    "aligned",
    "aligned_rescaled",
]
MERGE_METHODS: tuple[MergeMethod, ...] = get_args(MergeMethod)
FROM_PARENT: tuple[MergeMethod, ...] = ("wise_ft", "task_arithmetic", "ties")
"""Methods that need the weights that the candidates started from."""


def _run_or_kind(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", text):
        raise ValueError("give a run, as real.pt_1, or a kind of run on a task, as real.pt")
    return text


RunOrKind = Annotated[str, AfterValidator(_run_or_kind)]
"""A run by its full name, real.pt_1, or a kind of run on a task, real.pt."""


class MergeOptions(Options):
    """Models that are merged into one, and what the result is held against."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Names the results."""
    candidates: Annotated[tuple[RunOrKind, ...], Field(min_length=1)]
    """Runs as `real.pt_1`, or kinds of run on a task as `real.pt`: then there is a merge for each replica, of the runs
    of that number. One alone can only be brought nearer to its parent."""
    parent: RunOrKind | Literal["shared"] | None = "shared"
    """The run that the candidates started from. shared: that of all of them, where they have one in common."""
    union: RunOrKind | None = None
    """A run, or kind, that was trained on the images of all candidates at once; the merge is compared with it."""
    evaluated_on: tuple[str, ...] | None = None
    """Tasks on whose images the merge is judged; None: those of the candidates."""
    methods: Annotated[tuple[MergeMethod, ...], Field(min_length=1)] | None = None
    """None: those of `analyses.merging`."""

    @model_validator(mode="after")
    def _candidates_differ(self) -> MergeOptions:
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError("candidates: one is there twice")
        return self


class MergingOptions(Options):
    """Merges of several models into one: does averaging pay?"""

    merges: Annotated[tuple[MergeOptions, ...], Field(max_length=MAX_SHOWN)] = ()
    """At most 1,000 names."""
    methods: Annotated[tuple[MergeMethod, ...], Field(min_length=1)] | None = None
    """None: all that apply; those that start from the parent need one."""
    epoch: BestOrFinal = "final"
    choice: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Part of the test images on which settings and methods are chosen; the others judge. Where the task has validation
    images they choose, and all test images judge."""
    alphas: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=MAX_SHOWN)] = (0.25, 0.5, 0.75)
    """Places between parent (0) and candidates (1) that WiSE-FT chooses from."""
    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=MAX_SHOWN)] = (
        0.3,
        0.5,
        1.0,
    )
    """Factors on sums of task vectors that task arithmetic and TIES choose from."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Part of each task vector that TIES keeps."""
    non_diagonal: Fraction = 0.9
    """Factor on what is not on the diagonal of RegMean's Gram matrices."""
    statistics: Annotated[int, Field(ge=2, le=MAX_IMAGES)] = 500
    """Largest number of training images of each task for BatchNorm's statistics, Gram matrices, the variance of
    channels and the refitted classifier."""
    fisher_examples: Annotated[int, Field(gt=0, le=MAX_IMAGES)] = 128
    """Largest number of training images of each task for Fisher information; each takes a backward pass of its own."""
    resamples: Resamples = 300
    """Bootstrap resamples behind intervals of an AUC, at most 100,000; those of an accuracy follow from counts."""
