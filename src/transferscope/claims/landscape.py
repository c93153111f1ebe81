"""Claims on barriers and basins of the loss landscape (appendix B.4 to B.8)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from transferscope.claims.comparisons import Comparison, Measured, Unit, against, compare
from transferscope.claims.evidence import CROSS_DOMAIN, Evidence, PairRows, main_metric
from transferscope.claims.registry import BETWEEN_PAIRS, claim
from transferscope.experiment.names import CheckpointName, PairName, RunName
from transferscope.experiment.plan import Role

NO_BARRIER = 0.02
"""A curve that falls less than this below the chord of its ends, in accuracy or AUC, has no barrier."""
BARRIER = 0.05
"""A curve that falls more than this below the chord has one; what lies between is neither."""
OUTSIDE_DROP = 0.02
"""A pair is at the basin's boundary if the metric falls by more than this one whole step beyond each end."""

_NO_BARRIER = (
    "largest fall below the chord of the ends, test set, the estimate without its interval; "
    f"claimed: below {100 * NO_BARRIER:.0f} points"
)
_BARRIER = f"largest fall below the chord of the ends, test set; claimed: above {100 * BARRIER:.0f} points"


@claim(
    "There is no barrier between two P-T.",
    source="Section B.4, Figures 12 and 14",
    paper=("flat", "real rises from 78.4 % to 79.3 % in the middle"),
    compares=_NO_BARRIER,
    unit="points",
    sides=("barrier",),
    needs="interpolation of pairs of two fine-tuned runs",
    section="figures_12_17",
)
def no_barrier_pt(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        yield from against(task, _heights(evidence, task, "fine_tuned", "fine_tuned"), NO_BARRIER, above=False)


@claim(
    "There is a barrier between two RI-T of different initialisation.",
    source="Section B.4, Figures 12 and 14",
    paper=("accuracy falls to about 0 % on DomainNet, AUC to .52 on CheXpert",),
    compares=_BARRIER,
    unit="points",
    sides=("barrier",),
    needs="interpolation of pairs of two runs from scratch",
    section="figures_12_17",
)
def barrier_rit(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        yield from against(task, _heights(evidence, task, "from_scratch", "from_scratch"), BARRIER, above=True)


@claim(
    "There is a barrier between a P-T and an RI-T.",
    source="Section B.4, Figures 12 and 14",
    paper=("AUC below .45 on CheXpert (best weights)",),
    compares=_BARRIER,
    unit="points",
    sides=("barrier",),
    needs="interpolation of pairs of a fine-tuned run and one from scratch",
    section="figures_12_17",
)
def barrier_mixed(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        yield from against(task, _heights(evidence, task, "fine_tuned", "from_scratch"), BARRIER, above=True)


@claim(
    "The barrier between two RI-T persists where they share their initialisation.",
    source="Section B.5, Figure 16",
    paper=("lowest accuracy real 6.5 %, clipart 5.5 %, quickdraw 16 %",),
    compares=_BARRIER,
    unit="points",
    sides=("barrier",),
    needs="interpolation of pairs of runs from scratch that share their initial weights",
    section="figures_12_17",
)
def barrier_same_init(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        yield from against(task, _heights(evidence, task, "from_scratch", "shared_init"), BARRIER, above=True)


@claim(
    "That barrier is smaller than with different initialisations.",
    source="Section B.5, Figures 12 and 16",
    paper=("slightly: the lowest accuracy is 5.5 to 16 % instead of about 0 %",),
    compares=f"barrier, {BETWEEN_PAIRS}; positive: smaller with the same initialisation",
    unit="points",
    sides=("same", "different"),
    needs="interpolation of pairs of runs from scratch, with the same and with different initial weights",
    section="figures_12_17",
)
def same_init_smaller(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        same, different = (_heights(evidence, task, "from_scratch", role) for role in ("shared_init", "from_scratch"))
        yield from compare(task, same, different, larger=False)


@claim(
    "Two P-T lie close to the boundary of their basin: beyond them the metric falls.",
    source="Section B.6, Figure 18",
    paper=("the metric falls on both sides of [0, 1] (a curve, no number)",),
    compares="fall of the test metric from an end to the end of the extrapolation, the smaller of both sides; "
    f"claimed: above {100 * OUTSIDE_DROP:.0f} points",
    unit="points",
    sides=("fall",),
    needs="extrapolation of pairs of two fine-tuned runs",
    section="figure_18",
)
def extrapolation(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        pairs = evidence.pairs(task, "interpolation", "fine_tuned", "fine_tuned").where("split", "test")
        rows = pairs.rows
        beyond = len(rows) > 0 and rows["alpha"].min() < 0 and rows["alpha"].max() > 1
        metric = main_metric(rows)
        curves = rows[rows["metric"] == metric].groupby("pair", sort=False) if beyond else ()
        falls: dict[Unit, float] = {PairName.parse(str(pair)): _smaller_fall(curve) for pair, curve in curves}
        yield from against(task, Measured(falls, pairs.left_out), OUTSIDE_DROP, above=True, metric=metric)


@claim(
    "P-T of different domains lie in one basin: no barrier between them.",
    source="Section B.7, Figures 19 to 23",
    paper=("no barrier on any of five figures",),
    compares=f"{_NO_BARRIER}, of the domain evaluated on",
    unit="points",
    sides=("barrier",),
    needs="cross-domain interpolation of fine-tuned runs",
    place="scenario",
    section="figures_19_23",
)
def cross_domain_basin(evidence: Evidence) -> Iterator[Comparison]:
    for place, barrier in _scenarios(evidence, "fine_tuned", unions=False):
        yield from against(place, barrier, NO_BARRIER, above=False)


@claim(
    "Half-way between P-T of different domains the metric is above the mean of the ends.",
    source="Section B.7, Figures 19 to 23",
    paper=("a boost in the middle on all of them (curves, no number)",),
    compares="test accuracy at alpha 1/2 minus the mean of the ends; claimed: above 0",
    unit="points",
    sides=("gain",),
    needs="cross-domain interpolation of fine-tuned runs",
    place="scenario",
    section="figures_19_23",
)
def cross_domain_gain(evidence: Evidence) -> Iterator[Comparison]:
    for place, gain in _scenarios(evidence, "fine_tuned", unions=False, column="midpoint_gain"):
        yield from against(place, gain, 0.0, above=True)


@claim(
    "RI-T of different domains are separated by a barrier.",
    source="Section B.7, Figures 19 to 23",
    paper=("a barrier on all five figures",),
    compares=f"{_BARRIER}, of the domain evaluated on",
    unit="points",
    sides=("barrier",),
    needs="cross-domain interpolation of runs from scratch",
    place="scenario",
    section="figures_19_23",
)
def cross_domain_rit(evidence: Evidence) -> Iterator[Comparison]:
    for place, barrier in _scenarios(evidence, "from_scratch", unions=False):
        yield from against(place, barrier, BARRIER, above=True)


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
    table = evidence.table(CROSS_DOMAIN, "interpolation")
    rows = table[(table["split"] == "test") & (table["metric"] == "accuracy")] if len(table) else table
    scores: dict[tuple[str, str], dict[RunName, float]] = {}
    for alpha, side in ((0.0, "checkpoint_a"), (1.0, "checkpoint_b")):
        for row in rows[np.isclose(rows["alpha"], alpha)].to_dict("records") if len(rows) else ():
            run = CheckpointName.parse(row[side]).run_name
            if run.task != row["task"] and run.task not in evidence.unions:
                scores.setdefault((run.task, str(row["task"])), {})[run] = float(row["value"])
    for (trained, on), of_runs in scores.items():
        sides = (evidence.by_run(trained, role, of_runs) for role in ("fine_tuned", "from_scratch"))
        yield from compare(f"{trained} on {on}", *sides)


@claim(
    "P-T of a union of domains and of one domain lie in one basin.",
    source="Section B.8, Figures 24 to 29",
    paper=("no barrier on any of six figures",),
    compares=f"{_NO_BARRIER}, of the domain evaluated on",
    unit="points",
    sides=("barrier",),
    needs="interpolation between fine-tuned runs of a union and of a domain",
    place="scenario",
    section="figures_24_29",
)
def union_basin(evidence: Evidence) -> Iterator[Comparison]:
    for place, barrier in _scenarios(evidence, "fine_tuned", unions=True):
        yield from against(place, barrier, NO_BARRIER, above=False)


@claim(
    "RI-T of a union and of one domain are separated by a barrier.",
    source="Section B.8, Figures 24 to 29",
    paper=("a barrier on all six figures",),
    compares=f"{_BARRIER}, of the domain evaluated on",
    unit="points",
    sides=("barrier",),
    needs="interpolation between runs from scratch of a union and of a domain",
    place="scenario",
    section="figures_24_29",
)
def union_rit(evidence: Evidence) -> Iterator[Comparison]:
    for place, barrier in _scenarios(evidence, "from_scratch", unions=True):
        yield from against(place, barrier, BARRIER, above=True)


def _heights(evidence: Evidence, task: str, first: Role, second: Role) -> Measured:
    """Barrier of every pair on the test set in the main metric."""
    return _barriers(evidence.pairs(task, "barriers", first, second)).mean(lambda rows: rows["barrier"])


def _barriers(pairs: PairRows) -> PairRows:
    """A row per pair and scenario: test set, main metric, the grid of alphas on which the barrier is larger."""
    if pairs.rows.empty:
        return pairs
    rows = pairs.rows[pairs.rows["split"] == "test"]
    rows = rows[rows["metric"] == main_metric(rows)].sort_values("barrier", ascending=False, kind="stable")
    keys = [key for key in ("scenario", "task", "pair") if key in rows.columns]
    return PairRows(rows.drop_duplicates(keys).sort_index(), pairs.left_out)


def _scenarios(
    evidence: Evidence, role: Role, *, unions: bool, column: str = "barrier"
) -> Iterator[tuple[str, Measured]]:
    """Place and numbers of every cross-domain scenario between two runs of a role, with or without a union."""
    pairs = _barriers(evidence.pairs(CROSS_DOMAIN, "barriers", role, role))
    if pairs.rows.empty:
        yield CROSS_DOMAIN, Measured({}, pairs.left_out)
    for scenario, rows in pairs.rows.groupby("scenario", sort=False) if len(pairs.rows) else ():
        if bool(tasks_of(rows) & evidence.unions) == unions:
            yield scenario_name(scenario, rows), PairRows(rows, pairs.left_out).mean(lambda rows: rows[column])


def tasks_of(rows: pd.DataFrame) -> set[str]:
    """Tasks of the runs in a table of pairs."""
    return {
        CheckpointName.parse(text).task for side in ("checkpoint_a", "checkpoint_b") for text in rows[side].unique()
    }


def scenario_name(scenario: object, rows: pd.DataFrame) -> str:
    """`Figure 19 (clipart → real, on clipart)`."""
    ends = " → ".join(CheckpointName.parse(rows[side].iloc[0]).task for side in ("checkpoint_a", "checkpoint_b"))
    return f"{str(scenario).replace('_', ' ').capitalize()} ({ends}, on {rows['task'].iloc[0]})"


def _smaller_fall(curve: pd.DataFrame) -> float:
    """Fall of the metric from each end to the last point beyond it, the smaller of both."""
    values = curve.groupby(curve["alpha"].round(6))["value"].mean()
    return float(np.min([values.get(0.0, np.nan) - values.iloc[0], values.get(1.0, np.nan) - values.iloc[-1]]))
