"""From comparisons to an estimate with an interval: which parts of the study vary independently, and how much.

A study repeats some things and not others. The effect of a claim is the mean over places (tasks) of the mean over the
comparisons of each. How far it would move in another study is read off by leaving out, one at a time, the parts that
were repeated (the jackknife), and the interval is Student's. `Design` says which parts these are:

- `replicas`: every kind of run has replicas in each place. Runs are left out, kind by kind and task by task (for means
  of runs this is the variance of Welch's t-test, summed over tasks); where P-T start from several P, each P with all
  that descends from it is left out instead. The error over test images is added.
- `places`: tasks that share no run are left out. Right whatever the pairs inside a task share.
- `crossed`: every comparison lies between two places, so runs are left out whatever their task.

Which of them applies follows from the design alone, never from the numbers: of the first two the one with more degrees
of freedom, the third where neither gives any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from transferscope.claims.comparisons import Comparison
from transferscope.experiment.names import RunName

Array = NDArray[np.float64]
Method = Literal["replicas", "places", "crossed", "none"]

LEVEL = 0.95
POWER = 0.8
"""An effect can be told if a study of this design would find it with this probability."""
NEGLIGIBLE = 1e-9
"""Numbers whose spread is smaller than this part of them do not vary."""


@dataclass(frozen=True)
class Kinship:
    """Traits that runs have in common.

    kind: runs of one task and one kind are replicas of each other; None of a run that is no draw of its own, as P is
    where P-T are compared with it. parent: the run or file whose weights it starts from; None where it has none.
    """

    kind: Callable[[RunName], Hashable | None] = lambda run: run.kind
    parent: Callable[[RunName], str | None] = lambda run: None


@dataclass(frozen=True)
class Stratum:
    """Parts of one sort: `drops[i]` are the weights of the comparisons in the effect without the i-th part."""

    name: Hashable
    drops: Array


@dataclass(frozen=True)
class Design:
    """Comparisons, and the parts of the study that are left out in turn.

    weights: of the comparisons in the effect. places: of each comparison, by number. parents: that P-T of the
    comparisons start from. smallest: number of the parts of the stratum that has fewest.
    """

    method: Method
    weights: Array
    places: NDArray[np.int64]
    strata: tuple[Stratum, ...] = ()
    parents: frozenset[str] = frozenset()
    over_parents: bool = False
    num_places: int = 0
    shared: str = field(default="")

    @property
    def df(self) -> int:
        return sum(len(stratum.drops) - 1 for stratum in self.strata)

    @property
    def smallest(self) -> int:
        return min((len(stratum.drops) for stratum in self.strata), default=1)


@dataclass(frozen=True)
class Estimate:
    """Of one study, or of many that have the same design: arrays have the leading axes of the numbers.

    effect; se: its standard error; df: degrees of freedom of Student's interval; low, high: the interval of `LEVEL`;
    se_images: the part of the standard error that more runs do not lower.
    """

    effect: Array
    se: Array
    df: Array
    low: Array
    high: Array
    se_images: Array

    @property
    def detectable(self) -> Array:
        """The smallest effect, counted from the end of the claimed region, that such a study tells with `POWER`."""
        return (quantile(self.df, 0.5 + LEVEL / 2) + quantile(self.df, POWER)) * self.se


def quantile(df: Array | float, probability: float) -> Array:
    """Of Student's distribution."""
    return np.asarray(stdtrit(df, probability), dtype=np.float64)


def two_sided_p(distance: Array, df: Array) -> Array:
    """p of a distance in standard errors."""
    return np.asarray(2 * stdtr(df, -np.abs(distance)), dtype=np.float64)


def make_design(comparisons: Sequence[Comparison], kinship: Kinship) -> Design:
    """Choose what is left out in turn, by what the comparisons allow."""
    names = list(dict.fromkeys(one.place for one in comparisons))
    places = np.array([names.index(one.place) for one in comparisons])
    varying = [frozenset(run for run in one.runs if kinship.kind(run) is not None) for one in comparisons]
    parents = frozenset(parent for runs in varying for run in runs if (parent := kinship.parent(run)) is not None)
    best = max(_replicas(varying, places, kinship, parents), _places(varying, places), key=lambda way: way.df)
    if best.df == 0:
        best = _crossed(varying, places, kinship)
    return Design(
        best.method,
        best.weights,
        places,
        best.strata,
        parents,
        best.over_parents,
        len(names),
        "" if best.df else _shared(varying, places, names),
    )


