"""Ways between two checkpoints beside the straight line: whether a barrier is real, and where it arises."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from transferscope.analysis.alignment import Permutation
from transferscope.analysis.barriers import barrier_row, higher_is_better, resampled_interval
from transferscope.analysis.connection import module_points, remaining
from transferscope.analysis.interpolation import coarse_first
from transferscope.experiment.options import ConnectionOptions, Way
from transferscope.measure.bench import Bench
from transferscope.measure.ways import Measured, Ways
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.modules import Modules, find_modules
from transferscope.system.errors import UserError
from transferscope.system.progress import progress_bar
from transferscope.system.stored import DamagedError

logger = logging.getLogger(__name__)

PROFILES = ("modules", "aligned_modules")

POINT_COLUMNS = ("task", "way", "split", "alpha", "metric", "value", "num_examples")
BARRIER_COLUMNS = (
    *("task", "way", "split", "metric", "barrier", "barrier_alpha", "midpoint_gain", "barrier_low", "barrier_high"),
    *("gain_low", "gain_high", "left", "left_low", "left_high", "moved", "num_examples"),
)
MODULE_COLUMNS = ("task", "way", "profile", "module", "split", "metric", "drop", "low", "high", "num_examples")


@dataclass(frozen=True)
class Connection:
    """Ways between two checkpoints, as tables."""

    points: pd.DataFrame
    """A row per way, part, alpha and metric: `POINT_COLUMNS`.

    The way `tempered` has the loss of the straight line at one softmax temperature a point, and that temperature.
    """
    barriers: pd.DataFrame
    """A row per way, part and metric: `BARRIER_COLUMNS`.

    barrier to gain_high are those of `barrier_row`; left, left_low, left_high the part of the straight line's barrier
    (`remaining`); moved the part of b's channels that alignment has moved.
    """
    modules: pd.DataFrame
    """A row per profile, module, part and metric: `MODULE_COLUMNS`.

    drop: how much worse a network becomes, on the mean over both networks, when the module (profile alone), or all
    modules as far as it (cumulative), are set half-way to the other's.
    """
    permutation: Permutation | None = field(default=None, repr=False)
    """Of b's channels; None where no way is aligned."""
    left_out: Mapping[Way, str] = field(default_factory=dict)
    """Ways that are not possible, and why."""

    @classmethod
    def empty(cls) -> Connection:
        """Tables without rows."""
        columns = (POINT_COLUMNS, BARRIER_COLUMNS, MODULE_COLUMNS)
        points, barriers, modules = (pd.DataFrame(columns=list(names)) for names in columns)
        return cls(points, barriers, modules)


def connect(
    bench: Bench,
    a: Checkpoint,
    b: Checkpoint,
    ways: Sequence[Way] | None = None,
    *,
    options: ConnectionOptions | None = None,
    modules: Modules | None = None,
    name: str = "connection",
) -> Connection:
    """Measure ways from a to b, all at the same points and on the same examples.

    - `straight`: (1 - alpha) a + alpha b; `tempered`: with one softmax temperature a point, fitted on training images;
      `rescaled`: with its variance corrected.
    - `aligned`: straight to b with its channels matched to a's; `aligned_rescaled`, `aligned_repaired`: that line with
      its variance, or variance and mean, corrected.
    - `curve`, `aligned_curve`: a trained quadratic Bezier curve.
    - `modules`, `aligned_modules`: modules half-way to the other network, one at a time and one after the other.

    BatchNorm's statistics are recomputed at every point, the ends included. Points, permutations and bends are kept in
    the bench's store under what makes them, so a call after a kill goes on where the first one ended.

    Args:
        bench: Has "train" and "test". Bends are trained on all of "train", points are measured on at most
            `options.max_examples` of each part.
        ways: None: those of the options. `straight` is always among them.
        modules: Of the profiles; None: as `find_modules` gives them.
        name: Shown beside the progress and in the log.

    Raises:
        UserError: For checkpoints of different architectures, shapes or numbers of classes, for non-finite weights, and
            where none of the ways is possible. Where some are not, as for a network that cannot be followed, they are
            in `Connection.left_out` with the reason, and in the log.
    """
    options = options or ConnectionOptions()
    chosen: tuple[Way, ...] = tuple(dict.fromkeys(("straight", *(ways or options.ways))))
    between = Ways(bench, a, b, options)
    alphas = sorted(set(options.alphas.values()))
    lines: dict[Way, list[Measured]] = {}
    profiles: list[pd.DataFrame] = []
    left_out: dict[Way, str] = {}
    sizes = {part: len(split) for part, split in bench.limited(options.max_examples).splits.items()}
    with progress_bar(name, len(chosen)) as advance:
        for way in chosen:
            advance(0, way)
            try:
                if way in PROFILES:
                    profiles.append(_profile(between, way, modules or find_modules(between.model), sizes))
                elif way != "tempered":
                    lines[way] = _line(between, way, alphas)
            except DamagedError:
                raise
            except UserError as error:
                if way == "straight":  # every other way is compared with it
                    raise
                left_out[way] = str(error)
                logger.warning("%s: the way %s is left out: %s", name, way, error)
            advance()
    if left_out and set(left_out) == set(ways or ()):
        raise UserError(f"{name}: no way is possible: {next(iter(left_out.values()))}")
    if "tempered" in chosen:
        lines["tempered"] = _tempered(lines["straight"], alphas, name)
    lines["straight"] = [_without_temperature(measured) for measured in lines["straight"]]
    moved = between.permutation.moved if any(map(_is_aligned, set(chosen) - left_out.keys())) else np.nan
    tables = [
        (_points(lines, alphas), POINT_COLUMNS),
        (_barriers(lines, alphas, moved, sizes), BARRIER_COLUMNS),
        (pd.concat(profiles, ignore_index=True) if profiles else pd.DataFrame(columns=["split"]), MODULE_COLUMNS),
    ]
    points, barriers, drops = (
        table.assign(task=bench.task, num_examples=table["split"].map(sizes)).reindex(columns=list(columns))
        for table, columns in tables
    )
    return Connection(points, barriers, drops, None if np.isnan(moved) else between.permutation, left_out)


