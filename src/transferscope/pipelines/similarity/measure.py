"""CKA of the pairs of a task, with its controls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from transferscope.analysis.cka_models import cka_between
from transferscope.analysis.evaluation import prepare
from transferscope.analysis.features import FeatureExtractor
from transferscope.images.augment import EvaluationTransform
from transferscope.models.layers import feature_layers
from transferscope.models.series import CheckpointSeries
from transferscope.options import SimilarityOptions
from transferscope.plan import derive_seed
from transferscope.progress import progress_bar

Names = tuple[str, str]


def cka(
    pairs: dict[str, Any],
    runs: dict[str, Any],
    series: dict[str, CheckpointSeries],
    split: Any,
    options: SimilarityOptions,
) -> pd.DataFrame:
    """CKA at every layer of every pair and control, for each way to make features; all from one pass per way."""
    kinds = {
        (f"{pair['run_a']}@{options.epoch}", f"{pair['run_b']}@{options.epoch}"): pair["kind"]
        for pair in pairs.values()
        if pair["run_a"] in series and pair["run_b"] in series
    }
    kinds |= _controls(runs, split.name, list(kinds))
    tables = [_of_features(features, kinds, series, split, options) for features in options.features]
    table = pd.concat(tables, ignore_index=True)
    pair_kinds = [kinds[pair] for pair in zip(table["checkpoint_a"], table["checkpoint_b"], strict=True)]
    table.insert(0, "pair_kind", pair_kinds)
    table.insert(0, "task", split.name)
    return table


def _controls(runs: dict[str, Any], task: str, pairs: list[Names]) -> dict[Names, str]:
    """A model with itself, and two models before training whose initial weights were drawn apart."""
    own = pairs[0][0]
    controls: dict[Names, str] = {(own, own): "same model"}
    compared = {name.rpartition("@")[0] for pair in pairs for name in pair}
    untrained: dict[int, str] = {}
    for name, run in runs.items():
        if run["initialisation"] == "random" and f"{task}.{name}" in compared:
            untrained.setdefault(run["init_seed"], f"{task}.{name}@0")
    if len(untrained) > 1:
        first, second, *_ = untrained.values()
        controls[first, second] = "RI & RI"
    return controls


def _of_features(
    features: str, kinds: dict[Names, str], series: dict[str, CheckpointSeries], split: Any, options: SimilarityOptions
) -> pd.DataFrame:
    names = dict.fromkeys(name for pair in kinds for name in pair)
    extractors = {name: _extractor(series, name, features) for name in names}
    order = _order(split, options.max_examples)
    with progress_bar(f"CKA of {split.name}, {features} features", len(order)) as advance:
        batches = _batches(split, order, options.batch_size, advance)
        return cka_between(extractors, batches, pairs=list(kinds))


def _extractor(series: dict[str, CheckpointSeries], name: str, features: Any) -> FeatureExtractor:
    run, _, epoch = name.rpartition("@")
    model = prepare(series[run].load(int(epoch) if epoch.isdigit() else epoch).build())  # type: ignore[arg-type]
    return FeatureExtractor(model, feature_layers(model), features=features)


def _order(split: Any, limit: int | None) -> np.ndarray:
    """Examples in a random order: the mini-batch estimator wants batches that are alike."""
    order = np.random.default_rng(derive_seed(split.name, "cka")).permutation(len(split))
    return order[:limit]


def _batches(split: Any, order: np.ndarray, size: int, advance: Any) -> Iterator[Tensor]:
    transform = EvaluationTransform(split.pictures)
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        yield transform(split.gather(indices))
        advance(len(indices))
