"""What is measured on the line between two models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from transferscope.analysis.barriers import barrier_row, higher_is_better
from transferscope.analysis.evaluation import Metrics, Store
from transferscope.analysis.interpolation import trace
from transferscope.experiment.options import LandscapeOptions, Precision
from transferscope.measure.bench import Engine, subset, workspace
from transferscope.models.parametrised import analysed_state
from transferscope.models.series import CheckpointSeries, Epoch
from transferscope.system.progress import progress_bar


@dataclass(frozen=True)
class Ends:
    """The two models of a line."""

    pair: dict[str, Any]
    series_a: CheckpointSeries
    series_b: CheckpointSeries
    epoch_a: Epoch = "final"
    epoch_b: Epoch = "final"

    @property
    def names(self) -> dict[str, str]:
        return {
            "pair_kind": self.pair["kind"],
            "checkpoint_a": f"{self.pair['run_a']}@{self.epoch_a}",
            "checkpoint_b": f"{self.pair['run_b']}@{self.epoch_b}",
        }


def line(
    ends: Ends,
    splits: dict[str, Any],
    train_split: Any,
    outside: list[float],
    options: LandscapeOptions,
    store: Store,
    precision: Precision = "float32",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every metric on every split between the models, and on test at the alphas `outside`; and each curve's barrier.

    train_split: where BatchNorm's statistics are recomputed.
    """
    checkpoint_a, checkpoint_b = ends.series_a.load(ends.epoch_a), ends.series_b.load(ends.epoch_b)
    model = workspace(checkpoint_a)
    state_a, state_b = analysed_state(checkpoint_a), analysed_state(checkpoint_b)
    chosen = {part: subset(split, options.max_examples, part) for part, split in splits.items()}
    task = splits["test"].name
    inside = options.alphas_for(task)
    names = {"scenario": ends.pair.get("scenario", "within"), "task": task, **ends.names}

    def walk(alphas: list[float], parts: dict[str, Any], seen: Callable[[float, Metrics], None]) -> Curves:
        engine = Engine(
            checkpoint_a,
            parts,
            store,
            precision=precision,
            resamples=options.resamples,
            recompute_on=subset(train_split, options.max_examples, "train"),
        )
        measured = trace(
            model,
            state_a,
            state_b,
            alphas,
            engine.along(model),
            seen=seen,
        )
        return {name: np.stack([measured[alpha][name] for alpha in alphas], axis=-1) for name in measured[alphas[0]]}

    label = f"{ends.names['checkpoint_a']} to {ends.names['checkpoint_b']}"
    with progress_bar(label, len(inside) + len(outside)) as advance:
        between = walk(inside, chosen, EarlyAnswer(advance))
        beyond = walk(outside, {"test": chosen["test"]}, lambda *_: advance()) if outside else {}
    points = pd.concat([_points(names, inside, between), *([_points(names, outside, beyond)] if outside else [])])
    tables = points.reset_index(drop=True), _barriers(names, inside, between)
    sizes = {part: len(split) for part, split in chosen.items()}
    points, barriers = (table.assign(num_examples=table["split"].map(sizes)) for table in tables)
    return points, barriers


Curves = dict[str, Any]
"""`part/metric` -> values (num_alphas,) or, with resamples, (1 + num_resamples, num_alphas)."""


class EarlyAnswer:
    """Shows the barrier of the points so far: the ends and the middle come first."""

    def __init__(self, advance: Callable[..., None]) -> None:
        self.advance = advance
        self.values: dict[float, float] = {}

    def __call__(self, alpha: float, metrics: Metrics) -> None:
        name = "test/auc" if "test/auc" in metrics else "test/accuracy"
        self.values[alpha] = float(np.ravel(metrics[name])[0])
        if {0.0, 1.0} <= self.values.keys():
            found = barrier_row(list(self.values), list(self.values.values()), higher_is_better=True)["barrier"]
            self.advance(1, f"barrier so far {100 * found:.1f} points" if math.isfinite(found) else None)
        else:
            self.advance(1)


def _points(names: dict[str, str], alphas: list[float], curves: Curves) -> pd.DataFrame:
    rows = [
        {**_name(names, curve), "alpha": alpha, **_metric(curve), "value": float(value)}
        for index, alpha in enumerate(alphas)
        for curve, values in curves.items()
        for value in [np.atleast_2d(values)[0, index]]
    ]
    return pd.DataFrame(rows)


def _barriers(names: dict[str, str], alphas: list[float], curves: Curves) -> pd.DataFrame:
    rows = [
        {
            **_name(names, curve),
            **_metric(curve),
            **barrier_row(alphas, values, higher_is_better=higher_is_better(curve)),
        }
        for curve, values in curves.items()
    ]
    return pd.DataFrame(rows)


def _name(names: dict[str, str], curve: str) -> dict[str, str]:
    first = {key: names[key] for key in ("scenario", "task")}
    return {**first, "split": curve.partition("/")[0], **names}


def _metric(curve: str) -> dict[str, str]:
    return {"metric": curve.partition("/")[2]}
