"""A line measured on as few examples as it takes to decide whether there is a barrier on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from transferscope.analysis.interpolation import trace
from transferscope.analysis.resampling import Outcomes, Resampling
from transferscope.analysis.sequential import decide_barrier, growing_sizes
from transferscope.analysis.states import State
from transferscope.experiment.options import UntilDecidedOptions
from transferscope.experiment.plan import derive_seed
from transferscope.images.split import PackedSplit
from transferscope.measure.bench import Bench
from transferscope.models.checkpoint import Checkpoint
from transferscope.system.errors import UserError

Curves = dict[str, NDArray[np.float64]]

NAIVE = "naive_"
FIELDS = ("correct", "loss", "known", "scores", "targets")


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
) -> Enough:
    """Measure a line on growing batches of a part, each example once, until its barrier is decided.

    Decided is accuracy, or AUC where examples have several labels, by an interval that holds at every look
    (`analysis.sequential`). The examples come in an order that is drawn once per split, so that all lines see the same
    first ones. The curves are those that the bench measures on a split of these examples alone.
    """
    if bench.resamples < 2:
        raise UserError("until_decided needs intervals: give analyses.landscape.resamples 2 or more, for example 300")
    whole = bench.split(part)
    order = np.random.default_rng(derive_seed(whole.name, part, "order")).permutation(len(whole))
    metric = f"{part}/{'auc' if whole.multi_label else 'accuracy'}"
    seen: dict[str, list[Arrays]] = {}
    rows = np.zeros(0, dtype=np.int64)
    for size in growing_sizes(len(whole), min(rule.first, len(whole)), rule.growth):
        new = np.sort(order[len(rows) : size])
        rows = np.concatenate([rows, new])
        for name, arrays in _outcomes(bench, whole.subset(new), checkpoint, model, ends, alphas).items():
            seen.setdefault(name, []).append(arrays)
        split = whole if size == len(whole) else whole.subset(np.sort(rows))
        curves = {f"{part}/{name}": curve for name, curve in _curves(bench, split, rows, seen, len(alphas)).items()}
        decided = decide_barrier(
            alphas,
            curves[metric],
            size,
            higher_is_better=True,
            no_barrier=rule.no_barrier,
            barrier=rule.barrier,
            is_share=not whole.multi_label,
        )
        if decided:
            break
    return Enough(split, curves)


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
