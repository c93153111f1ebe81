"""Lines and predictions of as few examples as it takes to decide: is there a barrier, can one model replace another?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transferscope.analysis.barriers import higher_is_better
from transferscope.analysis.flips import answer
from transferscope.analysis.interpolation import trace
from transferscope.analysis.learning import loss_without_knowledge
from transferscope.analysis.resampling import Outcomes, Resampling
from transferscope.analysis.sequential import Decision, decide_barrier, growing_sizes
from transferscope.analysis.states import State
from transferscope.experiment.options import LookOptions, ReplaceOptions, UntilDecidedOptions
from transferscope.experiment.seeds import derive_seed
from transferscope.images.split import PackedSplit
from transferscope.measure.bench import Bench, network
from transferscope.measure.replacements import gain_of, questions
from transferscope.models.checkpoint import Checkpoint
from transferscope.system.errors import UserError
from transferscope.training.evaluation import predict

Curves = dict[str, NDArray[np.float64]]

NAIVE = "naive_"
FIELDS = ("correct", "loss", "known", "scores", "targets")


def drawn_order(split: PackedSplit, part: str) -> NDArray[np.int64]:
    """The order in which examples come, the same for everything that is measured on the split."""
    return np.random.default_rng(derive_seed(split.name, part, "order")).permutation(len(split))


def looks_at(num_examples: int, rule: LookOptions) -> list[int]:
    """Numbers of examples after which one looks, the last of them all."""
    return list(growing_sizes(num_examples, min(rule.first, num_examples), rule.growth))


def predict_until_decided(
    split: PackedSplit,
    load: Mapping[str, Callable[[], Checkpoint]],
    pairs: Sequence[tuple[str, str]],
    options: ReplaceOptions,
    rule: LookOptions,
) -> dict[str, tuple[NDArray[np.int64], Tensor]]:
    """Predict growing batches of a split until it is decided of every pair whether the second can replace the first.

    load: functions that load the checkpoints, by name; a network is built again at each look, so that one is in memory
    at a time. A model stops when all of its pairs are decided, each finding of a multi-label task for itself.

    Returns, by name, the examples that the model has seen, which are the first ones of `drawn_order`, and its logits.
    """
    order, looks = drawn_order(split, "test"), looks_at(len(split), rule)
    logits: dict[str, list[Tensor]] = {name: [] for name in load}
    left, before = list(pairs), 0
    for index, size in enumerate(looks):
        for name in load:
            if any(name in pair for pair in left):
                logits[name].append(predict(network(load[name]()), split, indices=order[before:size]))
        before, seen = size, split.subset(order[:size])
        left = [
            pair
            for pair in left
            if not _answered(seen, [torch.cat(logits[name]).numpy() for name in pair], options, looks, index)
        ]
        if not left:
            break
    every = {name: torch.cat(parts) for name, parts in logits.items()}
    return {name: (order[: len(values)], values) for name, values in every.items()}


def _answered(
    seen: PackedSplit,
    both: Sequence[NDArray[np.floating]],
    options: ReplaceOptions,
    looks: Sequence[int],
    index: int,
) -> bool:
    labels = np.asarray(seen.labels)
    for question in questions(seen):
        first, second = (question.outcomes(logits, labels, options.threshold).correct for logits in both)
        low, high = gain_of(question, first, second, looks[: index + 1], len(looks))
        if answer(low, high, options.margin) == "cannot tell":
            return False
    return True


@dataclass(frozen=True)
class Enough:
    """The examples that were enough, and the curves on them: `part/metric` -> (1 + num_resamples, num_alphas)."""

    split: PackedSplit
    curves: Curves


def enough_examples(
    bench: Bench,
    part: str,
    checkpoint: Checkpoint,
    model: nn.Module,
    ends: tuple[State, State],
    alphas: Sequence[float],
    rule: UntilDecidedOptions,
    least: float = 0.0,
) -> Enough:
    """Measure a line on growing batches of a part, each example once, until it is decided whether it has a barrier.

    It has one if accuracy, or AUC where examples have several labels, or the loss shows one, and none if both show
    none: claims and answers hold both against the margin, each by an interval that holds at every look
    (`analysis.sequential`). The examples come in an order that is drawn once per split, so that all lines see the same
    first ones. The curves are those that the bench measures on a split of these examples alone. least: part of the
    examples that is always measured.
    """
    if bench.resamples < 2:
        raise UserError("until_decided needs intervals: give analyses.landscape.resamples 2 or more, for example 300")
    whole = bench.split(part)
    order = drawn_order(whole, part)
    metrics = ["auc" if whole.multi_label else "accuracy", "loss"]
    decided: dict[str, Decision] = {}
    seen: dict[str, list[Arrays]] = {}
    rows = np.zeros(0, dtype=np.int64)
    first = max(rule.first, math.ceil(least * len(whole)))
    for size in looks_at(len(whole), rule.model_copy(update={"first": first})):
        new = np.sort(order[len(rows) : size])
        rows = np.concatenate([rows, new])
        for name, arrays in _outcomes(bench, whole.subset(new), checkpoint, model, ends, alphas).items():
            seen.setdefault(name, []).append(arrays)
        split = whole if size == len(whole) else whole.subset(np.sort(rows))
        curves = {f"{part}/{name}": curve for name, curve in _curves(bench, split, rows, seen, len(alphas)).items()}
        for metric in (one for one in metrics if one not in decided):
            decision = decide_barrier(
                alphas,
                curves[f"{part}/{metric}"],
                size,
                higher_is_better=higher_is_better(metric),
                margin=rule.margin,
                guessing=guessing_of(whole, metric),
                is_share=metric == "accuracy",
            )
            if decision is not None:
                decided[metric] = decision
        if "barrier" in decided.values() or len(decided) == len(metrics):
            break
    return Enough(split, curves)


def guessing_of(split: PackedSplit, metric: str) -> float:
    """A metric without knowledge of a split's images: the share of the largest class, an AUC of 1/2, or the loss."""
    if metric == "loss":
        return loss_without_knowledge(np.asarray(split.labels))
    return 0.5 if split.multi_label else float(np.bincount(split.labels).max() / len(split))


