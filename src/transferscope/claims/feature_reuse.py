"""Claims on feature reuse and on the epoch of the pre-trained model (main text, Figures 3 and 7, and its controls)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import pandas as pd

from transferscope.claims.comparisons import Comparison, Measured, Unit, against, compare
from transferscope.claims.evidence import Evidence
from transferscope.claims.registry import BETWEEN_RUNS, claim
from transferscope.experiment.names import PairName, RunName
from transferscope.tables.block_sizes import shuffled_rows

EARLY = 1 / 3
"""The part of pre-training that counts as early."""
CROSSED = 3
"""Replicas of each kind of which every combination is compared, where eight runs make one number."""
UNLIKE = ("quickdraw",)
"""Tasks of drawings, which share least with photographs."""


@claim(
    "P-T ends better than RI-T on images without features: all pixels shuffled.",
    source="Main text, Figure 3",
    paper=("relative drop of RI-T, single pixels shuffled: quickdraw 69 %", "clipart 22 %", "real 9 %"),
    compares=f"final test metric on images of which all pixels, or all values, are shuffled, {BETWEEN_RUNS}",
    unit="score",
    sides=("P-T", "RI-T"),
    needs="feature_reuse with block_sizes 1 or values",
    section="figure_3",
)
def reuse_statistics(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each("feature_reuse"):
        for _, rows in _by_size(table, lambda size, side: size in ("values", "1")):
            yield from compare(task, _scores(rows, "fine_tuned"), _scores(rows, "from_scratch"), metric=_metric(table))


@claim(
    "The gain of P-T over RI-T in final accuracy is larger on whole images than on shuffled pixels.",
    source="Main text, Figure 3",
    paper=("relative drop, pixels | whole images: real 9 % | 42 %", "clipart 22 % | 40 %"),
    compares="final test metric of P-T minus that of RI-T on whole images against the same on images with shuffled "
    f"pixels, {BETWEEN_RUNS}; tasks of drawings excepted",
    unit="score",
    sides=("whole", "pixels"),
    needs="feature_reuse with block_sizes 1",
    section="figure_3",
)
def reuse_grows(evidence: Evidence) -> Iterator[Comparison]:
    for task, whole, pixels in _gains_of_ends(evidence):
        if task not in UNLIKE:
            yield from compare(task, whole, pixels)


@claim(
    "On drawings that gain grows less with the size of the blocks than on other images.",
    source="Main text, Figure 3",
    paper=("relative drop, pixels | whole images: quickdraw 69 % | 22 %",),
    compares="growth of the gain, that on whole images minus that on shuffled pixels, of each other task against that "
    "of quickdraw",
    unit="score",
    sides=("others", "drawings"),
    needs="feature_reuse with block_sizes 1 on quickdraw and on another task",
    section="figure_3",
)
def reuse_grows_less(evidence: Evidence) -> Iterator[Comparison]:
    growth = {task: _growths(whole, pixels) for task, whole, pixels in _gains_of_ends(evidence)}
    for task, drawing in product(growth, UNLIKE):
        if task != drawing and drawing in growth:
            for first, second in product(growth[task], growth[drawing]):
                yield Comparison(
                    place=task,
                    unit=f"{first.unit} : {second.unit}",
                    first=first.effect,
                    second=second.effect,
                    effect=first.effect - second.effect,
                    metric=first.metric,
                    runs=first.runs | second.runs,
                    error=math.hypot(first.error, second.error),
                )


@claim(
    "P-T learns faster than RI-T at every size of the blocks.",
    source="Main text, Figure 3",
    paper=("at all sizes and on all three domains (a figure, no number)",),
    compares=f"train metric averaged over the measured epochs, at each size, {BETWEEN_RUNS}",
    unit="score",
    sides=("P-T", "RI-T"),
    needs="feature_reuse with block_sizes",
    section="figure_3",
)
def reuse_speed(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each("feature_reuse"):
        for _, rows in _by_size(table, lambda size, side: True):
            sides = (_scores(rows, role, "optimization_speed") for role in ("fine_tuned", "from_scratch"))
            yield from compare(task, *sides, metric=_metric(table))


@claim(
    "The statistics of the pre-trained weights alone make training faster.",
    source="Raghu et al. 2019 (arXiv 1902.07208), section 5",
    paper=("not in the paper; Raghu et al. find it on images of eyes and chests (curves, no number)",),
    compares="train metric averaged over the measured epochs, every run that starts from the mean and standard "
    "deviation of each pre-trained tensor, and is trained as RI-T is, against every RI-T",
    unit="score",
    sides=("statistics", "RI-T"),
    needs="feature_reuse with controls: [statistics]",
    section="reuse_controls",
)
def statistics_speed(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each("feature_reuse"):
        first = _scores(_part(table, "statistics"), "control", "optimization_speed")
        yield from compare(task, first, _whole(table, "from_scratch", "optimization_speed"), metric=_metric(table))


@claim(
    "They do not explain the final accuracy: P-T ends better than a run that starts from its statistics.",
    source="Raghu et al. 2019 (arXiv 1902.07208), section 5; main text, Figure 3",
    paper=("not in the paper (it shows that statistics are not all by shuffled images)",),
    compares="final test metric, every P-T against every run that starts from the mean and standard deviation of each "
    "pre-trained tensor and is trained as RI-T is",
    unit="score",
    sides=("P-T", "statistics"),
    needs="feature_reuse with controls: [statistics]",
    section="reuse_controls",
)
def statistics_score(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each("feature_reuse"):
        second = _scores(_part(table, "statistics"), "control")
        yield from compare(task, _whole(table, "fine_tuned"), second, metric=_metric(table))


@claim(
    "The first modules carry more than half of the gain.",
    source="Matsoukas et al. 2022 (arXiv 2203.01825), section 4",
    paper=("not in the paper",),
    compares="final test metric of a run of which the first modules are pre-trained (up to the middle one of those "
    "that are tried) and which is trained as RI-T is, minus that of RI-T, as a part of the gain of P-T; claimed: above "
    "half",
    unit="share",
    sides=("part of the gain",),
    needs="feature_reuse with first_modules",
    section="reuse_controls",
)
def first_modules(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each("feature_reuse"):
        parts = table.loc[(table["series"] == "control") & (table["role"] == "control"), "part"]
        modules = [part for part in dict.fromkeys(parts) if part != "statistics"]
        if not modules:
            continue
        tuned, scratch = _whole(table, "fine_tuned"), _whole(table, "from_scratch")
        base, top = _mean(scratch), _mean(tuned)
        first = _scores(_part(table, modules[len(modules) // 2]), "control")
        gains = top > base  # not of runs that have not learned
        shares: dict[Unit, float] = {
            unit: (value - base) / (top - base) for unit, value in first.values.items() if gains
        }
        errors = {unit: error / (top - base) for unit, error in first.errors.items() if gains}
        reasons = {**first.left_out, **tuned.left_out, **scratch.left_out}
        yield from against(task, Measured(shares, reasons, errors=errors), 0.5, above=True)


@claim(
    "Early epochs of the pre-trained model already help.",
    source="Main text, Figure 7",
    paper=("real, from epoch 29 of 90: 76.2 % | 61.5 % (RI-T)", "quickdraw, from epoch 0 on: 64.3 % to 67 %"),
    compares="final test metric, every run from the last source epoch within the first third of pre-training against "
    "every RI-T",
    unit="score",
    sides=("early", "RI-T"),
    needs="source_epochs with an epoch within the first third of pre-training",
    section="figure_7",
)
def early_epochs(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each("feature_reuse"):
        rows = table[table["series"] == "epoch"]
        early = [epoch for epoch in map(int, rows["source_epoch"]) if 0 < epoch <= EARLY * _last_epoch(evidence, rows)]
        if early:
            chosen = rows[rows["source_epoch"].astype(int) == max(early)]
            yield from compare(
                task, _scores(chosen, "fine_tuned"), _whole(table, "from_scratch"), metric=_metric(table)
            )


def _by_size(table: pd.DataFrame, wanted: Callable[[str, int], bool]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of one permutation for all images, by the size of the blocks."""
    rows = table[table["series"] == "blocks"]
    for size, of_size in rows.groupby(rows["size"].astype(str), sort=False):
        if wanted(str(size), int(of_size["side"].iloc[0])):
            yield str(size), of_size


