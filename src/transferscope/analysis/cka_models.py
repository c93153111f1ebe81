"""CKA between the layers of several models, from one forward pass of each over the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from transferscope.analysis.cka import ESTIMATORS, MAX_EXACT_FEATURES, Estimator
from transferscope.analysis.features import FeatureExtractor
from transferscope.analysis.hsic import MIN_EXAMPLES, FeatureSums, centre_unbiased, check_num_examples, gram_matrix
from transferscope.errors import UserError


class Unit(NamedTuple):
    """One layer of one model."""

    model: str
    layer: str


def cka_between(
    extractors: Mapping[str, FeatureExtractor],
    batches: Iterable[Tensor],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    layer_pairs: Literal["same", "all"] = "same",
    estimator: Estimator | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Debiased linear CKA between models, layer by layer: m forward passes for all pairs of m models.

    extractors: checkpoint name -> FeatureExtractor. batches: images as the models take them, on their device, shuffled.
    pairs: names of two extractors (the same one twice is the control that gives 1); None for all. layer_pairs: "same"
    compares layers of one name, "all" each layer with each (a heat map). estimator: as in `StreamingCKA`; None takes
    "exact" for pooled and "minibatch" for flattened features.

    Returns a row per pair and layers: checkpoint_a, checkpoint_b, layer, layer_b, features, estimator, num_examples,
    cka, low, high, permuted. `low` and `high` bound a percentile bootstrap over batches of the mini-batch estimator,
    moved to `cka`; NaN for a single batch. `permuted` is the floor: the mini-batch value when the second model's
    examples are put in another order within each batch.

    Source: appendix B.3, Tables 1 and 7. A last batch below 4 examples joins the one before it.
    """
    flattened = any(extractor.features == "flattened" for extractor in extractors.values())
    estimator = estimator or ("minibatch" if flattened else "exact")
    if estimator not in ESTIMATORS:
        raise UserError(f"estimator {estimator!r}: expected one of {', '.join(ESTIMATORS)}")
    chosen_pairs = list(combinations(extractors, 2)) if pairs is None else list(pairs)
    compared = _units_to_compare(extractors, chosen_pairs, layer_pairs)
    used = list(dict.fromkeys(unit for pair in compared for unit in pair))
    similarity = _Similarity(used, compared, exact=estimator == "exact", seed=seed)
    for images in _without_short_end(batches):
        similarity.update(extractors, images)
    check_num_examples(similarity.num_examples)

    values = similarity.values()
    low, high = similarity.interval(num_resamples, confidence)
    table = pd.DataFrame(
        [(a.model, b.model, a.layer, b.layer, extractors[a.model].features) for a, b in compared],
        columns=["checkpoint_a", "checkpoint_b", "layer", "layer_b", "features"],
    )
    return table.assign(
        estimator=estimator,
        num_examples=similarity.num_examples,
        cka=values,
        low=values + low,
        high=values + high,
        permuted=similarity.permuted(),
    )


