"""CKA between the layers of several models, from one forward pass of each over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from transferscope.analysis.cka import MAX_EXACT_FEATURES, Estimator
from transferscope.analysis.cka_interval import ExampleSpread
from transferscope.analysis.hsic import MIN_EXAMPLES, FeatureSums, centre_unbiased, check_num_examples, gram_matrix
from transferscope.analysis.layer_pairs import Extractors, LayerComparison, Unit, UnitPair, unit_table
from transferscope.system.errors import UserError


def cka_between(
    extractors: Extractors,
    batches: Iterable[Tensor],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    layer_pairs: Literal["same", "all"] = "same",
    estimators: Sequence[Estimator] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Linear CKA between models, layer by layer: m forward passes for all pairs of m models.

    extractors: checkpoint name -> FeatureExtractor. batches: images as the models take them, on their device, shuffled.
    pairs: names of two extractors; None for all. estimators: None takes "debiased" for pooled and "minibatch" for
    flattened features. Returns the table of `LayerSimilarity.cka`.

    Source: appendix B.3, Tables 1 and 7.
    """
    flattened = any(extractor.features == "flattened" for extractor in extractors.values())
    comparison = LayerComparison(
        tuple(combinations(extractors, 2) if pairs is None else pairs),
        layer_pairs=layer_pairs,
        estimators=tuple(estimators or ("minibatch" if flattened else "debiased",)),
    )
    similarity = LayerSimilarity(extractors, [comparison], seed=seed)
    similarity.update_all(batches)
    return similarity.cka(comparison)


