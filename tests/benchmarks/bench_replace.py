"""Coverage of every interval that the tables of mistakes print, by simulation, and what a pair costs.

    python tests/benchmarks/bench_replace.py [--studies 1000] [--sizes 100 500]     # coverage
    python tests/benchmarks/bench_replace.py --cost                                 # 50,000 images of 345 classes
    python tests/benchmarks/bench_replace.py --enumerate                            # coverage of a difference, exactly
    python tests/benchmarks/bench_replace.py --reachable                            # coverage that any interval can have

Two models of a population of 100,000 examples are drawn, whose mistakes and probabilities agree more or less. A study
draws test sets from the population and makes the tables of mistakes and of `measure.replacements` from them. For every
column with a `_low` and a `_high` it is counted how often the two hold the column's value in the whole population.

With few changed answers coverage goes up and down with the true shares, whatever the interval. --enumerate adds up the
probabilities of all counts and prints mean and least coverage over shares up to a factor of 1.5 away. --reachable prints
which coverages any interval can have there, with ours beside them, and the mean of ours over true values near each other.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binom, multinomial

sys.path.insert(0, str(Path(__file__).parent.parent))

from reachable_coverage import TOTALS, least_of_equal_models, of_one_count
from transferscope.analysis.intervals import paired_difference_interval, rate_interval
from transferscope.analysis.mistakes import compare_predictions, with_intervals
from transferscope.experiment.options import ReplaceOptions
from transferscope.measure.replacements import calibration, replacement

POPULATION = 100_000


@dataclass(frozen=True)
class Examples:
    """What `compare` asks of a split, without images."""

    labels: np.ndarray
    class_names: tuple[str, ...]
    columns: pd.DataFrame
    name: str = "drawn"

    multi_label = property(lambda self: self.labels.ndim == 2)
    num_classes = property(lambda self: len(self.class_names))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Examples:
        return Examples(self.labels[rows], self.class_names, self.columns.iloc[rows])


@dataclass(frozen=True)
class Pair:
    """Two models that answer alike: lift, how far the true class is raised; shared, how much of the rest is common.

    sharpness: factor on the logits; above 1 the models are too sure. multi_label: findings instead of classes.
    """

    name: str
    num_classes: int
    lift: tuple[float, float]
    shared: float
    sharpness: float
    multi_label: bool = False


PAIRS = (
    Pair("ten classes, a weaker model", 10, (2.6, 1.9), 0.5, 1.5),
    Pair("ten classes, twins", 10, (2.4, 2.4), 0.95, 2.5),
    Pair("four classes, calibrated", 4, (1.8, 1.7), 0.7, 1.0),
    Pair("three findings", 3, (2.2, 1.8), 0.7, 1.3, multi_label=True),
)


def draw(pair: Pair, num_examples: int, generator: np.random.Generator) -> tuple[Examples, np.ndarray, np.ndarray]:
    """Examples with two groups, and both models' logits (num_examples, num_classes)."""
    n, k = num_examples, pair.num_classes
    labels = (generator.random((n, k)) < 0.35).astype(np.int8) if pair.multi_label else generator.integers(0, k, n)
    raised = 2.0 * labels - 1 if pair.multi_label else np.eye(k)[labels]
    common = generator.normal(size=(n, k))
    scale = 0.5 if pair.multi_label else 1.0
    models = [
        pair.sharpness
        * (
            scale * lift * raised
            + np.sqrt(pair.shared) * common
            + np.sqrt(1 - pair.shared) * generator.normal(size=(n, k))
        )
        for lift in pair.lift
    ]
    groups = pd.DataFrame({"site": generator.choice(["a", "b"], n, p=[0.4, 0.6])})
    return Examples(labels, tuple(f"class {i}" for i in range(k)), groups), models[0], models[1]


def tables(examples: Examples, a: np.ndarray, b: np.ndarray) -> dict[str, pd.DataFrame]:
    """The tables with intervals of a pair, by what a row stands for."""
    options = ReplaceOptions(groups=("site",))
    whole, flips = replacement(examples, a, b, options)
    multi_label, names = examples.multi_label, examples.class_names
    counts = compare_predictions(a, b, examples.labels, names, multi_label=multi_label)
    mistakes = with_intervals(counts.to_frame(names if multi_label else None), counts, num_resamples=1000)
    by_group = {f"flips by {name}": rows.reset_index(drop=True) for name, rows in flips.groupby("group")}
    return {"mistakes": mistakes, "pair": whole, "model": calibration(examples, a, options)[0]} | by_group


def coverage(pair: Pair, num_examples: int, num_studies: int, seed: int) -> pd.DataFrame:
    """How often each interval holds the truth: rows, statistic, covered (of those printed), printed (share of all)."""
    generator = np.random.default_rng(seed)
    population = draw(pair, POPULATION, generator)
    truth = tables(*population)
    hits: dict[tuple[str, str], list[np.ndarray]] = {}
    for _ in range(num_studies):
        rows = generator.integers(0, POPULATION, num_examples)
        for name, table in tables(population[0].take(rows), *(model[rows] for model in population[1:])).items():
            for low in (column for column in table if column.endswith("_low")):
                statistic = low.removesuffix("_low")
                inside = (table[low] <= truth[name][statistic]) & (truth[name][statistic] <= table[f"{statistic}_high"])
                hits.setdefault((name, statistic), []).append(np.where(table[low].isna(), np.nan, inside))
    rows_ = [
        (pair.name, num_examples, *key, float(np.nanmean(values)), float(np.mean(~np.isnan(values))))
        for key, values in hits.items()
        if not np.isnan(values).all()
    ]
    return pd.DataFrame(rows_, columns=["models", "num_examples", "rows", "statistic", "covered", "printed"])


