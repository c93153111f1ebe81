"""Coverage of the printed intervals of landscape on simulated data, and stopping early.

    python tests/benchmarks/bench_intervals.py barriers [--studies 1000]
    python tests/benchmarks/bench_intervals.py pairs
    python tests/benchmarks/bench_intervals.py stopping
    python tests/benchmarks/bench_intervals.py boundaries
    python tests/benchmarks/bench_intervals.py left

For barriers, a line a kind of curve and number of examples: bias of the estimate in points, coverage of the 95 %
interval of the barrier and of the gain in the middle, how often the interval lies below the truth, its mean width; and
the same of the largest gap with percentiles of its bootstrap. For pairs, coverage of the mean over all pairs of m models.
For stopping, how often the examples are enough before all are seen, how often that is wrong, and the share of examples.
For boundaries, coverage of the place beyond an end where accuracy or AUC has fallen by 2 points, the mean width up to the
last place, and the same of percentiles of the bootstrap. For left, of the part of a straight line's barrier that
another way leaves, beside percentiles of the quotient of the two largest gaps.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import norm, rankdata

sys.path.insert(0, str(Path(__file__).parent.parent))

from simulated_lines import ALPHAS, losses, rare_losses, resampled, right_or_wrong
from transferscope.analysis.barriers import barrier_row, gaps_between_ends, mean_over_pairs
from transferscope.analysis.boundary_interval import boundary_intervals
from transferscope.analysis.connection import remaining
from transferscope.analysis.line_boundary import line_boundary
from transferscope.analysis.sequential import decide_barrier, growing_sizes
from transferscope.measure.lines import BOUNDARY_DROP

MARGIN = 0.05
"""A part of what the ends have learned."""
ACCURACY = [
    *(("flat", 0.0, flips) for flips in (0.003, 0.01, 0.02, 0.05)),
    *((shape, height, 0.03) for shape in ("bowl", "peak") for height in (0.01, 0.03, 0.1, 0.4)),
    ("bowl", -0.03, 0.03),
]
LOSS = [("flat", 0.0), ("bowl", 0.1), ("peak", 0.5)]


def barriers(studies: int, num: int) -> None:
    for shape, height, flips in ACCURACY:
        generator = np.random.default_rng(1)
        drawn = (right_or_wrong(shape, height, num, generator, flips) for _ in range(studies))
        report(f"accuracy, {shape} {height:g}, flips {flips:g}", drawn, num, generator, higher=True)
    for name, (shares, groups) in NOISE.items():
        generator = np.random.default_rng(7)
        drawn = (unevenly_noisy(np.array(shares), groups, num, generator) for _ in range(studies))
        report(f"accuracy, flat, {name}", drawn, num, generator, higher=True)
    for shape, height in LOSS:
        generator = np.random.default_rng(2)
        drawn = (losses(shape, height, num, generator) for _ in range(studies))
        report(f"loss, {shape} {height:g}", drawn, num, generator, higher=False)


NOISE = {
    "noise in the middle": ([0.0] * 4 + [0.03] * 3 + [0.0] * 4, range(11)),
    "noise at one place": ([0.002] * 5 + [0.03] + [0.002] * 5, range(11)),
    "noise on stretches": ([0.02] * 11, (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4)),
    "noise grows": (np.linspace(0.001, 0.05, 11), range(11)),
}
"""Of flat lines: the share of right answers that turn wrong at each place, and places with one number have one noise."""


def unevenly_noisy(
    shares: np.ndarray, groups: Sequence[int], num: int, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    """As many answers turn right as wrong, so that the accuracy is .8 everywhere."""
    both = generator.random(num) < 0.8
    flipped = generator.random((11, num))[list(groups)] < shares[:, None] * np.where(both, 1, 4)
    return (both ^ flipped).astype(float), 0.0


def report(name: str, drawn, num: int, generator: np.random.Generator, *, higher: bool) -> None:
    rows = []
    for values, truth in drawn:
        curves = resampled(values, generator)
        row = barrier_row(ALPHAS, curves, higher_is_better=higher, num_examples=num, is_share=higher)
        gaps = gaps_between_ends(ALPHAS, curves, higher_is_better=higher)
        low, high = np.percentile(gaps[1:].max(axis=1), [2.5, 97.5])
        middle = -true_middle(name, truth)
        rows.append((
            row["barrier"] - truth,
            row["barrier_low"] <= truth <= row["barrier_high"],
            row["barrier_high"] < truth,
            row["barrier_high"] - row["barrier_low"],
            row["gain_low"] <= middle <= row["gain_high"],
            row["largest_gap"] - truth,
            low <= truth <= high,
        ))  # fmt: skip
    bias, covers, below, width, gain, old_bias, old = np.mean(rows, axis=0)
    print(
        f"n {num:4d}  {name:30s} bias {100 * bias:+6.2f}  coverage {covers:.3f}  below {below:.3f}  "
        f"width {100 * width:5.1f}  gain {gain:.3f}   largest gap: bias {100 * old_bias:+6.2f}  coverage {old:.3f}",
        flush=True,
    )


def true_middle(name: str, truth: float) -> float:
    """The gap at .5: the largest one, but where the line gains, where the smallest gain is at the ends."""
    return truth if " -" not in name else truth / 0.36


def pairs(studies: int) -> None:
    """Values of a pair: what each of its models adds, and what is its own."""
    for models in (6, 10, 20):
        generator = np.random.default_rng(models)
        names = [f"m{index}" for index in range(models)]
        couples = list(itertools.combinations(range(models), 2))
        covered = []
        for _ in range(studies):
            own, both = generator.normal(size=models), generator.normal(size=len(couples))
            values = [own[a] + own[b] + noise for (a, b), noise in zip(couples, both, strict=True)]
            interval = mean_over_pairs(values, [names[a] for a, _ in couples], [names[b] for _, b in couples])
            covered.append(interval.low <= 0 <= interval.high)
        print(f"mean over all pairs of {models:2d} models: coverage {np.mean(covered):.3f}", flush=True)


def stopping(studies: int, num: int) -> None:
    stopping_by_loss(studies, num)
    for shape, height, flips in [*ACCURACY, ("bowl", 0.038, 0.03), ("bowl", 0.032, 0.03)]:
        generator = np.random.default_rng(3)
        early = wrong = seen = 0
        for _ in range(studies):
            values, truth = right_or_wrong(shape, height, num, generator, flips)
            decision, size = stop_early(values, generator)
            early += decision is not None and size < num
            wrong += wrong_decision(decision, truth, flips)
            seen += size
        print(
            f"{shape} {height:g}, flips {flips:g}: stops early {early / studies:.3f}, wrong {wrong / studies:.3f}, "
            f"examples {seen / studies / num:.2f}",
            flush=True,
        )


def stopping_by_loss(studies: int, num: int) -> None:
    """Barriers at 0, .3, .9 and 1.1 of the margin, which a share of the examples makes, also with a part in all."""
    limit = MARGIN * (LOSS_OF_GUESSING - 0.02)
    designs: dict[str, Callable[[np.random.Generator], tuple[np.ndarray, float]]] = {
        f"loss, {share:g} of the examples, {part:g} of the margin": partial(rare_losses, share, part * limit, num)
        for share in (0.01, 0.02, 0.05, 0.2)
        for part in (0.0, 0.3, 0.9, 1.1)
    } | {
        f"loss, {share:g} of the examples and .6 in all, 1.1 of the margin": partial(
            rare_losses, share, 1.1 * limit, num, common=0.6 * limit
        )
        for share in (0.01, 0.02)
    }
    for name, draw in designs.items():
        generator = np.random.default_rng(3)
        early = wrong = seen = 0
        for _ in range(studies):
            values, truth = draw(generator)
            decision, size = stop_early(values, generator, higher=False)
            early += decision is not None and size < num
            wrong += (decision == "no barrier" and truth >= limit) or (decision == "barrier" and truth <= limit)
            seen += size
        print(
            f"{name}: stops early {early / studies:.3f}, wrong {wrong / studies:.3f}, "
            f"examples {seen / studies / num:.2f}",
            flush=True,
        )


LOSS_OF_GUESSING = float(np.log(10))

BEYOND = np.concatenate([np.linspace(0, 1, 11), np.linspace(1, 2, 8)[1:]])
BEHIND = np.maximum(BEYOND - 1, 0)
FALLS = {
    **{f"steeper and steeper, {depth:g}": np.minimum(depth * BEHIND**1.5, 0.75) for depth in (0.1, 0.3, 1.0, 3.0)},
    "a shelf of 1.5 points": 0.015 * (BEHIND > 0) + np.maximum(BEHIND - 0.5, 0),
    "a shelf to the end": 0.015 * (BEHIND > 0),
    "down by 4 points and up": 0.04 * np.maximum(1 - np.abs(BEHIND - 3 / 7) * 7 / 3, 0),
}
"""How much lower accuracy is at each place of BEYOND."""


def boundaries(studies: int, num: int) -> None:
    for (name, fall), flips in itertools.product(FALLS.items(), (0.01, 0.03)):
        generator = np.random.default_rng(4)
        rate = 0.85 - fall

        def draw(generator=generator, rate=rate, flips=flips) -> np.ndarray:
            right = (generator.random(num) < rate[:, None]) ^ (generator.random((len(BEYOND), num)) < flips)
            return resampled(right.astype(float), generator)

        truth = rate * (1 - flips) + (1 - rate) * flips
        report_boundary(f"{name}, flips {flips:g}", truth, [draw() for _ in range(studies)], num, is_share=True)
    for name in ("steeper and steeper, 0.3", "a shelf of 1.5 points"):
        generator = np.random.default_rng(6)
        lifts = np.sqrt(2) * norm.ppf(0.85 - FALLS[name])
        curves = [areas(lifts, num, generator) for _ in range(studies)]
        report_boundary(f"AUC, {name}", 0.85 - FALLS[name], curves, num, is_share=False)


def areas(lifts: np.ndarray, num: int, generator: np.random.Generator, resamples: int = 300) -> np.ndarray:
    """AUC at each place of scores of normal distributions so far apart, which are alike at neighbouring places."""
    positive = generator.random(num) < 0.35
    same, own = generator.normal(size=num), generator.normal(size=(len(lifts), num))
    scores = lifts[:, None] * positive + np.sqrt(0.95) * same + np.sqrt(0.05) * own
    picked = np.vstack([np.arange(num), generator.integers(0, num, (resamples, num))])
    labels = positive[picked]
    positives = labels.sum(axis=1)
    sums = np.stack([(rankdata(one[picked], axis=1) * labels).sum(axis=1) for one in scores], axis=1)
    return (sums - (positives * (positives + 1) / 2)[:, None]) / (positives * (num - positives))[:, None]


def report_boundary(name: str, true: np.ndarray, studies: list[np.ndarray], num: int, *, is_share: bool) -> None:
    truth, rows = boundary(true), []
    for curves in studies:
        how = {"higher_is_better": True, "num_examples": num, "is_share": is_share}
        low, high = boundary_intervals(BEYOND, curves, BOUNDARY_DROP, **how).high
        places = [boundary(curve) for curve in curves]
        least, most = np.quantile(places[1:], [0.025, 0.975], method="inverted_cdf")
        low, high = min(low, places[0]), max(high, places[0])
        rows.append((
            low <= truth <= high, high < truth, low > truth, places[0] < truth,
            min(high, 2) - min(low, 2), least <= truth <= most, min(most, 2) - min(least, 2),
        ))  # fmt: skip
    covers, below, above, early, width, old, old_width = np.mean(rows, axis=0)
    print(
        f"n {num:4d}  {name:36s} at {truth:.3f}: coverage {covers:.3f} (below {below:.3f}, above {above:.3f}), width "
        f"{width:.3f}, estimate too low in {early:.2f}; percentiles {old:.3f}, width {old_width:.3f}",
        flush=True,
    )


def boundary(curve: np.ndarray) -> float:
    return line_boundary(BEYOND, curve, BOUNDARY_DROP, higher_is_better=True).high


def left(studies: int, num: int) -> None:
    for height in (0.0, 0.03, 0.1, 0.3):
        generator = np.random.default_rng(5)
        rows = []
        for _ in range(studies):
            straight, deep = right_or_wrong("bowl", 0.5, num, generator)
            way, low = right_or_wrong("bowl", height, num, generator)
            way[[0, -1]] = straight[[0, -1]]
            curves = np.split(resampled(np.concatenate([straight, way]), generator), 2, axis=1)
            quotient = remaining(ALPHAS, *curves, higher_is_better=True, num_examples=num, is_share=True)
            largest = [gaps_between_ends(ALPHAS, one, higher_is_better=True).max(axis=1) for one in curves]
            parts, truth = largest[1] / largest[0], low / deep
            ends = np.percentile(parts[1:], [2.5, 97.5])
            rows.append((
                quotient.left - truth, quotient.left_low <= truth <= quotient.left_high,
                parts[0] - truth, ends[0] <= truth <= ends[1],
            ))  # fmt: skip
        bias, covers, old_bias, old = np.mean(rows, axis=0)
        print(
            f"n {num:4d}  left {truth:.2f}: bias {bias:+.3f}, coverage {covers:.3f}; quotient of the largest gaps: bias "
            f"{old_bias:+.3f}, coverage {old:.3f}",
            flush=True,
        )


def stop_early(values: np.ndarray, generator: np.random.Generator, *, higher: bool = True) -> tuple[str | None, int]:
    decision, size = None, 0
    for size in growing_sizes(values.shape[1]):
        curves = resampled(values[:, :size], generator)
        guessing = 0.1 if higher else LOSS_OF_GUESSING
        how = {"higher_is_better": higher, "margin": MARGIN, "guessing": guessing, "is_share": higher}
        decision = decide_barrier(ALPHAS, curves, size, **how)
        if decision:
            break
    return decision, size


def wrong_decision(decision: str | None, truth: float, flips: float) -> bool:
    limit = MARGIN * (0.8 * (1 - flips) + 0.2 * flips - 0.1)
    return (decision == "no barrier" and truth >= limit) or (decision == "barrier" and truth <= limit)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("barriers", "pairs", "stopping", "boundaries", "left"))
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--num", type=int, nargs="*", default=[100, 500])
    chosen = parser.parse_args()
    if chosen.what == "pairs":
        pairs(chosen.studies)
    elif chosen.what == "stopping":
        stopping(chosen.studies, 1000)
    else:
        for num in chosen.num:
            {"barriers": barriers, "boundaries": boundaries, "left": left}[chosen.what](chosen.studies, num)
