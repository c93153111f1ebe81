"""Coverage of printed intervals that neither mistakes, lines nor CKA have, on simulated data.

    python tests/benchmarks/bench_more_intervals.py [--studies 1000] [--num 100 500] [--only modules merging ...]

A line for each interval and population, with the coverage of the 95 % interval by the function that makes the table:
`modules`, the drop of a module that is set half-way (`connection_modules`); `merging`, the metric of a merge, its gain and
the mean over two tasks (`merging`); `reliability`, the rate of a bin; `spread`, the mean over pairs (`mistakes_spread`);
`rises`, the last rise of a run (`runs`); `runs`, differences between kinds of runs (`small_values`) and the gain and the first
source epoch (`source_epochs`), which depend on the number of replicas and not on that of examples; `hulls`, mean loss and
epsilon of Definition 3.1 (`basin`); `lengths`, its delta, and `criticality`, mu of a module (`module_criticality`), over
draws of noise.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm, rankdata
from torch import nn

from transferscope.analysis.barriers import resampled_interval
from transferscope.analysis.basin import estimate_basin
from transferscope.analysis.calibration import reliability
from transferscope.analysis.enough_pretraining import Scores, SourceEpochs
from transferscope.analysis.intervals import difference_of_means
from transferscope.analysis.learning import rise_at_the_end
from transferscope.analysis.mistakes import compare_mistakes, spread_over_pairs, with_intervals
from transferscope.analysis.module_criticality import module_criticality, settle
from transferscope.measure.judging import Outcome, mean_interval_of_tasks

Rows = Iterator[tuple[str, list[bool]]]
RESAMPLES = 300


def holds(low: float, high: float, truth: float) -> bool:
    return bool(low <= truth <= high)


def modules(studies: int, num: int) -> Rows:
    """Two models of accuracy .8; a module of the other's makes a share `drop` wrong, and flips others."""
    for drop, flips in ((0.0, 0.005), (0.0, 0.02), (0.0, 0.05), (0.02, 0.02), (0.1, 0.03)):
        generator = np.random.default_rng(1)
        truth = 0.8 * flips + drop - 0.2 * flips
        covered = []
        for _ in range(studies):
            ends, drawn = generator.random((2, num)) < 0.8, generator.random((2, num))
            changed = np.where(ends, drawn >= flips + drop / 0.8, drawn < flips)
            fallen = (ends.astype(float) - changed).mean(axis=0)
            counts = generator.multinomial(num, np.full(num, 1 / num), RESAMPLES)
            values = np.r_[fallen.mean(), counts @ fallen / num]
            covered.append(holds(*resampled_interval(values, num_examples=num, is_share=True), truth))
        yield f"modules: drop {drop:g}, flips {flips:g}", covered


def merging(studies: int, num: int) -> Rows:
    """Two models on two tasks: accuracies .8 and .77, a fifth of whose mistakes are common, and two AUCs."""
    generator = np.random.default_rng(2)
    rows: dict[str, list[bool]] = {}
    for _ in range(studies):
        gains = []
        for task in range(2):
            common = generator.random(num) < 0.05
            right = [~common & (generator.random(num) < part) for part in (0.84, 0.81)]
            a, b = (Outcome(one.astype(float), False) for one in right)
            gains.append(a.minus(b))
            if task == 0:
                rows.setdefault("value, accuracy", []).append(holds(*a.interval[1:], 0.95 * 0.84))
                rows.setdefault("gain, accuracy", []).append(holds(*gains[0][1:], 0.95 * 0.03))
        rows.setdefault("gain, mean of two tasks", []).append(holds(*mean_interval_of_tasks(gains)[1:], 0.95 * 0.03))
        first, second = areas(num, generator)
        rows.setdefault("value, AUC", []).append(holds(*first.interval[1:], norm.cdf(LIFT / math.sqrt(2))))
        difference = norm.cdf(LIFT / math.sqrt(2)) - norm.cdf(LIFT / math.sqrt(2 * (1 + NOISE**2)))
        rows.setdefault("gain, AUC", []).append(holds(*first.minus(second)[1:], difference))
    for name, covered in rows.items():
        yield f"merging: {name}", covered


LIFT, NOISE = 1.3, 0.5


