"""Pairs of layers of models that are compared, and the estimators that compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pandas as pd

from transferscope.analysis.cka import Estimator, check_estimator
from transferscope.analysis.features import FeatureExtractor
from transferscope.system.errors import UserError

Extractors = Mapping[str, FeatureExtractor]


class Unit(NamedTuple):
    """One layer of one model."""

    model: str
    layer: str

    def __str__(self) -> str:
        return f"{self.layer} of {self.model}"


UnitPair = tuple[Unit, Unit]


@dataclass(frozen=True)
class LayerComparison:
    """Pairs of models by name, and which of their layers are compared by which estimators.

    pairs: the same name twice is the control that gives 1. layers: names of features; None for all. layer_pairs: "same"
    compares layers of one name, "all" each layer with each (a heat map). estimators: those of
    `transferscope.analysis.cka`. intervals: whether values get intervals over examples, which takes a product of two
    matrices for each pair and batch.
    """

    pairs: tuple[tuple[str, str], ...]
    layers: tuple[str, ...] | None = None
    layer_pairs: Literal["same", "all"] = "same"
    estimators: tuple[Estimator, ...] = ("debiased",)
    intervals: bool = True

    def unit_pairs(self, extractors: Extractors) -> list[UnitPair]:
        """The pairs of layers; UserError for unknown models or layers, no common layer, or nothing to compare."""
        unknown = sorted({name for pair in self.pairs for name in pair} - set(extractors))
        if unknown:
            raise UserError(f"no model named {', '.join(unknown)}; there are: {', '.join(extractors)}")
        known = list(dict.fromkeys(layer for extractor in extractors.values() for layer in extractor.layers))
        missing = [layer for layer in self.layers or () if layer not in known]
        if missing:
            raise UserError(f"no layer named {', '.join(missing)}; there are: {', '.join(known)}")
        if self.layer_pairs not in ("same", "all"):
            raise UserError(f"layer_pairs {self.layer_pairs!r}: expected 'same' or 'all'")
        for estimator in self.estimators:
            check_estimator(estimator)
        if not self.pairs:
            raise UserError("no pair of models to compare")
        return [layers for pair in self.pairs for layers in self._of_models(extractors, *pair)]

    def _of_models(self, extractors: Extractors, a: str, b: str) -> list[UnitPair]:
        layers_a, layers_b = (self._layers(extractors[name]) for name in (a, b))
        every = self.layer_pairs == "all"
        pairs = [(Unit(a, x), Unit(b, y)) for x in layers_a for y in layers_b if every or x == y]
        bare = [name for name, layers in ((a, layers_a), (b, layers_b)) if not layers]
        if bare:
            raise UserError(
                f"{' and '.join(dict.fromkeys(bare))}: no layer to compare: name layers that the network has"
            )
        if not pairs:
            raise UserError(
                f"{a} and {b} have no layer name in common: {', '.join(layers_a)} and {', '.join(layers_b)}"
            )
        return pairs

    def _layers(self, extractor: FeatureExtractor) -> list[str]:
        return [layer for layer in extractor.layers if self.layers is None or layer in self.layers]

    @property
    def exact(self) -> bool:
        """True if sums over all examples are needed."""
        return any(estimator != "minibatch" for estimator in self.estimators)


def unit_table(pairs: Sequence[UnitPair], extractors: Extractors) -> pd.DataFrame:
    """Columns checkpoint_a, checkpoint_b, layer, layer_b, features, linear: a row per pair of layers.

    linear: whether features of either model are linear in the image, as the mean over pixels of a convolution is that
    no activation follows.
    """
    table = pd.DataFrame(
        [(a.model, b.model, a.layer, b.layer, extractors[a.model].features) for a, b in pairs],
        columns=["checkpoint_a", "checkpoint_b", "layer", "layer_b", "features"],
    )
    return table.assign(linear=[any(unit.layer in extractors[unit.model].linear for unit in pair) for pair in pairs])
