"""Options of the similarity of features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from transferscope.experiment.options.common import MAX_BATCH, MAX_SHOWN, KindPair, Options

LEAST_EXAMPLES = 4
"""Examples that the unbiased estimator of CKA needs."""


class SimilarityOptions(Options):
    """Feature similarity and distances (appendix B.3)."""

    pairs: tuple[KindPair, ...] = (("pt", "p"), ("pt", "pt"), ("pt", "rit"), ("rit", "rit"), ("rit", "rit_same_init"))
    epoch: Literal["best", "final"] = "final"
    features: Annotated[tuple[Literal["pooled", "flattened"], ...], Field(min_length=1)] = ("pooled", "flattened")
    """Averaged over pixels, or every value; the first one also makes the heat map."""
    layers: tuple[str, ...] | None = None
    """Paths of submodules, e.g. layer1.0; None: conv1 and the end of each stage, or five blocks of other models."""
    estimators: Annotated[tuple[Literal["biased", "debiased", "minibatch"], ...], Field(min_length=1)] = (
        "debiased",
        "biased",
        "minibatch",
    )
    """Of pooled features; flattened ones are always compared by `minibatch`, whose memory does not grow with them."""
    heat_map_pairs: Annotated[int, Field(ge=0, le=MAX_SHOWN)] = 1
    """Pairs of each kind whose blocks are all compared with each other (`minibatch`); 0: no heat map."""
    max_examples: Annotated[int, Field(ge=LEAST_EXAMPLES)] | None = 512
    """Examples of the test split, at least 4; None: all."""
    batch_size: Annotated[int, Field(ge=LEAST_EXAMPLES, le=MAX_BATCH)] = 64
    """Images in a batch."""

    def feature_tables(self) -> list[str]:
        """Tables that come from the features: CKA, and as chosen its heat map and other measures beside it."""
        exact = "pooled" in self.features and set(self.estimators) != {"minibatch"}
        return ["cka", *(["cka_layers"] if self.heat_map_pairs else []), *(["second_opinion"] if exact else [])]
