"""The rule by which an estimate decides a claim. Nothing else knows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transferscope.claims.comparisons import Comparison, Place, Region
from transferscope.claims.inference import (
    LEVEL,
    Design,
    Estimate,
    Kinship,
    estimate,
    images_dominate,
    larger_study,
    make_design,
    two_sided_p,
)
from transferscope.system.errors import UserError

PERCENT = f"{100 * LEVEL:.0f} %"
HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot tell"
MOST_RUNS = 20
"""Numbers of replicas, or of tasks, up to which is looked for one that would tell."""
TIMES_IMAGES = (1, 2, 3, 5, 10, 20, 50, 100)
"""Times the test images of the study, of which the first that would tell is named."""

RULE = (
    f"holds: the {PERCENT} interval of the effect lies where the claim has it; "
    "does not hold: it lies wholly elsewhere; "
    "cannot tell: it reaches both sides, or the effect is the other way round on most tasks, or nothing "
    "in the study is repeated that would give an interval. "
    "Runs that have not learned are left out, and an image set that shows those of other tasks is no task of its own."
)


@dataclass(frozen=True)
class Verdict:
    """The verdict in words, the effect with its interval, and why.

    The effect is the difference where two kinds are compared, positive as claimed, and the measured number where there
    is a bound; NaN without comparisons. low, high: its interval, NaN where nothing is repeated, or nothing varies. p:
    two-sided, against the nearer end of the claimed region. covers: to which other studies the interval reaches.
    would_tell: how large a study, or an effect, it takes; empty where the claim is decided.
    """

    verdict: str
    effect: float
    low: float
    high: float
    p: float
    reason: str
    covers: str = ""
    would_tell: str = ""


def decide(
    comparisons: Sequence[Comparison],
    kinship: Kinship | None = None,
    show: Callable[[float], str] = "{:.3g}".format,
    *,
    over: str = "test images",
    limits: Region = (-math.inf, math.inf),
    place: Place = "task",
) -> Verdict:
    """Decide a claim by `RULE`; what was left out does not count.

    show: how an effect is written in `would_tell`. over: that which the errors of the comparisons are over, in words.
    limits: between which an effect lies whatever the study, as 0 and 1 of a share; its interval ends there. place: what
    the places of the comparisons are, which decides what a study without any interval is told to repeat.

    Raises:
        UserError: the comparisons have different bounds.
    """
    counted = [one for one in comparisons if one.counted]
    if not counted:
        return Verdict(UNKNOWN, math.nan, math.nan, math.nan, math.nan, "nothing to compare")
    regions = {one.region for one in counted}
    if len(regions) > 1:
        raise UserError(
            f"a claim holds its numbers against one bound, and these have {len(regions)}: subtract each task's own "
            "bound from its numbers and hold them against 0"
        )
    (region,) = regions
    design = make_design(counted, kinship or Kinship())
    numbers = np.array([one.effect for one in counted])
    estimated = estimate(design, numbers, np.array([one.error for one in counted]))
    verdict = str(judge(estimated, region))
    ends = max(float(estimated.low), limits[0]), min(float(estimated.high), limits[1])
    low, high = ends if estimated.se > 0 else (math.nan, math.nan)
    numbers_of = (float(estimated.effect), low, high, float(p_value(estimated, region)))
    reason = _reason(verdict, design, estimated, region, counted, show)
    if verdict != UNKNOWN and 2 * len(_against(design, region, counted, verdict == HOLDS)) > design.num_places:
        verdict, would = UNKNOWN, "each of these tasks for itself, since the effect depends on the task"
    else:
        would = _would_tell(design, estimated, region, show, limits, place) if verdict == UNKNOWN else ""
    covers = _covers(design, estimated, over) if estimated.se > 0 else ""
    return Verdict(verdict, *numbers_of, reason, covers, would)


def judge(estimated: Estimate, region: Region) -> NDArray[np.str_]:
    """The verdict of each study: where the interval lies. One without spread has no interval."""
    inside = (estimated.low > region[0]) & (estimated.high < region[1])
    outside = (estimated.high <= region[0]) | (estimated.low >= region[1])
    verdict = np.where(inside, HOLDS, np.where(outside, FAILS, UNKNOWN))
    return np.asarray(np.where(estimated.se > 0, verdict, UNKNOWN))


def p_value(estimated: Estimate, region: Region) -> NDArray[np.float64]:
    """Two-sided p against the nearer end of the claimed region; 1 or less where the verdict is not decided."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.minimum(np.abs(estimated.effect - region[0]), np.abs(estimated.effect - region[1])) / estimated.se
    return two_sided_p(np.where(estimated.se > 0, distance, np.nan), estimated.df)


def holm(p: NDArray[np.float64], level: float = 1 - LEVEL) -> NDArray[np.bool_]:
    """Claims that stay decided if no more than `level` of all studies may have a single false verdict (Holm 1979).

    p: of each claim, NaN of those that could not be tested and do not count.
    """
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    kept = np.zeros(len(p), dtype=bool)
    kept[order] = np.cumprod(p[order] <= level / np.arange(len(order), 0, -1)).astype(bool)
    return kept


def _reason(
    verdict: str,
    design: Design,
    estimated: Estimate,
    region: Region,
    counted: Sequence[Comparison],
    show: Callable[[float], str],
) -> str:
    if design.method == "none":
        return "one comparison alone" if len(counted) == 1 else "nothing is repeated independently"
    if not estimated.se > 0:
        return "the numbers do not vary, so their spread says nothing"
    against = [] if verdict == UNKNOWN else _against(design, region, counted, verdict == HOLDS)
    where = f", though not on {', '.join(against)} alone" if against else ""
    return f"the {PERCENT} interval {_lies(verdict, estimated, region, show)}{where}"