def areas(num: int, generator: np.random.Generator) -> tuple[Outcome, Outcome]:
    """AUC of a score of normal distributions LIFT apart, and of the same score with noise, on all and resampled."""
    positive = generator.random(num) < 0.35
    score = LIFT * positive + generator.normal(size=num)
    both = np.stack([score, score + NOISE * generator.normal(size=num)])
    picked = np.vstack([np.arange(num), generator.integers(0, num, (RESAMPLES, num))])
    labels, ranks = positive[picked], rankdata(both[:, picked], axis=-1)
    positives = labels.sum(axis=1)
    sums = (ranks * labels).sum(axis=-1) - positives * (positives + 1) / 2
    first, second = sums / (positives * (num - positives))
    return Outcome(first, True), Outcome(second, True)


def rates(studies: int, num: int) -> Rows:
    """Confidences whose true rate is their square: every bin has its rate in a large population."""
    generator = np.random.default_rng(3)

    def draw(size: int) -> pd.DataFrame:
        confidence = generator.beta(3, 1, size)
        return reliability(confidence, generator.random(size) < confidence**2).set_index("bin_low")

    truth, covered = draw(1_000_000)["rate"], []
    for _ in range(studies):
        bins = draw(num)
        known = truth[bins.index]
        covered += ((bins["rate_low"] <= known) & (known <= bins["rate_high"])).tolist()
    yield "reliability: rate of a bin", covered


def spread(studies: int, num: int) -> Rows:
    """Four pairs of four models that share a third of their mistakes: the mean of their intervals."""
    generator = np.random.default_rng(4)
    rows: dict[str, list[bool]] = {}

    def draw(size: int) -> pd.DataFrame:
        common = generator.random(size) < 0.08
        right = ~common & (generator.random((4, size)) < 0.85)
        pairs = [compare_mistakes(right[a], right[b]) for a in (0, 1) for b in (2, 3)]
        tables = [with_intervals(pair.to_frame(), pair, num_resamples=400) for pair in pairs]
        table = pd.concat(tables, ignore_index=True).assign(task="t", pair_kind="k")
        return spread_over_pairs(table).dropna(subset=["low"]).set_index("statistic")

    truth = draw(400_000)["mean"]
    for _ in range(studies):
        for statistic, row in draw(num).iterrows():
            rows.setdefault(str(statistic), []).append(holds(row["low"], row["high"], truth[statistic]))
    for statistic, covered in rows.items():
        yield f"spread over pairs (a bound): {statistic}", covered


def rises(studies: int, num: int) -> Rows:
    """Train accuracy .85, then .9; of the mistakes each model makes, a share is common."""
    sizes = pd.DataFrame({"part": ["train"], "count": [num], "negatives": [0]})
    for common in (0.0, 0.05, 0.08):
        generator = np.random.default_rng(5)
        covered = []
        for _ in range(studies):
            both = generator.random(num) < common
            values = [1 - (both | (generator.random(num) < (wrong - common) / (1 - common))).mean() for wrong in WRONG]
            history = pd.DataFrame({"epoch": [1, 2], "lr": 0.1, "train_accuracy": values})
            rise = rise_at_the_end(history, sizes, "accuracy")
            covered.append(holds(rise.low, rise.high, WRONG[0] - WRONG[1]))
        yield f"last rise (a bound): {common:g} of the mistakes common", covered


WRONG = (0.15, 0.1)


def runs(studies: int, _: int) -> Rows:
    generator = np.random.default_rng(6)
    for sizes, ratio in (((2, 2), 1.0), ((2, 2), 5.0), ((3, 3), 3.0), ((5, 5), 1.0)):
        covered = []
        for _ in range(studies):
            first, second = generator.normal(size=sizes[0]), ratio * generator.normal(size=sizes[1])
            covered.append(holds(*difference_of_means(first, second), 0.0))
        yield f"small values: {sizes[0]} v {sizes[1]} runs, spread 1 and {ratio:g}", covered
    means = np.array([0.5, 0.6, 0.77, 0.79, 0.8])
    for replicas in (2, 4):
        for error, shared in ((0.0, False), (0.02, False), (0.02, True)):
            gains, firsts = [], []
            for _ in range(studies):
                images = error * (generator.normal() if shared else generator.normal(size=6))
                drawn = generator.normal(np.r_[means, 0.4], 0.01, (replicas, 6)) + images
                every = [Scores(tuple(map(float, column)), error) for column in drawn.T]
                study = SourceEpochs(tuple(every[:5]), every[5])
                one = study.gain(2)
                gains.append(holds(one.low, one.high, means[2] - 0.4))
                first = study.first()
                if first.low is not None and first.high is not None:
                    firsts.append(holds(first.low, first.high, 3))
            kind = "no error over images" if not error else f"{'shared' if shared else 'own'} test images"
            yield f"source epochs: gain, {replicas} replicas, {kind}", gains
            yield f"source epochs: first epoch, {replicas} replicas, {kind}", firsts