class _Similarity:
    """Per batch, the HSIC of every pair of layers; and the exact sums where they are asked for."""

    def __init__(self, units: list[Unit], compared: list[tuple[Unit, Unit]], *, exact: bool, seed: int) -> None:
        self.num_examples = 0
        self._units = units
        self._compared = compared
        place = {unit: i for i, unit in enumerate(units)}
        self._a = np.array([place[a] for a, _ in compared])
        self._b = np.array([place[b] for _, b in compared])
        self._sums = {pair: FeatureSums() for pair in [*compared, *((u, u) for u in units)]} if exact else {}
        self._generator = np.random.default_rng(seed)
        self._seed = seed
        self._own: list[NDArray[np.float64]] = []
        self._cross: list[NDArray[np.float64]] = []
        self._floor: list[NDArray[np.float64]] = []

    def update(self, extractors: Mapping[str, FeatureExtractor], images: Tensor) -> None:
        check_num_examples(len(images))
        grams: dict[Unit, Tensor] = {}
        features: dict[Unit, Tensor] = {}

        def reduce(value: Tensor) -> tuple[Tensor, Tensor | None]:
            return centre_unbiased(gram_matrix(value)), value.clone() if self._sums else None

        for model in dict.fromkeys(unit.model for unit in self._units):
            for layer, (gram, value) in extractors[model](images, reduce).items():
                grams[Unit(model, layer)] = gram
                if value is not None:
                    features[Unit(model, layer)] = value
        self._add_batch([grams[unit] for unit in self._units])
        for (a, b), sums in self._sums.items():
            _check_exact(features[a], a)
            sums.update(features[a], features[b])
        self.num_examples += len(images)

    def _add_batch(self, centred: list[Tensor]) -> None:
        """HSIC of all pairs of units is one product of matrices: each row is a centred Gram matrix."""
        n = len(centred[0])
        order = torch.from_numpy(self._generator.permutation(n)).to(centred[0].device)
        stack = torch.stack(centred)
        rows = stack.flatten(1)
        hsic = (rows @ rows.T / (n - 3)).cpu().numpy()
        floor = (rows @ stack[:, order][:, :, order].flatten(1).T / (n - 3)).cpu().numpy()
        self._own.append(hsic.diagonal().copy())
        self._cross.append(hsic[self._a, self._b])
        self._floor.append(floor[self._a, self._b])

    def values(self) -> NDArray[np.float64]:
        """The CKA of each compared pair; a UserError where a layer's features do not vary."""
        own, cross = np.sum(self._own, axis=0), np.sum(self._cross, axis=0)
        if self._sums:
            own = np.array([self._sums[unit, unit].unbiased() for unit in self._units])
            cross = np.array([self._sums[pair].unbiased() for pair in self._compared])
        constant = [unit for unit, value in zip(self._units, own, strict=True) if not value > 0]
        if constant:
            names = ", ".join(f"{unit.layer} of {unit.model}" for unit in constant)
            raise UserError(f"the same features for all examples in layer {names}: CKA is undefined there")
        return self._ratios(cross, own)

    def permuted(self) -> NDArray[np.float64]:
        """As the mini-batch CKA, of examples in another order."""
        return self._ratios(np.sum(self._floor, axis=0), np.sum(self._own, axis=0))

    def _ratios(self, cross: NDArray[Any], own: NDArray[Any]) -> NDArray[np.float64]:
        """HSIC(a, b) / sqrt(HSIC(a, a) HSIC(b, b)) over the last axis; NaN where features do not vary in any batch."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios: NDArray[np.float64] = cross / np.sqrt(own[..., self._a] * own[..., self._b])
        return ratios

    def interval(self, num_resamples: int, confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances from the value down to the low end (negative) and up to the high end, by drawing batches again."""
        num_batches = len(self._own)
        if num_batches < 2:
            nothing = np.full(len(self._compared), np.nan)
            return nothing, nothing
        generator = np.random.default_rng([self._seed, 1])
        drawn = generator.multinomial(num_batches, np.full(num_batches, 1 / num_batches), size=num_resamples)
        ratios = self._ratios(drawn @ np.stack(self._cross), drawn @ np.stack(self._own))
        tail = (1 - confidence) / 2
        low, high = np.quantile(ratios, [tail, 1 - tail], axis=0)
        centre = self._ratios(np.sum(self._cross, axis=0), np.sum(self._own, axis=0))
        return low - centre, high - centre


def _units_to_compare(
    extractors: Mapping[str, FeatureExtractor], pairs: Sequence[tuple[str, str]], layer_pairs: str
) -> list[tuple[Unit, Unit]]:
    unknown = sorted({name for pair in pairs for name in pair} - set(extractors))
    if unknown:
        raise UserError(f"no model named {', '.join(unknown)}; there are: {', '.join(extractors)}")
    if layer_pairs not in ("same", "all"):
        raise UserError(f"layer_pairs {layer_pairs!r}: expected 'same' or 'all'")
    compared = []
    for a, b in pairs:
        layers_a, layers_b = extractors[a].layers, extractors[b].layers
        found = [(Unit(a, x), Unit(b, y)) for x in layers_a for y in layers_b if layer_pairs == "all" or x == y]
        if not found:
            raise UserError(
                f"{a} and {b} have no layer name in common: {', '.join(layers_a)} and {', '.join(layers_b)}"
            )
        compared += found
    if not compared:
        raise UserError("no pair of models to compare")
    return compared


def _check_exact(features: Tensor, unit: Unit) -> None:
    if features.shape[1] > MAX_EXACT_FEATURES:
        raise UserError(
            f"layer {unit.layer} of {unit.model} has {features.shape[1]} features, above the {MAX_EXACT_FEATURES} that "
            "estimator 'exact' holds: pool the features or use estimator='minibatch'"
        )


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
