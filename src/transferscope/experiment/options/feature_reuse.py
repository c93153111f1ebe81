"""Options of feature reuse and of source epochs, which add runs to a study."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from transferscope.experiment.options.common import Epoch, Options, Pixels

BlockSize = Pixels | Literal["values"]
Replicas = Annotated[int, Field(gt=0, le=10_000)]


class FeatureReuseOptions(Options):
    """Runs of some kinds on images whose blocks are shuffled, and with parts of the pre-trained model only."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """Whose images are shuffled; no image is stored again."""
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] = ("pt", "rit")
    """Kinds of run that are trained on them; the first one that is pre-trained also starts the controls."""
    block_sizes: Literal["all"] | tuple[BlockSize, ...] = "all"
    """Sides of blocks in pixels, and `values`, all values across positions and channels; all: every side that divides
    the images', and values. Whole images are those of the task itself, or trained again where these are augmented:
    shuffled images never are, as in the paper."""
    each_image: tuple[BlockSize, ...] = ()
    """Sizes that are also tried with a permutation of its own for each image."""
    controls: tuple[Literal["statistics", "frozen"], ...] = ()
    """On whole images: random weights with the statistics of the pre-trained ones; only the classifier is trained."""
    first_modules: tuple[str, ...] = ()
    """On whole images: pre-trained up to each of these modules, the others random, e.g. [stem, layer2.0]."""
    replicas: Replicas | None = None
    """Runs of each kind on each size; None: as many as the kinds have."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the permutations."""


class SourceEpochsOptions(Options):
    """Runs that start from earlier epochs of the pre-trained model (Figure 7)."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    epochs: Annotated[tuple[Epoch, ...], Field(min_length=1)]
    """Epochs that the source run keeps; its last one is that of the kind itself."""
    kind: str = "pt"
    replicas: Replicas | None = None
    """Runs from each epoch; None: as many as the kind has."""
