"""Options of all analyses together, those of the user's own, and of the report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from transferscope.experiment.options.architecture import ModulesOptions
from transferscope.experiment.options.common import KindPair, Options, PositiveInt, Precision
from transferscope.experiment.options.landscape import LandscapeOptions
from transferscope.experiment.options.merging import MergingOptions
from transferscope.experiment.options.mistakes import MistakesOptions
from transferscope.experiment.options.similarity import SimilarityOptions
from transferscope.experiment.options.spectrum import SpectrumOptions


class OwnOptions(Options):
    """Analyses and figures of the user's own."""

    modules: Annotated[tuple[str, ...], Field(min_length=1)]
    """Modules with functions that are decorated with `measure.own.analysis` or `measure.own.figure`."""
    pairs: tuple[KindPair, ...] | None = None
    """Kinds of run whose pairs are measured; None: those of all other analyses."""
    epoch: Literal["best", "final"] = "final"
    max_examples: PositiveInt | None = None
    """Largest number of examples of each part; None: all."""


class ReportOptions(Options):
    """The report."""

    title: str = "What is being transferred?"
    claims: tuple[str, ...] = ()
    """Modules with claims of your own, imported before the claims are decided: docs/claims.md."""


PAIRS_APART = 100
"""Pairs of two kinds of run on one task that get a node each, unless `pairs_in_one_node` says otherwise."""


class AnalysesOptions(Options):
    """Options of each analysis; None leaves it out."""

    pairs_in_one_node: bool | None = None
    """True if all pairs of two kinds of run on a task are one node of each analysis, with one table.

    None: where there are more than 100 such pairs. A matrix of pairs is then a few nodes; what is gathered of all
    pairs is the same either way, e.g. `clipart.mistakes.table`."""
    modules: ModulesOptions = ModulesOptions()
    precision: Precision = "float32"
    """Of the networks in similarity and landscape; in bfloat16 losses are off by up to a few percent.

    auto: bfloat16 on GPUs that have it, else float32."""
    compile: bool = False
    """Compile the networks of lines, planes, basins, criticality and CKA, for GPUs: values differ by rounding.

    It takes about a minute for each node, and a C++ compiler."""

    mistakes: MistakesOptions | None = MistakesOptions()
    similarity: SimilarityOptions | None = SimilarityOptions()
    landscape: LandscapeOptions | None = LandscapeOptions()
    spectrum: SpectrumOptions | None = SpectrumOptions()
    merging: MergingOptions | None = None
    own: OwnOptions | None = None
