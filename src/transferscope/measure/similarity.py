"""CKA of the pairs of a task, with its controls, a heat map of all blocks and a second opinion."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from transferscope.analysis.cka import Estimator
from transferscope.analysis.cka_models import LayerSimilarity
from transferscope.analysis.comparisons import Comparison
from transferscope.analysis.evaluation import DTYPES, prepare
from transferscope.analysis.features import FeatureExtractor, Pooling
from transferscope.analysis.second_opinion import second_opinion
from transferscope.experiment.options import Precision, SimilarityOptions
from transferscope.experiment.plan import derive_seed
from transferscope.images.augment import NETWORK_CHANNELS, EvaluationTransform, check_channels, to_grey
from transferscope.models.layers import block_layers, feature_layers, image_channels
from transferscope.models.layouts import Layout, try_layouts
from transferscope.models.parametrised import analysed_model
from transferscope.models.series import CheckpointSeries
from transferscope.system.errors import UserError
from transferscope.system.progress import progress_bar
from transferscope.training.device import choose_device
from transferscope.training.feed import Feed

log = logging.getLogger(__name__)

Names = tuple[str, str]
Kinds = dict[Names, str]
MINIBATCH: tuple[Estimator, ...] = ("minibatch",)
SAME_MODEL, UNTRAINED = "same model", "RI & RI"
"""Controls, as kinds of pair."""


def cka(
    pairs: list[dict[str, Any]],
    runs: dict[str, Any],
    series: dict[str, CheckpointSeries],
    split: Any,
    options: SimilarityOptions,
    precision: Precision = "float32",
) -> dict[str, pd.DataFrame]:
    """Tables of every pair and control, from one pass for each way to make features.

    cka: layer by layer, as Tables 1 and 7. cka_layers: every block with every block, of the first pairs of each kind.
    second_opinion: other measures of the same layers. Features are computed in `precision` and compared in float64.
    """
    kinds = {(f"{pair['run_a']}@{options.epoch}", f"{pair['run_b']}@{options.epoch}"): pair["kind"] for pair in pairs}
    labels = {kind: (pair["label_a"], pair["label_b"]) for kind, pair in zip(kinds.values(), pairs, strict=True)}
    kinds |= _controls(runs, split.name, list(kinds))
    found: dict[str, list[pd.DataFrame]] = {"cka": [], "cka_layers": [], "second_opinion": []}
    for features in options.features:
        for name, table in _of_features(features, kinds, series, split, options, precision).items():
            named = _named(table, kinds, split.name)
            found[name].append(_labelled(named, labels) if name == "cka_layers" else named)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items() if tables}


def _controls(runs: dict[str, Any], task: str, pairs: list[Names]) -> Kinds:
    """A model with itself, and two models before training whose initial weights were drawn apart."""
    own = pairs[0][0]
    controls: Kinds = {(own, own): SAME_MODEL}
    compared = {name.rpartition("@")[0] for pair in pairs for name in pair}
    untrained: dict[int, str] = {}
    for name, run in runs.items():
        if run["initialisation"] == "random" and f"{task}.{name}" in compared:
            untrained.setdefault(run["init_seed"], f"{task}.{name}@0")
    if len(untrained) > 1:
        first, second, *_ = untrained.values()
        controls[first, second] = UNTRAINED
    return controls


def _of_features(
    features: Pooling,
    kinds: Kinds,
    series: dict[str, CheckpointSeries],
    split: Any,
    options: SimilarityOptions,
    precision: Precision,
) -> dict[str, pd.DataFrame]:
    heat_map = _first_of_each_kind(kinds, options.heat_map_pairs if features == options.features[0] else 0)
    mapped = {name for pair in heat_map for name in pair}
    extractors: dict[str, FeatureExtractor] = {}
    layers: dict[str, str] = {}
    blocks: dict[str, str] = {}
    layouts = Layouts(features, split.pictures.seen_size)
    for name in dict.fromkeys(name for pair in kinds for name in pair):
        architecture, model = _model(series, name, precision)
        own_layers = {path: path for path in options.layers} if options.layers else feature_layers(model)
        own_blocks = block_layers(model) if name in mapped else {}
        known = layouts.of(architecture, model, own_layers, own_blocks, required=bool(options.layers))
        own_layers, own_blocks = (
            {key: path for key, path in found.items() if path in known} for found in (own_layers, own_blocks)
        )
        extractors[name] = FeatureExtractor(model, own_layers | own_blocks, features=features, layouts=known)
        layers |= own_layers
        blocks |= own_blocks
    estimators = options.estimators if features == "pooled" else MINIBATCH
    by_layer = Comparison(tuple(kinds), tuple(layers), estimators=estimators)
    every_block = Comparison(heat_map, tuple(blocks), "all", MINIBATCH)
    similarity = LayerSimilarity(extractors, [by_layer, every_block] if heat_map else [by_layer])
    order = _order(split, options.max_examples)
    with progress_bar(f"CKA of {split.name}, {features} features", len(order)) as advance:
        similarity.update_all(_batches(split, order, options.batch_size, DTYPES[precision], advance))
    undefined = similarity.undefined(by_layer)
    if undefined:  # of a run that diverged, or whose units are all dead: it costs the others nothing
        log.warning("%s, %s features: no CKA of %s", split.name, features, ", ".join(map(str, undefined)))
    tables = {"cka": similarity.cka(by_layer, allow_undefined=True)}
    if heat_map:
        tables["cka_layers"] = similarity.cka(every_block, allow_undefined=True)
    if by_layer.exact:
        tables["second_opinion"] = second_opinion(similarity, by_layer)
    return tables


class Layouts:
    """The axes of layers' outputs, found once for each architecture; layers without are left out and named."""

    def __init__(self, features: Pooling, side: int) -> None:
        self.channels, self.side = features == "pooled", side
        self._known: dict[str, dict[str, Layout]] = {}
        self._refused: dict[str, dict[str, str]] = {}

    def of(
        self,
        architecture: str,
        model: nn.Module,
        layers: Mapping[str, str],
        blocks: Mapping[str, str],
        *,
        required: bool,
    ) -> dict[str, Layout]:
        """Those that exist. UserError where one of `layers` has none and is required, or where all have none."""
        known = self._known.setdefault(architecture, {})
        refused = self._refused.setdefault(architecture, {})
        wanted = dict.fromkeys((*layers.values(), *blocks.values()))
        if missing := [path for path in wanted if path not in known and path not in refused]:
            shape = (NETWORK_CHANNELS, self.side, self.side)
            found, lacking = try_layouts(model, missing, shape, channels=self.channels)
            known |= found
            refused |= lacking
            for reason in lacking.values():
                log.warning("left out: %s", reason)
        without = [refused[path] for path in layers.values() if path in refused]
        if without and (required or len(without) == len(layers)):
            raise UserError(without[0])
        return known