def studies(sizes: Iterable[int], num_studies: int) -> pd.DataFrame:
    """`coverage` of all pairs of models at all sizes."""
    return pd.concat(
        [coverage(pair, size, num_studies, seed) for size in sizes for seed, pair in enumerate(PAIRS)],
        ignore_index=True,
    )


def cost(num_examples: int = 50_000, num_classes: int = 345) -> None:
    """Seconds and memory of one pair of full size."""
    examples, a, b = draw(Pair("", num_classes, (4.0, 3.5), 0.5, 1.0), num_examples, np.random.default_rng(0))
    a, b = a.astype(np.float32), b.astype(np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    replacement(examples, a, b, ReplaceOptions(groups=("site",)))
    middle = time.process_time()
    calibration(examples, a, ReplaceOptions())
    stop = time.process_time()
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{num_examples:,} x {num_classes}: stored {a.nbytes / 1e6:.0f} MB a run; pair {middle - start:.2f} CPU s, ")
    print(f"run {stop - middle:.2f} CPU s; {more:.0f} MiB above the peak before")


def enumerate_differences() -> None:
    """Shares of either kind of change, of 10, 100 and 500 examples, beside Wald's interval with half an example added."""
    for num in (10, 100, 500):
        most = min(num, 90)
        up, down = (index.ravel() for index in np.mgrid[: most + 1, : most + 1])
        up, down = up[up + down <= num], down[up + down <= num]
        intervals = {"score": paired_difference_interval(up, down, num), "half added": _half_added(up, down, num)}
        for gained, lost in itertools.product(
            (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05), (0.005, 0.01, 0.02, 0.03, 0.05)
        ):
            if gained > lost:
                continue
            held = {name: [] for name in intervals}
            for x, y in itertools.product(gained * NEARBY, lost * NEARBY):
                chances = multinomial.pmf(np.stack([up, down, num - up - down], axis=1), num, [x, y, 1 - x - y])
                for name, (low, high) in intervals.items():
                    held[name].append(chances[(low <= x - y) & (x - y <= high)].sum())
            shown = "; ".join(f"{name} mean {np.mean(one):.3f}, least {min(one):.3f}" for name, one in held.items())
            print(f"n {num:3d}, gained {gained:g}, lost {lost:g}: {shown}", flush=True)


def reachable() -> None:
    """Rates, and differences of equal models, of 100 and 500 examples."""
    for expected in (0.5, 1.0, 1.5, 2.0, 3.0):
        near = ", ".join(f"{one:.3f}" for one in of_one_count(expected) if 0.9 < one < 0.9985)
        ours = ", ".join(f"{coverage_of_rate(expected / num, num):.3f}" for num in (100, 500))
        print(f"rate, {expected:g} expected: reachable {near}; Wilson's (100, 500) {ours}", flush=True)
    for num in (100, 500):
        every = [coverage_of_rate(expected / num, num) for expected in np.arange(0.5, 3.001, 0.01)]
        print(f"rate, mean over .5 to 3 expected of {num}: Wilson's {np.mean(every):.3f}, least {min(every):.3f}")
    for total, least in zip(TOTALS, least_of_equal_models(0.93), strict=True):
        ours = ", ".join(f"{coverage_of_equal_models(total / 2 / num, num):.3f}" for num in (100, 500))
        print(f"equal models, {total:g} changes: at least {least:.3f}; Tango's (100, 500) {ours}", flush=True)


def coverage_of_rate(rate: float, num: int) -> float:
    counts = np.arange(num + 1)
    low, high = rate_interval(counts, num)
    return float(binom.pmf(counts, num, rate)[(low <= rate) & (rate <= high)].sum())


def coverage_of_equal_models(share: float, num: int, most: int = 20) -> float:
    up, down = (index.ravel() for index in np.mgrid[: most + 1, : most + 1])
    low, high = paired_difference_interval(up, down, num)
    chances = multinomial.pmf(np.stack([up, down, num - up - down], axis=1), num, [share, share, 1 - 2 * share])
    return float(chances[(low <= 0) & (high >= 0)].sum())


NEARBY = 1.5 ** np.linspace(-1, 1, 7)


def _half_added(up: np.ndarray, down: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = (up + 0.5) / (num + 1), (down + 0.5) / (num + 1)
    half = 1.96 * np.sqrt((x + y - (x - y) ** 2) / (num + 1))
    return x - y - half, x - y + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--enumerate", action="store_true")
    parser.add_argument("--reachable", action="store_true")
    arguments = parser.parse_args()
    if arguments.reachable:
        reachable()
        return
    if arguments.cost or arguments.enumerate:
        cost() if arguments.cost else enumerate_differences()
        return
    rows = studies(arguments.sizes, arguments.studies)
    over_pairs = rows.groupby(["num_examples", "rows", "statistic"], sort=False).agg(
        covered=("covered", "mean"), lowest=("covered", "min"), highest=("covered", "max"), printed=("printed", "mean")
    )
    print(over_pairs.round(3).to_string())


if __name__ == "__main__":
    main()