def _is_aligned(way: Way) -> bool:
    return way.startswith("aligned")


def _line(between: Ways, way: Way, alphas: Sequence[float]) -> list[Measured]:
    """Both ends first, then the middle, then ever closer."""
    points: dict[int, Measured] = {}
    for index in coarse_first(len(alphas)):
        alpha = alphas[index]
        points[index] = between.end(alpha) if alpha in (0, 1) else between.between(way, alpha)
    ordered = [points[index] for index in range(len(alphas))]
    return ordered if way == "straight" else [_without_temperature(measured) for measured in ordered]


def _without_temperature(measured: Measured) -> Measured:
    return {name: each for name, each in measured.items() if not name.endswith(("tempered_loss", "temperature"))}


def _tempered(straight: list[Measured], alphas: Sequence[float], name: str) -> list[Measured]:
    """Loss at the temperature of each point, and the temperature; both are taken from the points of the line."""
    points = []
    for measured in straight:
        curves = [curve for curve in measured if curve.endswith(("tempered_loss", "temperature"))]
        points.append({curve.replace("tempered_loss", "loss"): measured.pop(curve) for curve in curves})
    bound = [f"{alpha:g}" for alpha, each in zip(alphas, points, strict=True) if np.isnan(each["train/temperature"][0])]
    if bound:
        logger.info(
            "%s: no temperature at alpha %s: all training images are predicted rightly there, or no better than by "
            "chance, so the best one is 0 or infinite, and the way tempered has no loss",
            name,
            ", ".join(bound),
        )
    return points


def _profile(between: Ways, way: Way, modules: Modules, sizes: Mapping[str, int]) -> pd.DataFrame:
    other = between.aligned if _is_aligned(way) else between.states[1]
    ends = {"a": between.end(0), "b": between.end(1)}
    drops: dict[tuple[str, str], list[Measured]] = {}
    for point in module_points(between.states[0], other, modules):
        measured, end = between.of_module(point.state), ends[point.origin]
        drop = {
            curve: (end[curve] - values) * (1 if higher_is_better(curve) else -1)
            for curve, values in measured.items()
            if not curve.endswith(("tempered_loss", "temperature"))
        }
        drops.setdefault((point.profile, point.module), []).append(drop)
    rows = []
    for (profile, module), (first, second) in drops.items():
        for curve, values in first.items():
            mean = (values + second[curve]) / 2
            parts = _parts(curve)
            share = parts["metric"] == "accuracy"
            low, high = resampled_interval(mean, num_examples=sizes.get(parts["split"]), is_share=share)
            about = {"way": way, "profile": profile, "module": module, **parts}
            rows.append({**about, "drop": mean[0], "low": low, "high": high})
    return pd.DataFrame(rows)


def _points(lines: Mapping[Way, list[Measured]], alphas: Sequence[float]) -> pd.DataFrame:
    rows = [
        {"way": way, **_parts(curve), "alpha": alpha, "value": values[0]}
        for way, measured in lines.items()
        for alpha, each in zip(alphas, measured, strict=True)
        for curve, values in each.items()
    ]
    return pd.DataFrame(rows)


def _barriers(
    lines: Mapping[Way, list[Measured]], alphas: Sequence[float], moved: float, sizes: Mapping[str, int]
) -> pd.DataFrame:
    straight = _stacked(lines["straight"])
    rows = []
    for way, measured in lines.items():
        for curve, values in _stacked(measured).items():
            if not curve.endswith("temperature"):
                better, parts = higher_is_better(curve), _parts(curve)
                size, share = sizes.get(parts["split"]), parts["metric"] == "accuracy"
                row = barrier_row(alphas, values, higher_is_better=better, num_examples=size, is_share=share)
                left = remaining(
                    alphas, straight[curve], values, higher_is_better=better, num_examples=size, is_share=share
                )
                aligned = moved if _is_aligned(way) else np.nan
                rows.append({"way": way, **parts, **row, **vars(left), "moved": aligned})
    return pd.DataFrame(rows)


def _stacked(measured: list[Measured]) -> Measured:
    """`part/metric` -> (1 + num_resamples, num_alphas)."""
    return {curve: np.stack([each[curve] for each in measured], axis=-1) for curve in measured[0]}


def _parts(curve: str) -> dict[str, str]:
    split, _, metric = curve.partition("/")
    return {"split": split, "metric": metric}