def _part(table: pd.DataFrame, part: str) -> pd.DataFrame:
    return table[(table["series"] == "control") & (table["part"] == part)]


def _whole(table: pd.DataFrame, role: str, column: str = "final_test") -> Measured:
    return _scores(table[table["series"] == "whole"], role, column)


def _scores(rows: pd.DataFrame, role: str, column: str = "final_test") -> Measured:
    """A number of each run of a role that has learned, with its standard error where it is the final metric."""
    rows = rows[rows["role"] == role]
    learned = rows["learned"].astype(bool) & (rows["status"] != "diverged")
    values: dict[Unit, float] = {}
    errors: dict[Unit, float] = {}
    for row in rows[learned].to_dict("records"):
        name = RunName.parse(str(row["run"]))
        values[name] = float(row[column])
        if column == "final_test":
            errors[name] = float(row["final_test_error"])
    failed = rows[~learned]
    reasons = failed["status"].map(lambda status: "diverged" if status == "diverged" else "not learned")
    return Measured(values, dict(zip(failed["run"].astype(str), reasons, strict=True)), errors=errors)


def _gains_of_ends(evidence: Evidence) -> Iterator[tuple[str, Measured, Measured]]:
    """Task, and the gain of each P-T over each RI-T on whole images and on images with shuffled pixels."""
    for task, table in evidence.each("feature_reuse"):
        pixels = table[(table["series"] == "blocks") & (table["size"].astype(str) == "1")]
        if len(pixels):
            rows = shuffled_rows(table)
            yield task, _gains(rows[rows["size"].astype(str) == rows["side"].astype(str)]), _gains(pixels)