def _lies(verdict: str, estimated: Estimate, region: Region, show: Callable[[float], str]) -> str:
    """Say in words the place of the interval, as `lies above 0` or `contains 5.0 points`."""
    low, high = ("0" if end == 0 else show(end) if end > 0 else f"-{show(-end)}" for end in region)
    if verdict == UNKNOWN:
        ends = [text for text, end in ((low, region[0]), (high, region[1])) if estimated.low <= end <= estimated.high]
        return f"contains {' and '.join(ends)}"
    if math.isfinite(region[0]) and math.isfinite(region[1]):
        return f"lies {'between' if verdict == HOLDS else 'outside'} {low} and {high}"
    bound, above = (low, verdict == HOLDS) if math.isfinite(region[0]) else (high, verdict != HOLDS)
    return f"lies {'above' if above else 'below'} {bound}"


def _against(design: Design, region: Region, counted: Sequence[Comparison], holds: bool) -> list[str]:
    """Places whose own mean lies on the other side."""
    places: dict[str, list[float]] = {}
    for one, weight in zip(counted, design.weights, strict=True):
        if weight > 0:
            places.setdefault(one.place, []).append(one.effect)
    means = {place: math.fsum(values) / len(values) for place, values in places.items()}
    return [place for place, mean in means.items() if (region[0] < mean < region[1]) != holds]


def _covers(design: Design, estimated: Estimate, over: str) -> str:
    """To which other studies the interval reaches, e.g. `other runs and test images on these 4 tasks, this P alone`."""
    images = f" and {over}" if estimated.se_images > 0 else ""
    places = "this task" if design.num_places == 1 else f"these {design.num_places} tasks"
    text = {
        "none": "",
        "replicas": f"other runs{images} on {places}",
        "places": "other tasks of this sort",
        "crossed": "other models of these tasks",
    }[design.method]
    if text and design.over_parents:
        return f"other P and {text}"
    if text and design.parents:
        number, names = len(design.parents), ", ".join(sorted(design.parents))
        return f"{text}, {'this P alone' if number == 1 else f'these {number} P'} ({names})"
    return text


REPEATED: Mapping[Place, str] = {
    "task": "2 runs of each kind (3 where pairs are compared) on a task, or a second task with runs of its own",
    "pair of domains": "2 runs of each kind on each domain, with the lines between them",
    "set of domains": "2 runs of each domain, with all lines between the domains",
}
"""The least study with an interval, by what the places of a claim are."""


def _would_tell(
    design: Design, estimated: Estimate, region: Region, show: Callable[[float], str], limits: Region, place: Place
) -> str:
    if design.method == "none":
        return REPEATED[place] + (f", since all of these share {design.shared}" if design.shared else "")
    if not estimated.se > 0:
        return "more runs of which one has another number, since equal ones do not show how much they vary"
    size, what = design.smallest, _parts(design)
    bound = min(region, key=lambda end: abs(float(estimated.effect) - end))
    distance, least = abs(float(estimated.effect) - bound), float(estimated.detectable)
    unseen = "cannot be told from chance" if bound == 0 else "of the bound cannot be told"
    reach = f"{'below' if bound == 0 else 'within'} {show(least)}"
    now = f"{size} {what}: an effect {reach} {unseen}"
    if least >= max(abs(end - bound) for end in limits):
        now = f"{size} {what}: no effect can be told from chance"
    return f"{now}; {_larger(design, estimated, distance, show)}"


def _larger(design: Design, estimated: Estimate, distance: float, show: Callable[[float], str]) -> str:
    """Name the smallest larger study that would tell the effect that was seen, or say what a larger one would tell.

    More of what most of the error is over comes first, runs (tasks, P) or test images, then more of both.
    """
    size, what = design.smallest, _parts(design)
    images_first = images_dominate(design, estimated)
    times = TIMES_IMAGES if estimated.se_images > 0 and design.method == "replicas" else TIMES_IMAGES[:1]
    runs = range(size, MOST_RUNS + 1)
    studies = sorted(
        ((n, k) for n in runs for k in times if n > size or k > 1),
        key=lambda one: (one[0] > size and one[1] > 1, (one[0] > size) == images_first, one[0] / size * one[1]),
    )

    def tells(study: tuple[int, int]) -> float:
        return larger_study(design, estimated, study[0] / size, study[1])

    def named(study: tuple[int, int]) -> str:
        more_runs, more_images = study[0] > size, f"{study[1]} times as many test images"
        return (
            f"{study[0]} {what} and {more_images}"
            if more_runs and study[1] > 1
            else (f"{study[0]}" if more_runs else more_images)
        )

    enough = next((study for study in studies if tells(study) <= distance), None)
    if enough:
        return f"{named(enough)} would tell {show(tells(enough))}"
    example = (size, 5) if images_first else (max(5, 2 * size), 1)
    largest = f"more than {max(MOST_RUNS, example[0])} {what}"
    largest += f" and {times[-1]} times as many test images" if len(times) > 1 else ""
    return (
        f"{named(example)} would tell {show(tells(example))}, and the {show(distance)} seen here would take {largest}"
    )


def _parts(design: Design) -> str:
    if design.over_parents:
        return "P (or as many runs of the other kind)"
    return {"places": "tasks", "crossed": "models"}.get(design.method, "runs of each kind")
