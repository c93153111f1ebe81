"""Claims on barriers and basins of the loss landscape (appendix B.4 to B.8)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
import pandas as pd

from transferscope.analysis.barriers import higher_is_better, learned_by
from transferscope.claims.comparisons import Comparison, Measured, Unit, against, compare, left_out
from transferscope.claims.evidence import CROSS_DOMAIN, Evidence
from transferscope.claims.pair_rows import PairRows
from transferscope.claims.registry import BETWEEN_PAIRS, claim
from transferscope.claims.run_facts import main_metric
from transferscope.experiment.names import CheckpointName, PairName, RunName
from transferscope.experiment.options import BARRIER_MARGIN
from transferscope.experiment.run import Role

MARGIN = BARRIER_MARGIN
"""The margin of claims that there is a barrier, or none.

Learned is what the mean of the ends is above chance, in accuracy or AUC, and below the loss of a model that knows the
frequencies of the classes alone: one margin for metrics whose levels without knowledge are 10 % of accuracy, .5 of AUC
and ln 10 of loss. A twentieth is about what two replicas of a run differ in, and 3.9 points where the paper's P-T reach
78.4 %, while its RI-T fall to chance.
"""

_HEIGHT = "largest fall below the chord of the ends, test set, as a part of what the ends are above chance"
_RISE = "largest rise above the chord of the ends, as a part of what the loss of the ends is below that of guessing"
_NO_BARRIER = f"{_HEIGHT}; claimed: below {MARGIN:.0%}"
_BARRIER = f"{_HEIGHT}; claimed: above {MARGIN:.0%}"


@claim(
    "There is no barrier in accuracy or AUC between two P-T.",
    source="Section B.4, Figures 12 and 14",
    paper=("flat", "real rises from 78.4 % to 79.3 % in the middle"),
    compares=_NO_BARRIER,
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
    compares=f"{_RISE}, train set; claimed: below {MARGIN:.0%}",
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
    compares=_BARRIER,
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
    compares=f"{_RISE}, train set; claimed: above {MARGIN:.0%}",
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
    compares=_BARRIER,
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
    compares=_BARRIER,
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
    compares=f"{_HEIGHT}, {BETWEEN_PAIRS}; positive: smaller with the same initialisation",
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


@claim(
    "P-T of different domains lie in one basin: there is no barrier in accuracy between them.",
    source="Section B.7, Figures 19 to 23",
    paper=("no barrier on any of five figures",),
    compares=f"{_NO_BARRIER}; mean over the domains evaluated on",
    unit="share",
    sides=("barrier",),
    needs="cross-domain interpolation of fine-tuned runs",
    place="pair of domains",
    section="figures_19_23",
)
def cross_domain_basin(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "fine_tuned", unions=False, above=False)


@claim(
    "There is no barrier in the loss between P-T of different domains.",
    source="Section B.7, Figures 19 to 23",
    paper=("no barrier on any of five figures (curves, no number)",),
    compares=f"{_RISE}, test set, mean over the domains evaluated on; claimed: below {MARGIN:.0%}",
    unit="share",
    sides=("barrier",),
    needs="cross-domain interpolation of fine-tuned runs",
    place="pair of domains",
    section="figures_19_23",
)
def cross_domain_basin_loss(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "fine_tuned", unions=False, above=False, metric="loss")


@claim(
    "P-T of all domains lie in one basin at once.",
    source="Section B.7, Figures 19 to 23",
    paper=("one shared basin (five figures)",),
    compares=f"{_HEIGHT}, the largest on the lines between one P-T of each domain; claimed: below {MARGIN:.0%}",
    unit="share",
    sides=("largest barrier",),
    needs="cross-domain interpolation of fine-tuned runs between each two of three domains",
    place="set of domains",
    section="figures_19_23",
)
def one_basin(evidence: Evidence) -> Iterator[Comparison]:
    lines: dict[frozenset[RunName], tuple[float, float]] = {}
    gone: dict[str, str] = {}
    for _, barrier in _scenarios(evidence, "fine_tuned", unions=False):
        gone |= barrier.left_out
        for unit, height in barrier.values.items():
            if np.isfinite(height):
                lines[frozenset(unit.runs)] = height, barrier.errors.get(unit, np.nan)
            else:
                gone[str(unit)] = "no finite value"
    runs: dict[str, set[RunName]] = {}
    for run in sorted(set().union(*lines)):
        runs.setdefault(run.task, set()).add(run)
    place = ", ".join(runs)
    for chosen in product(*map(sorted, runs.values())) if len(runs) > 2 else ():
        sides = [frozenset(pair) for pair in combinations(chosen, 2)]
        if all(side in lines for side in sides):
            height, error = max(lines[side] for side in sides)
            names = " & ".join(map(str, chosen))
            region = (-np.inf, MARGIN)
            yield Comparison(place, names, height, effect=height, region=region, runs=frozenset(chosen), error=error)
    yield from left_out(CROSS_DOMAIN, gone)


@claim(
    "Half-way between P-T of different domains the metric is above the mean of the ends.",
    source="Section B.7, Figures 19 to 23",
    paper=("a boost in the middle on all of them (curves, no number)",),
    compares="test accuracy at alpha 1/2 minus the mean of the ends, mean over the domains evaluated on; claimed: "
    "above 0",
    unit="points",
    sides=("gain",),
    needs="cross-domain interpolation of fine-tuned runs",
    place="pair of domains",
    section="figures_19_23",
)
def cross_domain_gain(evidence: Evidence) -> Iterator[Comparison]:
    for place, gain in _scenarios(evidence, "fine_tuned", unions=False, column="midpoint_gain"):
        yield from against(place, gain, 0.0, above=True)


@claim(
    "RI-T of different domains are separated by a barrier.",
    source="Section B.7, Figures 19 to 23",
    paper=("a barrier on all five figures",),
    compares=f"{_BARRIER}; mean over the domains evaluated on",
    unit="share",
    sides=("barrier",),
    needs="cross-domain interpolation of runs from scratch",
    place="pair of domains",
    section="figures_19_23",
)
def cross_domain_rit(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "from_scratch", unions=False, above=True)


@claim(
    "P-T outperforms RI-T also on a domain that neither was trained on.",
    source="Section B.7, Figures 19 to 23",
    paper=("consistently (ends of the curves, no number)",),
    compares="test accuracy on the other domain, P-T against RI-T trained on the same one",
    unit="share",
    sides=("P-T", "RI-T"),
    needs="cross-domain interpolation of fine-tuned runs and of runs from scratch",
    place="pair of domains",
    section="figures_19_23",
)
def other_domain(evidence: Evidence) -> Iterator[Comparison]:
    for (trained, on), of_runs in _on_other_domains(evidence).items():
        sides = evidence.by_role(trained, of_runs, "fine_tuned", "from_scratch")
        yield from compare(f"{trained} on {on}", *sides)


@claim(
    "P-T is better than chance on a domain that it was not trained on.",
    source="Section B.7, Figures 19 to 23",
    paper=("non-trivial accuracy (ends of the curves, no number)",),
    compares="test accuracy on the other domain minus that of guessing, every P-T; claimed: above 0",
    unit="share",
    sides=("above chance",),
    needs="cross-domain interpolation of fine-tuned runs",
    place="pair of domains",
    section="figures_19_23",
    limits=(-1.0, 1.0),
)
def other_domain_chance(evidence: Evidence) -> Iterator[Comparison]:
    for (trained, on), of_runs in _on_other_domains(evidence).items():
        above = {run: score - evidence.chance(on) for run, score in of_runs.items()}
        yield from against(f"{trained} on {on}", evidence.by_run(trained, "fine_tuned", above), 0.0, above=True)


@claim(
    "P-T of a union of domains and of one domain lie in one basin.",
    source="Section B.8, Figures 24 to 29",
    paper=("no barrier on any of six figures",),
    compares=f"{_NO_BARRIER}; mean over the domains evaluated on",
    unit="share",
    sides=("barrier",),
    needs="interpolation between fine-tuned runs of a union and of a domain",
    place="pair of domains",
    section="figures_24_29",
)
def union_basin(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "fine_tuned", unions=True, above=False)


@claim(
    "RI-T of a union and of one domain are separated by a barrier.",
    source="Section B.8, Figures 24 to 29",
    paper=("a barrier on all six figures",),
    compares=f"{_BARRIER}; mean over the domains evaluated on",
    unit="share",
    sides=("barrier",),
    needs="interpolation between runs from scratch of a union and of a domain",
    place="pair of domains",
    section="figures_24_29",
)
def union_rit(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "from_scratch", unions=True, above=True)


def _in_tasks(
    evidence: Evidence, first: Role, second: Role, *, above: bool, split: str = "test", metric: str | None = None
) -> Iterator[Comparison]:
    """Barriers of the pairs of each task against the margin."""
    for task in evidence.compared_tasks:
        heights = _heights(evidence, task, first, second, split=split, metric=metric)
        yield from against(task, heights, MARGIN, above=above, metric=metric or "accuracy")


def _across(
    evidence: Evidence, role: Role, *, unions: bool, above: bool, metric: str | None = None
) -> Iterator[Comparison]:
    """Barriers of the lines between tasks against the margin."""
    for place, barrier in _scenarios(evidence, role, unions=unions, metric=metric):
        yield from against(place, barrier, MARGIN, above=above, metric=metric or "accuracy")


def _on_other_domains(evidence: Evidence) -> dict[tuple[str, str], dict[RunName, float]]:
    """Test accuracy of each run on tasks that it was not trained on, by the two tasks."""
    table = evidence.table(CROSS_DOMAIN, "interpolation")
    rows = table[(table["split"] == "test") & (table["metric"] == "accuracy")] if len(table) else table
    scores: dict[tuple[str, str], dict[RunName, float]] = {}
    for alpha, side in ((0.0, "checkpoint_a"), (1.0, "checkpoint_b")):
        for row in rows[np.isclose(rows["alpha"], alpha)].to_dict("records") if len(rows) else ():
            run = CheckpointName.parse(row[side]).run_name
            if run.task != row["task"] and run.task not in evidence.unions:
                scores.setdefault((run.task, str(row["task"])), {})[run] = float(row["value"])
    return scores


def _heights(
    evidence: Evidence, task: str, first: Role, second: Role, *, split: str = "test", metric: str | None = None
) -> Measured:
    """Barrier of every pair as a part of what its ends have learned, in the main metric where none is named."""
    pairs = _barriers(evidence, task, evidence.pairs(task, "barriers", first, second), split, metric)
    return _relative(pairs)


def _relative(pairs: PairRows, column: str = "barrier") -> Measured:
    """Means over the rows of each pair of a column, `barrier` as a part of what the ends have learned."""
    if pairs.rows.empty:
        return pairs.mean(lambda rows: rows[column])
    scale = pairs.rows["learned"].where(pairs.rows["learned"] > 0) if column == "barrier" else 1.0
    low, high = ("barrier_low", "barrier_high") if column == "barrier" else ("gain_low", "gain_high")
    return pairs.mean_with_error(lambda rows: rows[column] / scale, low, high, scale)


def _barriers(evidence: Evidence, scope: str, pairs: PairRows, split: str, metric: str | None) -> PairRows:
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


def _scenarios(
    evidence: Evidence, role: Role, *, unions: bool, column: str = "barrier", metric: str | None = None
) -> Iterator[tuple[str, Measured]]:
    """Place and numbers of every line between two runs of a role that belong to different tasks.

    A line that is evaluated on several domains is one, with the mean of its numbers. unions: whether one takes part.
    """
    pairs = _barriers(evidence, CROSS_DOMAIN, evidence.pairs(CROSS_DOMAIN, "barriers", role, role), "test", metric)
    if pairs.rows.empty:
        yield CROSS_DOMAIN, Measured({}, pairs.left_out)
        return
    ends = pairs.rows[["checkpoint_a", "checkpoint_b"]].apply(lambda row: " & ".join(sorted(row)), axis=1)
    for line, rows in pairs.rows.assign(pair=ends).groupby("pair", sort=False):
        name = PairName.parse(str(line))
        if bool({run.task for run in name.runs} & evidence.unions) == unions:
            place = " & ".join(run.task for run in name.runs)
            yield place, _relative(PairRows(rows, pairs.left_out), column)


def tasks_of(rows: pd.DataFrame) -> set[str]:
    """Tasks of the runs in a table of pairs."""
    return {
        CheckpointName.parse(text).task for side in ("checkpoint_a", "checkpoint_b") for text in rows[side].unique()
    }


def scenario_name(scenario: object, rows: pd.DataFrame) -> str:
    """`Figure 19 (clipart → real, on clipart)`."""
    ends = " → ".join(CheckpointName.parse(rows[side].iloc[0]).task for side in ("checkpoint_a", "checkpoint_b"))
    return f"{str(scenario).replace('_', ' ').capitalize()} ({ends}, on {rows['task'].iloc[0]})"


def _smaller_fall(curve: pd.DataFrame, chance: float) -> float:
    """Fall from each end to the last point beyond it, the smaller of both, as a part of the ends above chance."""
    values = curve.groupby(curve["alpha"].round(6))["value"].mean()
    ends = values.get(0.0, np.nan), values.get(1.0, np.nan)
    falls = ends[0] - values.iloc[0], ends[1] - values.iloc[-1]
    return float(np.min(falls) / (np.mean(ends) - chance))
