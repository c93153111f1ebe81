"""Claims on barriers and basins of the loss landscape within a task (appendix B.4 to B.6)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from transferscope.analysis.barriers import higher_is_better, learned_by
from transferscope.claims.comparisons import Comparison, Measured, Unit, against, compare
from transferscope.claims.evidence import Evidence
from transferscope.claims.pair_rows import PairRows
from transferscope.claims.registry import BETWEEN_PAIRS, claim
from transferscope.claims.run_facts import main_metric
from transferscope.experiment.names import PairName
from transferscope.experiment.options import BARRIER_MARGIN
from transferscope.experiment.run import Role

MARGIN = BARRIER_MARGIN
"""The margin of claims that there is a barrier, or none.

Learned is what the mean of the ends is above chance, in accuracy or AUC, and below the loss of a model that knows the
frequencies of the classes alone: one margin for metrics whose levels without knowledge are 10 % of accuracy, .5 of AUC
and ln 10 of loss. A twentieth is about what two replicas of a run differ in, and 3.9 points where the paper's P-T reach
78.4 %, while its RI-T fall to chance.
"""

HEIGHT = "largest fall below the chord of the ends, test set, as a part of what the ends are above chance"
RISE = "largest rise above the chord of the ends, as a part of what the loss of the ends is below that of guessing"
NO_BARRIER = f"{HEIGHT}; claimed: below {MARGIN:.0%}"
BARRIER = f"{HEIGHT}; claimed: above {MARGIN:.0%}"
"""Words for what claims compare."""


@claim(
    "There is no barrier in accuracy or AUC between two P-T.",
    source="Section B.4, Figures 12 and 14",
    paper=("flat", "real rises from 78.4 % to 79.3 % in the middle"),
    compares=NO_BARRIER,
    unit="share",
    sides=("barrier",),
    needs="interpolation of pairs of two fine-tuned runs",
    section="figures_12_17",
)
def no_barrier_pt(evidence: Evidence) -> Iterator[Comparison]:
    return _in_tasks(evidence, "fine_tuned", "fine_tuned", above=False)


@claim(
    "There is no barrier in the loss between two P-T.",
    source="Section B.4, Figures 13 and 15",
    paper=("flat (curves, no number)",),
    compares=f"{RISE}, train set; claimed: below {MARGIN:.0%}",
    unit="share",
    sides=("barrier",),
    needs="interpolation of pairs of two fine-tuned runs on train images",
    section="figures_12_17",
)
def no_barrier_pt_loss(evidence: Evidence) -> Iterator[Comparison]:
    return _in_tasks(evidence, "fine_tuned", "fine_tuned", above=False, split="train", metric="loss")


@claim(
    "There is a barrier in accuracy or AUC between two RI-T of different initialisation.",
    source="Section B.4, Figures 12 and 14",
    paper=("accuracy falls to about 0 % on DomainNet, AUC to .52 on CheXpert",),
    compares=BARRIER,
    unit="share",
    sides=("barrier",),
    needs="interpolation of pairs of two runs from scratch",
    section="figures_12_17",
)
def barrier_rit(evidence: Evidence) -> Iterator[Comparison]:
    return _in_tasks(evidence, "from_scratch", "from_scratch", above=True)


@claim(
    "There is a barrier in the loss between two RI-T of different initialisation.",
    source="Section B.4, Figures 13 and 15",
    paper=("high (curves, no number)",),
    compares=f"{RISE}, train set; claimed: above {MARGIN:.0%}",
    unit="share",
    sides=("barrier",),
    needs="interpolation of pairs of two runs from scratch on train images",
    section="figures_12_17",
)
def barrier_rit_loss(evidence: Evidence) -> Iterator[Comparison]:
    return _in_tasks(evidence, "from_scratch", "from_scratch", above=True, split="train", metric="loss")


@claim(
    "There is a barrier in accuracy or AUC between a P-T and an RI-T.",
    source="Section B.4, Figures 12 and 14",
    paper=("AUC below .45 on CheXpert (best weights)",),
    compares=BARRIER,
    unit="share",
    sides=("barrier",),
    needs="interpolation of pairs of a fine-tuned run and one from scratch",
    section="figures_12_17",
)
def barrier_mixed(evidence: Evidence) -> Iterator[Comparison]:
    return _in_tasks(evidence, "fine_tuned", "from_scratch", above=True)


@claim(
    "There is a barrier in accuracy or AUC also between two RI-T of the same initialisation.",
    source="Section B.5, Figure 16",
    paper=("lowest accuracy real 6.5 %, clipart 5.5 %, quickdraw 16 %",),
    compares=BARRIER,
    unit="share",
    sides=("barrier",),
    needs="interpolation of pairs of runs from scratch that share their initial weights",
    section="figures_12_17",
)
def barrier_same_init(evidence: Evidence) -> Iterator[Comparison]:
    return _in_tasks(evidence, "from_scratch", "shared_init", above=True)


@claim(
    "The barrier between two RI-T is smaller if they share their initialisation.",
    source="Section B.5, Figures 12 and 16",
    paper=("slightly: the lowest accuracy is 5.5 to 16 % instead of about 0 %",),
    compares=f"{HEIGHT}, {BETWEEN_PAIRS}; positive: smaller with the same initialisation",
    unit="share",
    sides=("same", "different"),
    needs="interpolation of pairs of runs from scratch, with the same and with different initial weights",
    section="figures_12_17",
)
def same_init_smaller(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        same, different = (_heights(evidence, task, "from_scratch", role) for role in ("shared_init", "from_scratch"))
        yield from compare(task, same, different, larger=False)


@claim(
    "Two P-T lie close to the boundary of their basin: beyond them the metric falls.",
    source="Section B.6, Figure 18",
    paper=("the metric falls on both sides of [0, 1] (a curve, no number)",),
    compares="fall of the test metric from an end to the end of the extrapolation, the smaller of both sides, as a "
    f"part of what the ends are above chance; claimed: above {MARGIN:.0%}",
    unit="share",
    sides=("fall",),
    needs="extrapolation of pairs of two fine-tuned runs",
    section="figure_18",
)
def extrapolation(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        pairs = evidence.pairs(task, "interpolation", "fine_tuned", "fine_tuned").where("split", "test")
        rows = pairs.rows
        beyond = len(rows) > 0 and rows["alpha"].min() < 0 and rows["alpha"].max() > 1
        metric = main_metric(rows)
        curves = rows[rows["metric"] == metric].groupby("pair", sort=False) if beyond else ()
        chance = evidence.chance(task)
        falls: dict[Unit, float] = {PairName.parse(str(pair)): _smaller_fall(curve, chance) for pair, curve in curves}
        yield from against(task, Measured(falls, pairs.left_out), MARGIN, above=True, metric=metric)


def _in_tasks(
    evidence: Evidence, first: Role, second: Role, *, above: bool, split: str = "test", metric: str | None = None
) -> Iterator[Comparison]:
    """Barriers of the pairs of each task against the margin."""
    for task in evidence.compared_tasks:
        heights = _heights(evidence, task, first, second, split=split, metric=metric)
        yield from against(task, heights, MARGIN, above=above, metric=metric or "accuracy")


def _heights(
    evidence: Evidence, task: str, first: Role, second: Role, *, split: str = "test", metric: str | None = None
) -> Measured:
    """Barrier of every pair as a part of what its ends have learned, in the main metric where none is named."""
    pairs = barrier_rows(evidence, task, evidence.pairs(task, "barriers", first, second), split, metric)
    return relative(pairs)


def relative(pairs: PairRows, column: str = "barrier") -> Measured:
    """Means over the rows of each pair of a column, `barrier` as a part of what the ends have learned."""
    if pairs.rows.empty:
        return pairs.mean(lambda rows: rows[column])
    scale = pairs.rows["learned"].where(pairs.rows["learned"] > 0) if column == "barrier" else 1.0
    low, high = ("barrier_low", "barrier_high") if column == "barrier" else ("gain_low", "gain_high")
    return pairs.mean_with_error(lambda rows: rows[column] / scale, low, high, scale)


def barrier_rows(evidence: Evidence, scope: str, pairs: PairRows, split: str, metric: str | None) -> PairRows:
    """A row per pair and scenario of one split and metric: of several grids of alphas that with the larger barrier.

    The column `learned` is what the mean of the ends is above chance, or below the loss of guessing.
    """
    if pairs.rows.empty:
        return pairs
    rows = pairs.rows[pairs.rows["split"] == split]
    rows = rows[rows["metric"] == (metric or main_metric(rows))].sort_values("barrier", ascending=False, kind="stable")
    keys = [key for key in ("scenario", "task", "pair") if key in rows.columns]
    rows = rows.drop_duplicates(keys).sort_index()
    return PairRows(rows.assign(learned=_learned(evidence, scope, rows)), pairs.left_out)


def _learned(evidence: Evidence, scope: str, rows: pd.DataFrame) -> list[float]:
    lines = evidence.table(scope, "interpolation")
    keys = ["scenario", "task", "split", "metric", "checkpoint_a", "checkpoint_b"]
    if lines.empty or not set(keys) <= set(lines.columns) & set(rows.columns):
        return [np.nan] * len(rows)
    ends = lines[np.isclose(lines["alpha"], 0) | np.isclose(lines["alpha"], 1)]
    means = {
        frozenset(row[key] for key in keys): float(row["value"])
        for row in ends.groupby(keys)["value"].mean().reset_index().to_dict("records")
    }
    learned = []
    for row in rows[keys].to_dict("records"):
        mean = means.get(frozenset(row[key] for key in keys), np.nan)
        metric = str(row["metric"])
        guessing = evidence.guessing(str(row["task"]), str(row["split"]), metric)
        learned.append(learned_by(mean, guessing, higher_is_better=higher_is_better(metric)))
    return learned


def _smaller_fall(curve: pd.DataFrame, chance: float) -> float:
    """Fall from each end to the last point beyond it, the smaller of both, as a part of the ends above chance."""
    values = curve.groupby(curve["alpha"].round(6))["value"].mean()
    ends = values.get(0.0, np.nan), values.get(1.0, np.nan)
    falls = ends[0] - values.iloc[0], ends[1] - values.iloc[-1]
    return float(np.min(falls) / (np.mean(ends) - chance))