def _gains(rows: pd.DataFrame) -> Measured:
    """The final metric of every P-T minus that of every RI-T."""
    tuned, scratch = _scores(rows, "fine_tuned"), _scores(rows, "from_scratch")
    values: dict[Unit, float] = {}
    errors: dict[Unit, float] = {}
    for (a, x), (b, y) in product(tuned.values.items(), scratch.values.items()):
        if isinstance(a, RunName) and isinstance(b, RunName):
            pair = PairName(a.at("final"), b.at("final"))
            values[pair], errors[pair] = x - y, math.hypot(tuned.errors[a], scratch.errors[b])
    return Measured(values, {**tuned.left_out, **scratch.left_out}, errors=errors)


def _growths(whole: Measured, pixels: Measured) -> list[Comparison]:
    """Every gain on whole images minus every one on shuffled pixels, of the first `CROSSED` replicas of each kind.

    Two such differences are then compared, so that their number grows with the eighth power of the replicas.
    """
    few = (
        replace(one, values={pair: gain for pair, gain in one.values.items() if _is_among_first(pair)})
        for one in (whole, pixels)
    )
    return [one for one in compare("", *few) if one.counted]


def _is_among_first(pair: Unit) -> bool:
    return all(int(run.run.rpartition("_")[2]) <= CROSSED for run in pair.runs)


def _mean(measured: Measured) -> float:
    values = list(measured.values.values())
    return sum(values) / len(values) if values else math.nan


def _last_epoch(evidence: Evidence, rows: pd.DataFrame) -> int:
    """The number of epochs of the run that these start from; of a file, the largest epoch that is asked for."""
    starts = {evidence.spec(RunName.parse(str(run))).pretrained for run in rows["run"]}
    trained = [evidence.plan.runs[start].training.epochs for start in starts if start in evidence.plan.runs]
    return max(trained or [int(epoch) for epoch in rows["source_epoch"]])


def _metric(table: pd.DataFrame) -> str:
    return str(table["metric"].iloc[0])