class LayerSimilarity:
    """Everything that is compared, gathered batch by batch; each model sees each image once.

    Of every batch the HSIC of each compared pair of layers is kept (a number each), and what each example adds to it
    where intervals are asked for (`ExampleSpread`). Where a comparison asks for exact estimators, sums over examples
    are kept too (`FeatureSums`), of pairs of layers as they are and with the second one's examples in another order.
    """

    def __init__(self, extractors: Extractors, comparisons: Sequence[LayerComparison], *, seed: int = 0) -> None:
        self.num_examples = 0
        self.extractors = extractors
        self._pairs = {comparison: comparison.unit_pairs(extractors) for comparison in comparisons}
        every = dict.fromkeys(pair for pairs in self._pairs.values() for pair in pairs)
        self._place = {pair: i for i, pair in enumerate(every)}
        self._units = list(dict.fromkeys(unit for pair in every for unit in pair))
        unit_place = {unit: i for i, unit in enumerate(self._units)}
        self._a, self._b = (np.array([unit_place[pair[side]] for pair in every]) for side in (0, 1))
        exact = dict.fromkeys(pair for chosen in comparisons if chosen.exact for pair in self._pairs[chosen])
        own = dict.fromkeys((unit, unit) for pair in exact for unit in pair)
        self.sums = {pair: FeatureSums() for pair in exact | own}
        self.permuted_sums = {pair: FeatureSums() for pair in exact}
        self._generator = np.random.default_rng(seed)
        self._own: list[NDArray[np.float64]] = []
        self._cross: list[NDArray[np.float64]] = []
        self._floor: list[NDArray[np.float64]] = []
        shown = dict.fromkeys(pair for chosen in comparisons if chosen.intervals for pair in self._pairs[chosen])
        self._spread_place = {pair: i for i, pair in enumerate(shown)}
        chosen_pairs = [self._place[pair] for pair in shown]
        self._spread = ExampleSpread(len(self._units), self._a[chosen_pairs], self._b[chosen_pairs])

    def unit_pairs(self, comparison: LayerComparison) -> list[UnitPair]:
        """The pairs of layers of one of the comparisons."""
        return self._pairs[comparison]

    def update_all(self, batches: Iterable[Tensor]) -> None:
        """Take all batches of images; a last one below 4 examples joins the one before it."""
        for images in _without_short_end(batches):
            self.update(images)
        check_num_examples(self.num_examples)

    def update(self, images: Tensor) -> None:
        """Take a batch of 4 images or more."""
        check_num_examples(len(images))
        order = torch.from_numpy(self._generator.permutation(len(images))).to(images.device)
        grams: dict[Unit, Tensor] = {}
        features: dict[Unit, Tensor] = {}

        def reduce(value: Tensor) -> tuple[Tensor, Tensor | None]:
            kept = value.to(torch.float64, copy=True) if self.sums and value.shape[1] <= MAX_EXACT_FEATURES else None
            return gram_matrix(value), kept

        for model in dict.fromkeys(unit.model for unit in self._units):
            for layer, (gram, value) in self.extractors[model](images, reduce).items():
                grams[Unit(model, layer)] = gram
                if value is not None:
                    features[Unit(model, layer)] = value
        self._add_batch([grams[unit] for unit in self._units], order)
        for (a, b), sums in self.sums.items():
            sums.update(_exact(features, a), _exact(features, b))
        for (a, b), sums in self.permuted_sums.items():
            sums.update(features[a], features[b][order])
        self.num_examples += len(images)

    def _add_batch(self, grams: list[Tensor], order: Tensor) -> None:
        """HSIC of all pairs of units is one product of matrices: each row is a centred Gram matrix."""
        n = len(order)
        stack = torch.stack([centre_unbiased(gram) for gram in grams])
        rows = stack.flatten(1)
        hsic = (rows @ rows.T / (n - 3)).cpu().numpy()
        floor = (rows @ stack[:, order][:, :, order].flatten(1).T / (n - 3)).cpu().numpy()
        self._own.append(hsic.diagonal().copy())
        self._cross.append(hsic[self._a, self._b])
        self._floor.append(floor[self._a, self._b])
        if self._spread_place:
            self._spread.update(stack, torch.stack([gram.diagonal() for gram in grams]))

    def undefined(self, comparison: LayerComparison) -> list[Unit]:
        """Layers of a comparison whose features are not finite, or the same for all examples: they have no CKA."""
        units = dict.fromkeys(unit for pair in self.unit_pairs(comparison) for unit in pair)
        owns = [self._own_hsic(list(units), estimator) for estimator in comparison.estimators]
        return [unit for unit in units if not all(0 < own[unit] < np.inf for own in owns)]

    def cka(
        self,
        comparison: LayerComparison,
        *,
        confidence: float = 0.95,
        allow_undefined: bool = False,
    ) -> pd.DataFrame:
        """A row per pair of models, pair of layers and estimator.

        Columns checkpoint_a, checkpoint_b, layer, layer_b, features, estimator, num_examples, cka, low, high, permuted.
        `low` and `high` are an interval over examples, of the debiased and the minibatch estimate (see
        `transferscope.analysis.cka_interval`). They are NaN for the biased one, whose error is mostly bias; where
        features are the same up to rotation and scale, so that nothing varies; for fewer than 50 examples; and where
        the comparison asks for none.
        `permuted` is the floor: the same estimate when the second model's examples are put in another order within each
        batch. Raises UserError where a layer is `undefined`, or, if that is allowed, gives NaN there.
        """
        pairs = self.unit_pairs(comparison)
        undefined = self.undefined(comparison)
        if undefined and not allow_undefined:
            raise UserError(
                "features that are not finite, or the same for all examples, in layer "
                f"{', '.join(map(str, undefined))}: CKA is undefined there"
            )
        rows = np.array([self._place[pair] for pair in pairs])
        tables = []
        for estimator in comparison.estimators:
            values, permuted = self._values(pairs, rows, estimator)
            low, high = self._interval(comparison, values, estimator, confidence)
            table = unit_table(pairs, self.extractors)
            tables.append(
                table.assign(
                    estimator=estimator,
                    num_examples=self.num_examples,
                    cka=values,
                    low=low,
                    high=high,
                    permuted=permuted,
                )
            )
        return pd.concat(tables, ignore_index=True)

    def _values(
        self, pairs: list[UnitPair], rows: NDArray[np.int64], estimator: Estimator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The CKA of each pair, and that of permuted examples."""
        own = self._own_hsic([unit for pair in pairs for unit in pair], estimator)
        if estimator == "minibatch":
            cross, floor = np.sum(self._cross, axis=0)[rows], np.sum(self._floor, axis=0)[rows]
        else:
            hsic = _hsic_of(estimator)
            cross, floor = (np.array([hsic(sums[pair]) for pair in pairs]) for sums in (self.sums, self.permuted_sums))
        defined = {unit: value if 0 < value < np.inf else np.nan for unit, value in own.items()}
        scale = np.array([(defined[a] * defined[b]) ** 0.5 for a, b in pairs])
        return cross / scale, floor / scale

    def _own_hsic(self, units: Iterable[Unit], estimator: Estimator) -> dict[Unit, float]:
        """HSIC of each layer with itself."""
        if estimator == "minibatch":
            return dict(zip(self._units, np.sum(self._own, axis=0), strict=True))
        hsic = _hsic_of(estimator)
        return {unit: hsic(self.sums[unit, unit]) for unit in units}

    def _interval(
        self, comparison: LayerComparison, values: NDArray[np.float64], estimator: Estimator, confidence: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends of the intervals of a comparison's values."""
        nothing = np.full(len(values), np.nan)
        if not comparison.intervals or estimator == "biased":
            return nothing, nothing
        places = np.array([self._spread_place[pair] for pair in self.unit_pairs(comparison)])
        spread = self._spread.of(places, exact=estimator == "debiased")
        return (nothing, nothing) if spread is None else spread.interval(values, confidence)


def _hsic_of(estimator: Estimator) -> Callable[[FeatureSums], float]:
    return FeatureSums.unbiased if estimator == "debiased" else FeatureSums.biased


def _exact(features: Mapping[Unit, Tensor], unit: Unit) -> Tensor:
    if unit not in features:
        raise UserError(
            f"layer {unit.layer} of {unit.model} has more than the {MAX_EXACT_FEATURES} features that exact "
            "estimators hold: pool the features or use estimator 'minibatch'"
        )
    return features[unit]


def _without_short_end(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The batches; a last one that is too short for the estimator joins the one before."""
    held: Tensor | None = None
    for batch in batches:
        if held is None:
            held = batch
        elif len(batch) < MIN_EXAMPLES:
            held = torch.cat([held, batch])
        else:
            yield held
            held = batch
    if held is not None:
        yield held