def _mean_of_places(places: NDArray[np.int64], kept: NDArray[np.bool_] | None = None) -> Array:
    """Weights of the mean over places of the mean over the kept comparisons of each."""
    kept = np.ones(len(places), dtype=bool) if kept is None else kept
    counts = np.bincount(places[kept], minlength=int(places.max()) + 1)
    return np.where(kept, 1.0 / np.maximum(counts[places], 1), 0.0) / max(np.count_nonzero(counts), 1)


def _replicas(
    varying: Sequence[frozenset[RunName]], places: NDArray[np.int64], kinship: Kinship, parents: frozenset[str]
) -> Design:
    """Runs are left out by kind and task, or all that descend from one P.

    Places in which that leaves no comparison do not count.
    """
    over_parents = len(parents) > 1

    def part(run: RunName) -> tuple[Hashable, Hashable]:
        parent = kinship.parent(run) if over_parents else None
        return ("parent", parent) if parent is not None else ((run.task, kinship.kind(run)), run)

    parts_of = [frozenset(map(part, runs)) for runs in varying]
    counted = np.array([bool(parts) for parts in parts_of])
    for place in np.unique(places):
        here = [parts for parts, at in zip(parts_of, places, strict=True) if at == place]
        if frozenset.intersection(*here) or not all(here):
            counted[places == place] = False
    if not counted.any():
        return Design("none", _mean_of_places(places), places)
    strata: dict[Hashable, dict[Hashable, NDArray[np.bool_]]] = {}
    for index in np.flatnonzero(counted):
        for stratum, name in sorted(parts_of[index], key=repr):
            has = strata.setdefault(stratum, {}).setdefault(name, np.zeros(len(places), dtype=bool))
            has[index] = True
    made = tuple(
        Stratum(key, np.stack([_mean_of_places(places, counted & ~has) for has in parts.values()]))
        for key, parts in _once(strata).items()
    )
    if any(len(stratum.drops) < 2 for stratum in made):
        return Design("none", _mean_of_places(places), places)
    return Design("replicas", _mean_of_places(places, counted), places, made, over_parents=over_parents)


def _once(
    strata: dict[Hashable, dict[Hashable, NDArray[np.bool_]]],
) -> dict[Hashable, dict[Hashable, NDArray[np.bool_]]]:
    """One of those strata whose parts stand in the same comparisons, as two runs that only occur together do."""
    known: set[frozenset[bytes]] = set()
    chosen = {}
    for key, parts in strata.items():
        rows = frozenset(has.tobytes() for has in parts.values())
        if rows not in known:
            known.add(rows)
            chosen[key] = parts
    return chosen


def _places(varying: Sequence[frozenset[RunName]], places: NDArray[np.int64]) -> Design:
    """Groups of places that share no run are left out; the effect is the mean over groups."""
    group = _groups(varying, places)
    names = list(dict.fromkeys(group.values()))
    means = np.zeros((len(names), len(places)))
    for row, name in enumerate(names):
        inside = np.array([group[int(place)] == name for place in places])
        means[row] = _mean_of_places(places, inside)
    if len(names) < 2:
        return Design("none", _mean_of_places(places), places)
    others = (means.sum(axis=0) - means) / (len(names) - 1)
    return Design("places", means.mean(axis=0), places, (Stratum("place", others),))


def _groups(varying: Sequence[frozenset[RunName]], places: NDArray[np.int64]) -> dict[int, int]:
    """The group of each place, named by its first one: places that share a run are in one group."""
    group = {int(place): int(place) for place in places}
    holder: dict[RunName, int] = {}
    for runs, place in zip(varying, places, strict=True):
        for run in runs:
            one, other = group[holder.setdefault(run, int(place))], group[int(place)]
            if one != other:
                low, high = min(one, other), max(one, other)
                group = {key: low if value == high else value for key, value in group.items()}
    return group


def _crossed(varying: Sequence[frozenset[RunName]], places: NDArray[np.int64], kinship: Kinship) -> Design:
    """Runs of three or more tasks are left out by kind, whatever their task, where each place is a pair of tasks.

    For a statistic of pairs this is right where a pair's number is a sum of two runs' own, and too large otherwise.
    """
    nothing = Design("none", _mean_of_places(places), places)
    if any(len({run.task for run in runs}) < 2 for runs in varying):
        return nothing
    strata: dict[Hashable, dict[RunName, NDArray[np.bool_]]] = {}
    for index, runs in enumerate(varying):
        for run in sorted(runs):
            strata.setdefault(kinship.kind(run), {}).setdefault(run, np.zeros(len(places), dtype=bool))[index] = True
    every = np.ones(len(places), dtype=bool)
    if any(len(parts) < 3 or any((every & ~has).sum() == 0 for has in parts.values()) for parts in strata.values()):
        return nothing
    made = tuple(
        Stratum(key, np.stack([_mean_of_places(places, ~has) for has in parts.values()]))
        for key, parts in strata.items()
    )
    return Design("crossed", _mean_of_places(places), places, made)


