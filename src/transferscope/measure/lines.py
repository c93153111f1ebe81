"""Metrics on the straight line between two models, and the barrier on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transferscope.analysis.barriers import barrier_row, higher_is_better
from transferscope.analysis.boundary_interval import boundary_intervals
from transferscope.analysis.evaluator import Metrics
from transferscope.analysis.interpolation import trace
from transferscope.analysis.line_boundary import line_boundary
from transferscope.experiment.options import GridOptions, UntilDecidedOptions
from transferscope.measure.bench import Bench, workspace
from transferscope.measure.stopping import enough_examples
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.parametrised import analysed_state
from transferscope.system.progress import progress_bar

Curves = dict[str, NDArray[np.float64]]
"""`part/metric` -> values (num_alphas,) or, with resamples, (1 + num_resamples, num_alphas)."""


class Line(NamedTuple):
    """A line between two models: columns task, split, ..., num_examples in both tables."""

    points: pd.DataFrame
    """A row per part, metric and alpha: alpha, metric, value."""
    barriers: pd.DataFrame
    """A row per part and metric: metric, and the columns of `barrier_row`, measured on the alphas between the ends.

    Beside them `boundary_before` and `boundary_after`, where beyond either end test accuracy or AUC has fallen by
    more than two points (alpha; Figure 18), with their intervals over examples.
    """


def line(
    bench: Bench,
    a: Checkpoint,
    b: Checkpoint,
    alphas: Sequence[float] | None = None,
    *,
    outside: Sequence[float] = (),
    parts: Iterable[str] | None = None,
    until_decided: UntilDecidedOptions | None = None,
    name: str = "line",
) -> Line:
    """Measure the models `(1 - alpha) a + alpha b`.

    Args:
        alphas: Points from 0 to 1, both included; None: eleven even ones.
        outside: Points beyond the ends, which are measured on test alone.
        parts: Parts of the bench that are measured; None: all.
        until_decided: Measure on as few examples as it takes to decide whether there is a barrier, of each part apart;
            the bench then has to have resamples. Points outside are measured on the same test examples. Lines between
            models of two tasks take `least_across` of the examples at least.
        name: Shown beside the progress.

    Raises:
        UserError: The checkpoints are no weights of one architecture, which names the tensors that differ.
    """
    inside = list(GridOptions().values() if alphas is None else alphas)
    measured = list(parts or bench.splits)
    model, ends = workspace(a), (analysed_state(a), analysed_state(b))

    def walk(at: Sequence[float], on: list[str], seen: Callable[[float, Metrics], None]) -> Curves:
        # BatchNorm's statistics are those of all training images, as at the points until decided.
        whole = {part: split for part, split in bench.splits.items() if part == "train"}
        along = replace(chosen, splits={**chosen.splits, **whole}).along(a, model, on)
        traced = trace(model, *ends, at, along, seen=seen)
        return {curve: np.stack([traced[alpha][curve] for alpha in at], axis=-1) for curve in traced[at[0]]}

    chosen = bench
    if until_decided:
        least = until_decided.least_across if a.metadata.task != b.metadata.task else 0.0
        enough = {part: enough_examples(bench, part, a, model, ends, inside, until_decided, least) for part in measured}
        chosen = replace(bench, splits={**bench.splits, **{part: early.split for part, early in enough.items()}})
    with progress_bar(name, len(inside) + len(outside)) as advance:
        if until_decided:
            between = {name: values for early in enough.values() for name, values in early.curves.items()}
            advance(len(inside))
        else:
            between = walk(inside, measured, EarlyAnswer(advance))
        beyond = walk(outside, ["test"], lambda *_: advance()) if outside else {}
    points = pd.concat([_points(inside, between), *([_points(outside, beyond)] if outside else [])], ignore_index=True)
    sizes = {part: len(chosen.splits[part]) for part in measured}
    barriers = _barriers(inside, between, sizes)
    boundaries = pd.DataFrame([_boundary([*inside, *outside], row, between, beyond, sizes) for row in _keys(barriers)])
    return Line(*(_described(table, bench.task, sizes) for table in (points, barriers.join(boundaries))))


class EarlyAnswer:
    """Shows the barrier of the points so far: the ends and the middle come first."""

    def __init__(self, advance: Callable[..., None]) -> None:
        self.advance = advance
        self.values: dict[float, float] = {}

    def __call__(self, alpha: float, metrics: Metrics) -> None:
        name = next((name for name in ("test/auc", "test/accuracy") if name in metrics), next(iter(metrics)))
        self.values[alpha] = float(np.ravel(metrics[name])[0])
        if {0.0, 1.0} <= self.values.keys():
            row = barrier_row(list(self.values), list(self.values.values()), higher_is_better=higher_is_better(name))
            barrier = row["barrier"]
            self.advance(1, f"barrier so far {100 * barrier:.1f} points" if math.isfinite(barrier) else None)
        else:
            self.advance(1)


def _points(alphas: Sequence[float], curves: Curves) -> pd.DataFrame:
    rows = [
        {**_curve(name), "alpha": alpha, "metric": _metric(name), "value": float(np.atleast_2d(values)[0, index])}
        for index, alpha in enumerate(alphas)
        for name, values in curves.items()
    ]
    return pd.DataFrame(rows)


def _barriers(alphas: Sequence[float], curves: Curves, sizes: Mapping[str, int]) -> pd.DataFrame:
    rows = [
        {
            **_curve(name),
            "metric": _metric(name),
            **barrier_row(
                alphas,
                values,
                higher_is_better=higher_is_better(name),
                num_examples=sizes[_curve(name)["split"]],
                is_share=name.endswith("accuracy"),
            ),
        }
        for name, values in curves.items()
    ]
    return pd.DataFrame(rows)


BOUNDARY_DROP = 0.02
"""Fall of accuracy or AUC below that of the nearer end where the basin ends: two points."""


def _keys(barriers: pd.DataFrame) -> list[str]:
    return [f"{split}/{metric}" for split, metric in zip(barriers["split"], barriers["metric"], strict=True)]


def _boundary(
    alphas: Sequence[float], name: str, between: Curves, beyond: Curves, sizes: Mapping[str, int]
) -> dict[str, float]:
    """Ends of the basin on either side, NaN where nothing was measured beyond or the metric is no share."""
    sides = ("before", "after")
    if name not in beyond or not name.endswith(("accuracy", "auc")):
        return {f"boundary_{side}{bound}": math.nan for side in sides for bound in ("", "_low", "_high")}
    curves = np.hstack([np.atleast_2d(between[name]), np.atleast_2d(beyond[name])])
    found = line_boundary(alphas, curves[0], BOUNDARY_DROP, higher_is_better=True)
    intervals = boundary_intervals(
        alphas,
        curves,
        BOUNDARY_DROP,
        higher_is_better=True,
        num_examples=sizes[_curve(name)["split"]],
        is_share=name.endswith("accuracy"),
    )
    row: dict[str, float] = {}
    for side, end, (low, high) in zip(sides, (found.low, found.high), intervals, strict=True):
        # Noise lets a flat curve leave the tolerance early, sometimes before all places that the test keeps.
        low, high = min(low, end), max(high, end)
        row |= {f"boundary_{side}": end, f"boundary_{side}_low": low, f"boundary_{side}_high": high}
    return row


def _described(table: pd.DataFrame, task: str, sizes: Mapping[str, int]) -> pd.DataFrame:
    table.insert(0, "task", task)
    return table.assign(num_examples=table["split"].map(sizes))


def _curve(name: str) -> dict[str, str]:
    return {"split": name.partition("/")[0]}


def _metric(name: str) -> str:
    return name.partition("/")[2]
