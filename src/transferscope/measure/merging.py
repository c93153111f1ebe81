"""Models merged into one on a bench: which merge, what it scores, and what it is held against."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from transferscope.analysis.alignment import Permutation, PermutationGroups, permutation_groups
from transferscope.analysis.batchnorm import batchnorm_layers, recompute_statistics
from transferscope.analysis.evaluator import Batch, Batches, iterate
from transferscope.analysis.merging import (
    align_to_first,
    aligned_average,
    check_candidates,
    check_parent,
    diagonal_fisher,
    fisher_merge,
    greedy_soup,
    regmean,
    rescaled_average,
    task_arithmetic,
    ties,
    uniform_soup,
    wise_ft,
)
from transferscope.analysis.refitting import LinearClassifier, fit_classifier
from transferscope.analysis.states import State, describe_nonfinite
from transferscope.experiment.names import Epoch, RunName
from transferscope.experiment.options import FROM_PARENT, MERGE_METHODS, MergeMethod, MergingOptions
from transferscope.experiment.seeds import derive_seed
from transferscope.measure.bench import Bench, feed_of, stream, workspace
from transferscope.measure.judging import (
    JudgedImages,
    inputs_of,
    labels_of,
    predict_both,
)
from transferscope.measure.merge_table import COLUMNS, MeasuredModel, rows_of
from transferscope.measure.ways import ONE_PASS_BYTES
from transferscope.models.checkpoint import PLAIN_LAYERS, Checkpoint, CheckpointMetadata
from transferscope.models.compatible import classifier_keys
from transferscope.models.layers import classifier_layers, image_channels
from transferscope.models.parametrised import is_plain
from transferscope.models.state_dicts import without
from transferscope.models.stored_state import load_stored, store_state, stored_state
from transferscope.system.errors import UserError
from transferscope.system.temporaries import work_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merging:
    """The merges of some candidates, and the one that was chosen."""

    table: pd.DataFrame
    """`COLUMNS`, a row per model and task, and where there are several tasks one for the mean over them (`all`).

    kind: `candidate`, `ensemble` (mean of the candidates' logits), `union`, or `merge`; model: the method of a merge,
    the name of a candidate. value: accuracy, or mean AUC where images have several labels, on the judging images, with
    its 95 % interval. refitted: the same with a linear classifier that was fitted to the network's features of training
    images. gain: value less that of the best single candidate, paired on the same images. behind_union: value of the
    model that was trained on all images less this one. choice_value: mean over the tasks on the choosing images.
    chosen: of the candidates the best one, of the merges that which is to be used; both by choice_value.
    """
    checkpoint: Checkpoint
    """The chosen merge; `metadata.extra["card"]` says of what and how it was made, and what it scores."""

    @property
    def card(self) -> dict[str, Any]:
        """The merged checkpoints, the method, and the scores."""
        card: dict[str, Any] = self.checkpoint.metadata.extra["card"]
        return card


def merge(
    benches: Mapping[str, Bench] | Sequence[Bench],
    candidates: Mapping[str, Checkpoint],
    options: MergingOptions | None = None,
    *,
    methods: Sequence[MergeMethod] | None = None,
    parent: Checkpoint | Callable[[], Checkpoint] | None = None,
    union: Checkpoint | Callable[[], Checkpoint] | None = None,
) -> Merging:
    """Merge candidates by every method, and measure the results beside what one could use instead.

    Settings (places between parent and candidates, scales, the order and choice of the greedy soup), the best single
    candidate and the merge to be used are chosen on some images and judged on others, see `MergingOptions.choice`.
    BatchNorm's statistics of every merge are those of training images; candidates keep their own.

    Args:
        benches: One for each task, with "test" and "train" images; "validation" ones choose where there are any.
            Without "train" no classifier is refitted, and methods and networks that need training images are refused.
        candidates: By name; a mapping may read each checkpoint when it is asked for, and each is asked for once.
        methods: None: those of the options, or else all that apply; what starts from a parent needs one.
        parent: The weights that the candidates started from, or what reads them; its classifier may be another.
        union: A model that was trained on the images of all candidates, or what reads it.

    Raises:
        UserError: For a single candidate and no parent, networks of different architectures, shapes or classes,
            non-finite weights, a parent that is none, missing images, and tasks of different classes or of
            another number of labels per image.

    Memory: at most two models and a few tensors, for any number of candidates in files (the table by method is in
    docs/merging.md); what methods need of networks (Fisher information) waits in temporary files, and so do parent and
    union where a function reads them. RegMean needs Gram matrices of a layer, and what a network computes with images
    (activations, and their gradients for Fisher information) comes on top. Networks compute in float32.
    """
    given = list(benches.values()) if isinstance(benches, Mapping) else list(benches)
    chosen = options or MergingOptions()
    wanted = _methods(methods or chosen.methods, len(candidates), parent)
    with work_folder() as folder:
        return _Merger(given, candidates, chosen, parent, union, folder).all(wanted)


def _methods(
    wanted: Sequence[MergeMethod] | None, num_candidates: int, parent: Checkpoint | Callable[[], Checkpoint] | None
) -> Sequence[MergeMethod]:
    """The methods that are asked for, or all that apply; UserError where one cannot be."""
    if num_candidates == 0:
        raise UserError("there is nothing to merge: give two candidates, or one and its parent")
    if num_candidates == 1 and parent is None:
        raise UserError("one candidate has nothing to be merged with: give another one, or its parent")
    if wanted is None:
        if num_candidates == 1:
            return ("wise_ft",)
        if parent is None:
            log.info("the candidates have no parent: %s need one and are left out", ", ".join(FROM_PARENT))
        return [method for method in MERGE_METHODS if parent is not None or method not in FROM_PARENT]
    orphans = [method for method in wanted if method in FROM_PARENT] if parent is None else []
    if orphans:
        raise UserError(f"{', '.join(orphans)}: starts from the parent of the candidates: give it, or other methods")
    alone = [method for method in wanted if method not in FROM_PARENT] if num_candidates == 1 else []
    if alone:
        raise UserError(f"{', '.join(alone)}: one candidate has nothing to be merged with: give another one")
    return wanted


class _Merger:
    """Candidates in files, one network in which weights are measured, and what was measured."""

    def __init__(
        self,
        benches: Sequence[Bench],
        candidates: Mapping[str, Checkpoint],
        options: MergingOptions,
        parent: Checkpoint | Callable[[], Checkpoint] | None,
        union: Checkpoint | Callable[[], Checkpoint] | None,
        folder: Path,
    ) -> None:
        self.options, self.folder, self.names = options, folder, list(candidates)
        self.metadata: list[CheckpointMetadata] = []
        self.states: list[State] = []
        for place, name in enumerate(self.names):
            checkpoint = candidates[name]
            if place == 0:
                self._prepare_network(checkpoint)
            self._take(name, checkpoint)
            self.states.append(stored_state(checkpoint, folder / f"candidate_{place}.pt"))
            del checkpoint
        check_candidates(self.states, self.names)
        channels = image_channels(self.network)
        self.images = [JudgedImages(bench, options, channels) for bench in benches]
        self.by_task = {one.task: one for one in self.images}
        self._check_classes()
        self.union = None if union is None else self._taken_union(union)
        self.parent = None if parent is None else self._taken_parent(parent)
        self.singles: list[float] = []

    def _prepare_network(self, checkpoint: Checkpoint) -> None:
        """The network that all weights are measured in, which holds none of its own meanwhile."""
        self.plain = is_plain(checkpoint.metadata, checkpoint.source)
        self.network = workspace(checkpoint)
        self.like = {key: tensor.to("meta") for key, tensor in self.network.state_dict().items()}
        self.shared = _shared_parameters(self.network)
        self.device = next(self.network.parameters()).device
        self.normalised = bool(batchnorm_layers(self.network))
        self.head = _head_of(self.network)
        self.free = classifier_keys(self.network)
        self._release()

    def _take(self, name: str, checkpoint: Checkpoint) -> None:
        """Refuse another architecture or other classes than the first candidate's."""
        known = checkpoint.metadata
        if self.metadata:
            first = self.metadata[0]
            if (first.architecture, first.model_options) != (known.architecture, known.model_options):
                raise UserError(
                    f"{self.names[0]} is a {_shown(first)} and {name} a {_shown(known)}: "
                    "merge models of one architecture"
                )
            if first.class_names and known.class_names and first.class_names != known.class_names:
                raise UserError(f"{self.names[0]} and {name} name different classes: merge models of the same classes")
        self.metadata.append(known)

    def _taken_union(self, union: Checkpoint | Callable[[], Checkpoint]) -> State:
        read = union() if callable(union) else union
        state, source = stored_state(read, self.folder / "union.pt"), read.source
        del read
        check_candidates([self.states[0], state], [self.names[0], source])
        return state

    def _taken_parent(self, parent: Checkpoint | Callable[[], Checkpoint]) -> State:
        read = parent() if callable(parent) else parent
        self.parent_name = _named(read)
        state, source, classes = stored_state(read, self.folder / "parent.pt"), read.source, read.metadata.class_names
        del read
        check_parent(state, self.states, self._free(state), source)
        # A classifier of as many other classes has the right shape and the wrong rows.
        other = bool(classes) and classes != tuple(self.images[0].judge_split.class_names)
        return without(state, self.free) if other else state

    def _check_classes(self) -> None:
        if not self.images:
            raise UserError("there are no images to judge a merge by: give a bench with test images")
        kinds = {one.multi_label: one.task for one in reversed(self.images)}
        if len(kinds) > 1:
            raise UserError(
                f"images of {kinds[False]} have one label each and those of {kinds[True]} several: judge a merge on "
                "tasks of one kind"
            )
        classes = {one.task: tuple(one.bench.split("test").class_names) for one in self.images}
        first, names = next(iter(classes.items()))
        for task, other in classes.items():
            if other != names:
                raise UserError(f"{first} and {task} have different classes: judge a merge on tasks of the same ones")
        known = self.metadata[0].class_names
        if known and known != names:
            raise UserError(f"{self.names[0]} was trained for other classes than those of {first}")

    def _free(self, parent: State) -> frozenset[str]:
        """The tensors of the classifier, where the parent's is that of another task."""
        return frozenset(
            key for key in self.free if key not in parent or parent[key].shape != self.states[0][key].shape
        )

    # What a model scores.

    def _release(self) -> None:
        self._assign(self.like)

    def _assign(self, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors in the place of the network's own; one that several layers share stays one."""
        own = {key: nn.Parameter(tensors[key]) for key in set(self.shared.values())}
        self.network.load_state_dict(
            dict(tensors) | {key: own[first] for key, first in self.shared.items()}, assign=True
        )

    @contextmanager
    def _worn(self, state: State, *, copy: bool = False) -> Iterator[nn.Module]:
        """The network with the very tensors of `state`, or with copies that may be written to."""
        tensors = {key: _moved(state[key], like.dtype, self.device, copy=copy) for key, like in self.like.items()}
        self._assign(tensors)
        del tensors
        try:
            yield self.network
        finally:
            self._release()

    @contextmanager
    def _mapped(self, place: int) -> Iterator[nn.Module]:
        """The network with the weights of a candidate as they lie in a file, which are to be read only."""
        file = self.folder / f"mapped_{place}.pt"
        store_state(self.states[place], file)
        try:
            with self._worn(load_stored(file)) as network:
                yield network
        finally:
            file.unlink()

    @contextmanager
    def _settled(self, state: dict[str, Tensor]) -> Iterator[nn.Module]:
        """The network with merged weights, whose statistics of BatchNorm become those of training images."""
        with self._worn(state) as network:
            if self.normalised:
                recompute_statistics(network, self._all_training("statistics of BatchNorm", self.options.statistics))
                for name in batchnorm_layers(network):
                    for statistic in ("running_mean", "running_var"):
                        key = f"{name}.{statistic}"
                        state[key] = network.get_buffer(key).to(state[key].device, state[key].dtype)
            yield network

    def _all_training(self, what: str, limit: int) -> Batches:
        """Training images of all tasks, one task after the other."""
        splits = [one.train(limit, what) for one in self.images]
        channels = self.images[0].channels

        def made() -> Iterator[Batch]:
            for split in splits:
                yield from stream(feed_of(split), channels)

        return made

    def _in_one_batch(self, given: Batches) -> Batches:
        """The same images, in one batch where they are small: statistics of channels then need a single pass."""
        side = self.images[0].judge_split.pictures.seen_size
        count = len(self.images) * self.options.statistics
        if count * 4 * self.images[0].channels * side**2 > ONE_PASS_BYTES:
            return given
        inputs, labels = zip(*iterate(given), strict=True)
        return [(torch.cat(inputs), torch.cat(labels))]

    def _training_of(self, place: int, what: str, limit: int) -> Batches:
        """Training images of a candidate's own task, or of all where that is none of the tasks."""
        own = self.by_task.get(self.metadata[place].task or "")
        if own is None:
            return self._all_training(what, limit)
        split = own.train(limit, what)
        return lambda: stream(feed_of(split), own.channels)

    def _choice(self, network: nn.Module) -> tuple[float, list[Tensor]]:
        """Mean of the main metric over the tasks on the choosing images, and the logits."""
        of_tasks, scores = [], []
        for one in self.images:
            logits, labels, _ = predict_both(network, one.choice)
            scores.append(one.score(logits, labels))
            of_tasks.append(logits)
        return float(np.mean(scores)), of_tasks

    def _choice_of(self, state: dict[str, Tensor]) -> float:
        with self._settled(state) as network:
            return self._choice(network)[0]

    def _measured(
        self, network: nn.Module, model: str, kind: str, setting: str, choice: float
    ) -> tuple[MeasuredModel, list[Tensor]]:
        """The entry of a network, and its logits of the judging images of each task."""
        classifier = self._refit(network)
        outcomes, refitted, kept = {}, {}, []
        for one in self.images:
            logits, labels, again = predict_both(network, one.judge, self.head, classifier)
            outcomes[one.task] = one.outcome(logits, labels)
            refitted[one.task] = math.nan if again is None else one.score(again, labels)
            kept.append(logits)
        return MeasuredModel(model, kind, setting, choice, outcomes, refitted), kept

    def _refit(self, network: nn.Module) -> LinearClassifier | None:
        """A classifier fitted to the features of training images of all tasks, where there are such."""
        if self.head is None or any("train" not in one.bench.splits for one in self.images):
            return None
        features, labels = [], []
        with inputs_of(network, self.head) as seen, torch.inference_mode():
            for inputs, targets in iterate(self._all_training("the refitted classifier", self.options.statistics)):
                network(inputs)
                features.append(seen.pop().flatten(1).cpu())
                labels.append(targets.cpu())
        first = self.images[0]
        return fit_classifier(
            torch.cat(features).numpy(), torch.cat(labels).numpy(), first.num_classes, multi_label=first.multi_label
        )

    # The merges.

    def all(self, methods: Sequence[MergeMethod]) -> Merging:
        entries = [*self._candidates_and_ensemble()]
        if self.union is not None:
            with self._worn(self.union) as network:
                entries.append(self._measured(network, "union", "union", "", self._choice(network)[0])[0])
        best, kept = -math.inf, self.folder / "chosen.pt"
        chosen = methods[0]
        for method in methods:
            state, setting = self._make(method)
            with self._settled(state) as network:
                choice = self._choice(network)[0]
                entries.append(self._measured(network, method, "merge", setting, choice)[0])
            if choice > best or not kept.exists():  # of NaN nothing is better
                best, chosen = np.nan_to_num(choice, nan=-math.inf), method
                store_state(state, kept)
            del state
        return self._conclude(entries, chosen, kept)

    def _candidates_and_ensemble(self) -> Iterator[MeasuredModel]:
        """The candidates as they are, and the mean of their logits."""
        choosing: list[Tensor] = []
        judging: list[Tensor] = []
        for name, state in zip(self.names, self.states, strict=True):
            with self._worn(state) as network:
                choice, first = self._choice(network)
                entry, second = self._measured(network, name, "candidate", "", choice)
            choosing = [a + b for a, b in zip(choosing, first, strict=True)] if choosing else first
            judging = [a + b for a, b in zip(judging, second, strict=True)] if judging else second
            self.singles.append(choice)
            yield entry
        if len(self.names) > 1:
            scores = [
                one.score(logits, labels_of(one.choice_split))
                for one, logits in zip(self.images, choosing, strict=True)
            ]
            outcomes = {
                one.task: one.outcome(logits, labels_of(one.judge_split))
                for one, logits in zip(self.images, judging, strict=True)
            }
            none = dict.fromkeys(outcomes, math.nan)
            setting = f"{len(self.names)} networks"
            yield MeasuredModel("ensemble", "ensemble", setting, float(np.mean(scores)), outcomes, none)

    def _make(self, method: MergeMethod) -> tuple[dict[str, Tensor], str]:
        """Merged weights, and the settings that were chosen, in words."""
        options, states = self.options, self.states
        if method == "uniform":
            return uniform_soup(states, self.names), f"{len(states)} candidates"
        if method == "greedy":
            soup, kept = greedy_soup(states, self.singles, self._choice_of, self.names)
            return soup, f"{len(kept)} of {len(states)}: {', '.join(self.names[place] for place in kept)}"
        if method in FROM_PARENT:
            return self._from_parent(method)
        if method == "fisher":
            information = [self._fisher(place) for place in range(len(states))]
            return fisher_merge(states, information), f"{options.fisher_examples} images"
        if method == "regmean":
            images = [self._training_of(place, "RegMean", options.statistics) for place in range(len(states))]
            with self._worn(states[0], copy=True) as network:
                merged = regmean(network, states, images, non_diagonal=options.non_diagonal)
            return merged, f"non-diagonal {options.non_diagonal:g}"
        moved = float(np.mean([one.moved for one in self._permutations[1:]]))
        setting = f"{100 * moved:.0f} % of channels moved"
        if method == "aligned":
            return aligned_average(self._groups, states, self._permutations), setting
        few = self._in_one_batch(self._all_training("correction of variance", options.statistics))
        with self._mapped(0) as network:
            return rescaled_average(network, self._groups, states, self._permutations, few).state, setting

    def _from_parent(self, method: MergeMethod) -> tuple[dict[str, Tensor], str]:
        """The setting that is best on the choosing images, the first of equal ones."""
        parent, states, options = self.parent, self.states, self.options
        assert parent is not None
        free = self._free(parent)

        def made(value: float) -> dict[str, Tensor]:
            if method == "wise_ft":
                return wise_ft(parent, states, value, free)
            if method == "task_arithmetic":
                return task_arithmetic(parent, states, value, free)
            return ties(parent, states, options.density, value, free)

        values = options.alphas if method == "wise_ft" else options.scales
        scores = [self._choice_of(made(value)) for value in values]
        best = values[int(np.nanargmax(scores))] if not np.isnan(scores).all() else values[0]
        name = "alpha" if method == "wise_ft" else "scale"
        kept = f", density {options.density:g}" if method == "ties" else ""
        return made(best), f"{name} {best:g}{kept}"

    def _fisher(self, place: int) -> State:
        """The Fisher information of a candidate, which waits in a file."""
        images = self._training_of(place, "Fisher information", self.options.fisher_examples)
        seed = derive_seed("merging", "fisher", self.names[place])
        with self._mapped(place) as network:
            information = diagonal_fisher(network, images, multi_label=self.images[0].multi_label, seed=seed)
        return store_state(information, self.folder / f"fisher_{place}.pt")

    @cached_property
    def _groups(self) -> PermutationGroups:
        first = self.images[0]
        images, _ = next(iter(stream(feed_of(first.choice_split), first.channels, size=2)))
        with self._mapped(0) as network:
            return permutation_groups(network, images)

    @cached_property
    def _permutations(self) -> list[Permutation]:
        return align_to_first(self._groups, self.states)

    # The result.

    def _conclude(self, entries: list[MeasuredModel], method: MergeMethod, file: Path) -> Merging:
        single = max((one for one in entries if one.kind == "candidate"), key=lambda one: one.choice)
        union = next((one for one in entries if one.kind == "union"), None)
        merged = next(one for one in entries if one.kind == "merge" and one.model == method)
        rows = (rows_of(one, single, union, one in (single, merged), self.images) for one in entries)
        table = pd.DataFrame([row for of_one in rows for row in of_one], columns=list(COLUMNS))
        state = {key: tensor.clone() for key, tensor in load_stored(file).items()}
        if fault := describe_nonfinite(state, f"the merge by {method}"):
            raise UserError(f"{fault}: choose other methods or settings")
        first = self.metadata[0]
        metadata = CheckpointMetadata(
            architecture=first.architecture,
            model_options=first.model_options,
            num_classes=self.images[0].num_classes,
            class_names=first.class_names or tuple(self.images[0].judge_split.class_names),
            extra={"card": self._card(merged, single, table)} | ({} if self.plain else {PLAIN_LAYERS: True}),
        )
        return Merging(table, Checkpoint(state, metadata))

    def _card(self, merged: MeasuredModel, single: MeasuredModel, table: pd.DataFrame) -> dict[str, Any]:
        """The merged checkpoints, the method and the scores as plain values."""
        own = table[(table["kind"] == "merge") & (table["model"] == merged.model)]
        numbers = [name for name in COLUMNS if name not in ("model", "kind", "setting", "chosen")]
        scores = json.loads(own[numbers].to_json(orient="records"))
        return {
            "method": merged.model,
            "setting": merged.setting,
            "candidates": [
                {"name": name, "fingerprint": known.fingerprint, "epoch": known.epoch}
                for name, known in zip(self.names, self.metadata, strict=True)
            ],
            "parent": self.parent_name if self.parent is not None else None,
            "best_candidate": single.model,
            "batchnorm": "recomputed on training images" if self.normalised else None,
            "scores": {row.pop("task"): row for row in scores},
            "options": self.options.model_dump(mode="json", exclude={"merges", "methods"}),
            "images": {one.task: one.judge_split.digest for one in self.images},
        }


def _named(checkpoint: Checkpoint) -> str | None:
    """A run with its epoch, or the name of a file."""
    known = checkpoint.metadata
    epoch = known.epoch_name or known.epoch
    if known.task and known.run and epoch is not None:
        return str(RunName(known.task, known.run).at(cast(Epoch, epoch)))
    return None if checkpoint.path is None else checkpoint.path.name


def _shown(known: CheckpointMetadata) -> str:
    options = f" {known.model_options}" if known.model_options else ""
    return f"{known.architecture}{options}"


def _moved(tensor: Tensor, dtype: torch.dtype, device: torch.device, *, copy: bool) -> Tensor:
    return tensor.detach().to(device, dtype, copy=copy)


def _shared_parameters(network: nn.Module) -> dict[str, str]:
    """Names of parameters that have several, with the first of them."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: several[0] for several in names.values() if len(several) > 1 for name in several}


def _head_of(network: nn.Module) -> str | None:
    """The linear layer that classifies; None where there are several, or another one."""
    layers = classifier_layers(network)
    return layers[0] if len(layers) == 1 and isinstance(network.get_submodule(layers[0]), nn.Linear) else None