def _shared(varying: Sequence[frozenset[RunName]], places: NDArray[np.int64], names: Sequence[str]) -> str:
    """A run that all places share, as text, where there are several places."""
    if len(names) < 2:
        return ""
    common = set.intersection(*(set().union(*(runs for runs, at in zip(varying, places, strict=True) if at == place))
                                for place in np.unique(places)))  # fmt: skip
    return str(min(common)) if common else ""


def estimate(design: Design, numbers: Array, errors: Array | None = None) -> Estimate:
    """Estimate the effect from a number per comparison.

    numbers: (..., comparisons), in the order of the comparisons of the design. errors: their standard errors over test
    images, of the same shape, NaN where they are not known.

    Degrees of freedom are Satterthwaite's, V^2 / sum_h(v_h^2 / (d_h + 1)) - 1 of stratum variances v_h with d_h degrees
    of freedom each and their sum V. His own formula, with d_h and without -1, gives half of the true number where there
    are two replicas; the unbiased one, with d_h + 2 and -2, too many where strata vary unequally; this one lies
    between, and is exact where one stratum has all the variance. Where P are left out the number is that of the P less
    one, since two or three P are too few to see how much of the variance is theirs. Known errors over images add to the
    variance over runs. The variance over places has them already, and is only not made smaller than they are.
    """
    effect = numbers @ design.weights
    images = _image_variance(design, np.full(len(design.weights), np.nan) if errors is None else errors)
    images = np.broadcast_to(images, effect.shape)
    if design.method == "none":
        nothing = np.full(effect.shape, np.nan)
        return Estimate(effect, nothing, nothing, nothing, nothing, np.sqrt(images))
    parts, squares = np.zeros(effect.shape), np.zeros(effect.shape)
    for stratum in design.strata:
        size = len(stratum.drops)
        without = numbers @ stratum.drops.T
        variance = (size - 1) / size * ((without - without.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
        parts = parts + variance
        squares = squares + variance**2 / size
    smallest = min(len(stratum.drops) for stratum in design.strata) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(squares > 0, parts**2 / squares - 1, design.df)
        df = np.clip(df, smallest, smallest if design.over_parents else design.df)
        if design.method == "replicas":
            total = parts + images
            df = np.where(parts > 0, df * (total / np.where(parts > 0, parts, 1.0)) ** 2, df)
        else:
            total = np.maximum(parts, images)
    se = np.sqrt(total)
    se = np.where(se <= NEGLIGIBLE * np.abs(numbers).max(axis=-1, initial=0.0), 0.0, se)
    half = quantile(df, 0.5 + LEVEL / 2) * se
    return Estimate(effect, se, df, effect - half, effect + half, np.sqrt(images))


def _image_variance(design: Design, errors: Array) -> Array:
    """Variance over test images: those of one place are shared by its comparisons, those of two places are different.

    0 where errors are not known of every comparison that counts.
    """
    used = design.weights > 0
    known = np.where(used, errors, 0.0)
    total = np.zeros(known.shape[:-1])
    for place in np.unique(design.places):
        total = total + (known[..., design.places == place] @ design.weights[design.places == place]) ** 2
    return np.nan_to_num(total, nan=0.0)


def larger_study(design: Design, estimated: Estimate, times: float = 1.0, times_images: float = 1.0) -> float:
    """`Estimate.detectable` of a study with so many times the parts that are left out, and so many times the images.

    Images count where their error is apart from that over the parts (the method `replicas`). Infinite where the parts
    are too few for an interval.
    """
    images = float(estimated.se_images) ** 2 if design.method == "replicas" else 0.0
    repeated = max(float(estimated.se) ** 2 - images, 0.0) / times
    df = sum(len(stratum.drops) for stratum in design.strata) * times - len(design.strata)
    if df < 1:
        return math.inf
    total = repeated + images / times_images
    # As in `estimate`: what is known exactly has no degrees of freedom to lose.
    df = df * (total / repeated) ** 2 if repeated > 0 else math.inf
    return float((quantile(df, 0.5 + LEVEL / 2) + quantile(df, POWER)) * math.sqrt(total))


def images_dominate(design: Design, estimated: Estimate) -> bool:
    """True where more than half of the variance of the effect is over test images, which more runs do not lower."""
    return design.method == "replicas" and bool(2 * estimated.se_images**2 > estimated.se**2)