def _first_of_each_kind(kinds: Kinds, number: int) -> tuple[Names, ...]:
    by_kind: dict[str, list[Names]] = {}
    for pair, kind in kinds.items():
        by_kind.setdefault(kind, []).append(pair)
    return tuple(pair for pairs in by_kind.values() for pair in pairs[:number])


def _model(series: dict[str, CheckpointSeries], name: str, precision: Precision) -> tuple[str, nn.Module]:
    """A checkpoint's architecture and its model, which takes images of three channels, whatever its own number is."""
    run, _, epoch = name.rpartition("@")
    checkpoint = series[run].load(int(epoch) if epoch.isdigit() else epoch)  # type: ignore[arg-type]
    model = prepare(analysed_model(checkpoint), choose_device(None)).to(DTYPES[precision])
    channels = image_channels(model)
    check_channels(channels)
    if channels == 1:
        model.register_forward_pre_hook(lambda _, inputs: (to_grey(inputs[0]), *inputs[1:]))
    return f"{checkpoint.metadata.architecture} {checkpoint.metadata.model_options}", model


def _order(split: Any, limit: int | None) -> np.ndarray:
    """Examples in a random order: the mini-batch estimator wants batches that are alike."""
    order = np.random.default_rng(derive_seed(split.name, "cka")).permutation(len(split))
    return order[:limit]


def _batches(split: Any, order: np.ndarray, size: int, dtype: torch.dtype, advance: Any) -> Iterator[Tensor]:
    transform = EvaluationTransform(split.pictures)
    feed = Feed(split, choose_device(None), keep_resident=False)
    for images in feed.batches(order[start : start + size] for start in range(0, len(order), size)):
        yield transform(images).to(dtype)
        advance(len(images))


def _labelled(table: pd.DataFrame, labels: dict[str, Names]) -> pd.DataFrame:
    """The table with the labels of the two models of every pair, and what the controls compare."""
    known = {SAME_MODEL: ("the model", "the model"), UNTRAINED: ("RI", "RI")} | labels
    for position, column in enumerate(("label_a", "label_b")):
        table[column] = [known[kind][position] for kind in table["pair_kind"]]
    return table


def _named(table: pd.DataFrame, kinds: Kinds, task: str) -> pd.DataFrame:
    pair_kinds = [kinds[pair] for pair in zip(table["checkpoint_a"], table["checkpoint_b"], strict=True)]
    return pd.concat([pd.DataFrame({"task": task, "pair_kind": pair_kinds}), table], axis=1)
