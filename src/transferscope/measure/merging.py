"""Models merged into one on a bench: which merge, what it scores, and what it is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from transferscope.analysis.states import describe_nonfinite
from transferscope.experiment.options import MergeMethod, MergingOptions
from transferscope.measure.bench import Bench
from transferscope.measure.merge_candidates import MergeCandidates
from transferscope.measure.merge_card import card_of
from transferscope.measure.merge_images import MergeImages
from transferscope.measure.merge_methods import MergeMethods, methods_for
from transferscope.measure.merge_table import COLUMNS, MeasuredModel, rows_of
from transferscope.models.checkpoint import PLAIN_LAYERS, Checkpoint, CheckpointMetadata
from transferscope.models.stored_state import load_stored, store_state
from transferscope.system.errors import UserError
from transferscope.system.temporaries import work_folder


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
    docs/merging.md); what methods need of networks (Fisher information, Gram matrices) waits in temporary files, and so
    do parent and union where a function reads them. Activations, and their gradients for Fisher information, come on
    top. Networks compute in float32.
    """
    given = list(benches.values()) if isinstance(benches, Mapping) else list(benches)
    chosen = options or MergingOptions()
    wanted = methods_for(methods or chosen.methods, len(candidates), parent is not None)
    with work_folder() as folder:
        taken = MergeCandidates(candidates, folder)
        network, first = taken.network, taken.metadata[0].class_names
        images = MergeImages(given, chosen, network.channels, network.head, first, taken.names[0])
        if union is not None:
            taken.take_union(union)
        if parent is not None:
            taken.take_parent(parent, images.class_names)
        return _Merger(taken, images, chosen).all(wanted)


class _Merger:
    """Every method tried and measured, beside the candidates as they are."""

    def __init__(self, candidates: MergeCandidates, images: MergeImages, options: MergingOptions) -> None:
        self.candidates, self.images, self.options = candidates, images, options
        self.methods = MergeMethods(candidates, images, options)
        self.singles: list[float] = []

    def all(self, methods: Sequence[MergeMethod]) -> Merging:
        entries = [*self._candidates_and_ensemble()]
        if self.candidates.union is not None:
            with self.candidates.network.worn(self.candidates.union) as network:
                entries.append(self.images.measured(network, "union", "union", "", self.images.choice(network)[0])[0])
        best, kept = -math.inf, self.candidates.folder / "chosen.pt"
        chosen = methods[0]
        for method in methods:
            state, setting = self.methods.make(method, self.singles)
            with self.methods.settled(state) as network:
                choice = self.images.choice(network)[0]
                entries.append(self.images.measured(network, method, "merge", setting, choice)[0])
            if choice > best or not kept.exists():  # of NaN nothing is better
                best, chosen = np.nan_to_num(choice, nan=-math.inf), method
                store_state(state, kept)
            del state
        return self._conclude(entries, chosen, kept)

    def _candidates_and_ensemble(self) -> Iterator[MeasuredModel]:
        """The candidates as they are, and the mean of their logits."""
        choosing: list[Tensor] = []
        judging: list[Tensor] = []
        for name, state in zip(self.candidates.names, self.candidates.states, strict=True):
            with self.candidates.network.worn(state) as network:
                choice, first = self.images.choice(network)
                entry, second = self.images.measured(network, name, "candidate", "", choice)
            choosing = [a + b for a, b in zip(choosing, first, strict=True)] if choosing else first
            judging = [a + b for a, b in zip(judging, second, strict=True)] if judging else second
            self.singles.append(choice)
            yield entry
        if len(self.candidates.names) > 1:
            yield self.images.ensemble(choosing, judging, f"{len(self.candidates.names)} networks")

    def _conclude(self, entries: list[MeasuredModel], method: MergeMethod, file: Path) -> Merging:
        single = max((one for one in entries if one.kind == "candidate"), key=lambda one: one.choice)
        union = next((one for one in entries if one.kind == "union"), None)
        merged = next(one for one in entries if one.kind == "merge" and one.model == method)
        rows = (rows_of(one, single, union, one in (single, merged), self.images.tasks) for one in entries)
        table = pd.DataFrame([row for of_one in rows for row in of_one], columns=list(COLUMNS))
        state = {key: tensor.clone() for key, tensor in load_stored(file).items()}
        if fault := describe_nonfinite(state, f"the merge by {method}"):
            raise UserError(f"{fault}: choose other methods or settings")
        first = self.candidates.metadata[0]
        card = card_of(merged, single, table, self.candidates, self.images, self.options)
        metadata = CheckpointMetadata(
            architecture=first.architecture,
            model_options=first.model_options,
            num_classes=self.images.tasks[0].num_classes,
            class_names=first.class_names or self.images.class_names,
            extra={"card": card} | ({} if self.candidates.network.plain else {PLAIN_LAYERS: True}),
        )
        return Merging(table, Checkpoint(state, metadata))
