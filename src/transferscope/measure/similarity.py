"""CKA of pairs of models, with its controls, a heat map of all blocks and a second opinion.

`analysis.features` takes the outputs of layers batch by batch, `analysis.cka_models` the HSIC of every pair of them
(`analysis.hsic`) and with it CKA and its interval (`analysis.cka_interval`); `plots.cka` draws the table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from transferscope.analysis.cka import Estimator
from transferscope.analysis.cka_models import LayerSimilarity
from transferscope.analysis.evaluator import DTYPES
from transferscope.analysis.features import FeatureExtractor, Graphs, Pooling
from transferscope.analysis.layer_pairs import LayerComparison
from transferscope.analysis.second_opinion import second_opinion
from transferscope.experiment.names import CheckpointName, RunName
from transferscope.experiment.options import Precision, SimilarityOptions
from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import derive_seed
from transferscope.images.seen_images import NETWORK_CHANNELS, check_channels, to_grey
from transferscope.images.split import PackedSplit
from transferscope.measure.bench import Bench, feed_of, inputs, workspace
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.layers import block_layers, feature_layers, image_channels
from transferscope.models.layouts import Layout, try_layouts
from transferscope.system.errors import UserError
from transferscope.system.progress import progress_bar

log = logging.getLogger(__name__)

Names = tuple[str, str]
Kinds = dict[Names, str]
MINIBATCH: tuple[Estimator, ...] = ("minibatch",)
SAME_MODEL, UNTRAINED = "same model", "two untrained"
"""Controls, as kinds of pair: no two labels make one of these, since the name of a pair holds " & "."""


def cka(
    bench: Bench,
    checkpoints: Mapping[str, Checkpoint],
    pairs: Mapping[Names, str] | Iterable[Names],
    options: SimilarityOptions | None = None,
    *,
    labels: Mapping[str, Names] | None = None,
) -> dict[str, pd.DataFrame]:
    """Compare the features of pairs of models on test images, from one pass for each way to make features.

    Tables by name. cka: layer by layer, as Tables 1 and 7, of pairs that have names of layers in common. cka_layers:
    every block with every block, of the first pairs of each kind. second_opinion: other measures of the same layers.
    Features are computed in the precision of the bench and compared in float64.

    Args:
        checkpoints: By the names that the tables show; asked for one by one.
        pairs: Names of two checkpoints each, and the kind of the pair where there are several.
        options: Layers, features and estimators; `pairs`, `epoch` of them are the caller's.
        labels: The two labels of each kind of pair, for the heat map; missing: the names of the kind's first pair.
    """
    chosen = options or SimilarityOptions()
    kinds = dict(pairs) if isinstance(pairs, Mapping) else {pair: " & ".join(pair) for pair in pairs}
    first = {kind: pair for pair, kind in reversed(kinds.items())}
    control_labels = {SAME_MODEL: ("the model",) * 2, UNTRAINED: ("untrained model 1", "untrained model 2")}
    shown = first | control_labels | dict(labels or {})
    parts: dict[str, list[pd.DataFrame]] = {"cka": [], "cka_layers": [], "second_opinion": []}
    for features in chosen.features:
        for name, table in _of_features(bench, checkpoints, kinds, features, chosen).items():
            named = _named(table, kinds, bench.task)
            parts[name].append(_labelled(named, shown) if name == "cka_layers" else named)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items() if tables}


def controls(pairs: Iterable[Names], runs: Iterable[RunSpec]) -> Kinds:
    """Choose a model to compare with itself, and two before training whose initial weights were drawn apart."""
    compared = [CheckpointName.parse(name) for pair in pairs for name in pair]
    own = str(compared[0])
    kinds: Kinds = {(own, own): SAME_MODEL}
    names = {str(name.run_name) for name in compared}
    untrained: dict[int, str] = {}
    for run in runs:
        if run.initialisation == "random" and run.full_name in names:
            untrained.setdefault(run.init_seed, str(RunName.parse(run.full_name).at(0)))
    if len(untrained) > 1:
        first, second, *_ = untrained.values()
        kinds[first, second] = UNTRAINED
    return kinds


def _of_features(
    bench: Bench, checkpoints: Mapping[str, Checkpoint], kinds: Kinds, features: Pooling, options: SimilarityOptions
) -> dict[str, pd.DataFrame]:
    split = bench.split("test")
    heat_map = _first_of_each_kind(kinds, options.heat_map_pairs if features == options.features[0] else 0)
    mapped = {name for pair in heat_map for name in pair}
    extractors: dict[str, FeatureExtractor] = {}
    layers: dict[str, str] = {}
    blocks: dict[str, str] = {}
    own_names: dict[str, list[str]] = {}
    layouts = Layouts(features, split.pictures.seen_size)
    graphs: dict[str, Graphs] = {}
    for name in dict.fromkeys(name for pair in kinds for name in pair):
        architecture, model = _model(checkpoints[name], bench.precision)
        own_layers = {path: path for path in options.layers} if options.layers else feature_layers(model)
        own_blocks = block_layers(model) if name in mapped else {}
        known = layouts.of(architecture, model, own_layers, own_blocks, required=bool(options.layers))
        own_layers, own_blocks = (
            {key: path for key, path in chosen.items() if path in known} for chosen in (own_layers, own_blocks)
        )
        code = graphs.setdefault(architecture, {}) if bench.compiled else None
        every = own_layers | own_blocks
        extractors[name] = FeatureExtractor(model, every, features=features, layouts=known, graphs=code)
        layers |= own_layers
        blocks |= own_blocks
        own_names[name] = list(own_layers)
    matched = _with_a_common_layer(kinds, own_names, warn=features == options.features[0])
    estimators = options.estimators if features == "pooled" else MINIBATCH
    by_layer = LayerComparison(matched, tuple(layers), estimators=estimators)
    every_block = LayerComparison(heat_map, tuple(blocks), "all", MINIBATCH, intervals=False)
    comparisons = [*([by_layer] if matched else []), *([every_block] if heat_map else [])]
    if not comparisons:
        return {}
    similarity = LayerSimilarity(extractors, comparisons)
    order = _order(split, options.max_examples)
    with progress_bar(f"CKA of {split.name}, {features} features", len(order)) as advance:
        similarity.update_all(_batches(split, order, options.batch_size, DTYPES[bench.precision], advance))
    undefined = similarity.undefined(by_layer) if matched else []
    if undefined:  # of a run that diverged, or whose units are all dead: it costs the others nothing
        log.warning("%s, %s features: no CKA of %s", split.name, features, ", ".join(map(str, undefined)))
    tables = {"cka": similarity.cka(by_layer, allow_undefined=True)} if matched else {}
    if heat_map:
        tables["cka_layers"] = similarity.cka(every_block, allow_undefined=True)
    if matched and by_layer.exact:
        tables["second_opinion"] = second_opinion(similarity, by_layer)
    return tables


def _with_a_common_layer(kinds: Kinds, layers: Mapping[str, Sequence[str]], *, warn: bool) -> tuple[Names, ...]:
    """The pairs that can be compared layer by layer; the log names the others, which only a heat map compares.

    layers: names of the layers of each model.
    """
    apart = [(a, b) for a, b in kinds if not set(layers[a]) & set(layers[b])]
    for a, b in apart if warn else ():
        log.warning(
            "%s and %s have no layer name in common (%s and %s), so there is no CKA between layers of one name",
            *(a, b, ", ".join(layers[a]), ", ".join(layers[b])),
        )
    return tuple(pair for pair in kinds if pair not in apart)


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
            layouts, lacking = try_layouts(model, missing, shape, channels=self.channels)
            known |= layouts
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


def _model(checkpoint: Checkpoint, precision: Precision) -> tuple[str, nn.Module]:
    """A checkpoint's architecture and its model, which takes images of three channels, whatever its own number is."""
    model = workspace(checkpoint).to(DTYPES[precision])
    channels = image_channels(model)
    check_channels(channels)
    if channels == 1:
        model.register_forward_pre_hook(lambda _, inputs: (to_grey(inputs[0]), *inputs[1:]))
    return f"{checkpoint.metadata.architecture} {checkpoint.metadata.model_options}", model


def _order(split: PackedSplit, limit: int | None) -> np.ndarray:
    """Examples in a random order: the mini-batch estimator wants batches that are alike."""
    order = np.random.default_rng(derive_seed(split.name, "cka")).permutation(len(split))
    return order[:limit]


def _batches(
    split: PackedSplit, order: np.ndarray, size: int, dtype: torch.dtype, advance: Callable[[int], None]
) -> Iterator[Tensor]:
    rows = (order[start : start + size] for start in range(0, len(order), size))
    for images in inputs(feed_of(split, keep_resident=False), rows):
        yield images.to(dtype)
        advance(len(images))


def _labelled(table: pd.DataFrame, known: Mapping[str, Names]) -> pd.DataFrame:
    """The table with the labels of the two models of every pair, and what the controls compare."""
    for position, column in enumerate(("label_a", "label_b")):
        table[column] = [known[kind][position] for kind in table["pair_kind"]]
    return table


def _named(table: pd.DataFrame, kinds: Kinds, task: str) -> pd.DataFrame:
    pair_kinds = [kinds[pair] for pair in zip(table["checkpoint_a"], table["checkpoint_b"], strict=True)]
    return pd.concat([pd.DataFrame({"task": task, "pair_kind": pair_kinds}), table], axis=1)