class Point(nn.Module):
    """A network that is nothing but its weights."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))


def hulls(studies: int, num: int) -> Rows:
    """A bowl between two checkpoints whose level and depth vary over examples with skewed distributions."""

    def basin(level: np.ndarray | float, depth: np.ndarray | float):  # type: ignore[no-untyped-def]
        ends = [{"weight": torch.tensor([end])} for end in (0.0, 1.0)]
        return estimate_basin(
            Point(1), ends, lambda model: {"loss": level + depth * (2 * model.weight.item() - 1) ** 2}, []
        )

    generator, true = np.random.default_rng(7), basin(0.0, 0.3)
    rows: dict[str, list[bool]] = {"mean loss": [], "epsilon": []}
    for _ in range(studies):
        offsets, depths = generator.exponential(1.0, num), generator.exponential(0.3, num)
        counts = np.vstack([np.ones(num), generator.multinomial(num, np.full(num, 1 / num), RESAMPLES)]) / num
        one = basin(counts @ offsets - 1, counts @ depths)
        rows["mean loss"].append(holds(one.center.low, one.center.high, true.center.value))
        rows["epsilon"].append(holds(one.epsilon.low, one.epsilon.high, true.epsilon.value))
    for name, covered in rows.items():
        yield f"hulls: {name}", covered


def lengths(studies: int, _: int) -> Rows:
    """A bump between the checkpoints, so that delta is not 0, and a loss that rises as a fourth power."""
    for corners in (2, 3):
        points = torch.eye(corners, 200)
        centre = points.mean(dim=0)

        def loss(model: nn.Module, middle: torch.Tensor = centre) -> dict[str, float]:
            distance = (model.weight.detach() - middle).square().sum()
            return {"loss": float(0.5 * (-4 * distance).exp() + distance.square())}

        states, tried = [{"weight": point} for point in points], [0.2, 0.4, 0.8]
        true = estimate_basin(
            Point(200), states, loss, tried, num_points=400, num_rays=800, num_refinements=8
        ).delta.value
        covered = []
        for seed in range(studies):
            delta = estimate_basin(Point(200), states, loss, tried, num_points=24, num_rays=20, seed=seed).delta
            covered.append(holds(delta.low, delta.high, true))
        yield f"lengths: delta of the hull of {corners}", covered


def criticality(studies: int, _: int) -> Rows:
    """Two places near the bound, one that it allows and one that it does not; half of each loss is skewed noise."""
    means = {(a, s): 0.12 + (1 - a) * 0.6 + 8 * s**2 for a in (0.25, 0.5, 0.75, 1.0) for s in (0.1, 0.2)}
    true = min((2 * alpha / sigma) ** 2 for (alpha, sigma), mean in means.items() if mean <= BOUND)
    columns = ["module", "path", "split", "position", "distance", "sigma", "draw", "error", "loss"]
    covered = []
    for seed in range(studies):
        generator = np.random.default_rng(seed)

        def draw(cases: set | None, first: int, num: int, generator: np.random.Generator = generator) -> pd.DataFrame:
            return pd.DataFrame(
                [
                    ("stem", "direct", "train", a, 2 * a, s, index, 0.0, mean * (0.5 + 0.5 * generator.exponential()))
                    for (a, s), mean in means.items()
                    if cases is None or ("stem", a, s) in cases
                    for index in range(first, first + num)
                ],
                columns=columns,
            )

        table = settle(draw(None, 0, 2), BOUND, draw, max_draws=64)
        row = module_criticality(table, [BOUND]).iloc[0]
        covered.append(holds(row["mu_low"], row["mu_high"], true))
    yield "criticality: mu of a module", covered


BOUND = 0.47

MODES: dict[str, Callable[[int, int], Rows]] = {
    "modules": modules,
    "merging": merging,
    "reliability": rates,
    "spread": spread,
    "rises": rises,
    "runs": runs,
    "hulls": hulls,
    "lengths": lengths,
    "criticality": criticality,
}
OVER_NO_EXAMPLES = ("runs", "lengths", "criticality")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--num", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--only", nargs="+", choices=MODES, default=list(MODES))
    chosen = parser.parse_args()
    for mode in chosen.only:
        for num in chosen.num[:1] if mode in OVER_NO_EXAMPLES else chosen.num:
            for name, covered in MODES[mode](chosen.studies, num):
                about = "" if mode in OVER_NO_EXAMPLES else f"n {num:4d}  "
                print(f"{about}{name}: coverage {np.mean(covered):.3f} of {len(covered)}", flush=True)


if __name__ == "__main__":
    main()