Arrays = list[Mapping[str, NDArray[np.float64]]]
"""Results of the model at each alpha on each example."""


def _outcomes(
    bench: Bench,
    batch: PackedSplit,
    checkpoint: Checkpoint,
    model: nn.Module,
    ends: tuple[State, State],
    alphas: Sequence[float],
) -> dict[str, Arrays]:
    """By "" or, with the statistics of BatchNorm as stored, "naive_"; others come from the bench's train images."""
    on = replace(bench, splits={**bench.splits, "batch": batch})
    traced = trace(model, *ends, alphas, on.along(checkpoint, model, ["batch"], each=True))
    metrics = [{name.partition("/")[2]: np.asarray(value) for name, value in traced[alpha].items()} for alpha in alphas]
    kinds = ["", *([NAIVE] if any(name.startswith(NAIVE) for name in metrics[0]) else [])]
    return {kind: [{name: at[kind + name] for name in FIELDS if kind + name in at} for at in metrics] for kind in kinds}


def _curves(
    bench: Bench, split: PackedSplit, rows: NDArray[np.int64], seen: Mapping[str, list[Arrays]], num_alphas: int
) -> Curves:
    """`metric` -> (1 + num_resamples, num_alphas), with the examples in the order of the split."""
    order = np.argsort(rows)
    everything, resampling = Resampling.everything(len(split)), bench.resampling(split)
    curves: dict[str, list[NDArray[np.float64]]] = {}
    for kind, batches in seen.items():
        for index in range(num_alphas):
            parts = [batch[index] for batch in batches]
            outcomes = Outcomes.of_arrays(
                {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
            )
            whole, drawn = everything.of(outcomes), resampling.of(outcomes)
            for metric, values in drawn.items():
                curves.setdefault(kind + metric, []).append(np.concatenate([whole[metric], values]))
    return {name: np.stack(values, axis=-1) for name, values in curves.items()}
