"""Claims on basins between tasks, of several domains and of their unions (appendix B.7 and B.8)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import TypedDict

import numpy as np
import pandas as pd

from transferscope.claims.comparisons import Comparison, Measured, against, compare, left_out
from transferscope.claims.evidence import CROSS_DOMAIN, Evidence
from transferscope.claims.landscape import BARRIER, HEIGHT, MARGIN, NO_BARRIER, RISE, barrier_rows, relative
from transferscope.claims.pair_rows import PairRows
from transferscope.claims.registry import Place, claim
from transferscope.experiment.names import CheckpointName, PairName, RunName
from transferscope.experiment.run import Role


class Shown(TypedDict):
    """The source of a claim, the kind of place of its comparisons, and the report's section that shows more."""

    source: str
    place: Place
    section: str


DOMAINS: Shown = {
    "source": "Section B.7, Figures 19 to 23",
    "place": "pair of domains",
    "section": "figures_19_23",
}
ALL_DOMAINS: Shown = {**DOMAINS, "place": "set of domains"}
UNIONS: Shown = {
    "source": "Section B.8, Figures 24 to 29",
    "place": "pair of domains",
    "section": "figures_24_29",
}
MEAN = "mean over the domains evaluated on"


@claim(
    "P-T of different domains lie in one basin: there is no barrier in accuracy between them.",
    paper=("no barrier on any of five figures",),
    compares=f"{NO_BARRIER}; {MEAN}",
    unit="share",
    sides=("barrier",),
    needs="cross-domain interpolation of fine-tuned runs",
    **DOMAINS,
)
def cross_domain_basin(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "fine_tuned", unions=False, above=False)


@claim(
    "There is no barrier in the loss between P-T of different domains.",
    paper=("no barrier on any of five figures (curves, no number)",),
    compares=f"{RISE}, test set, {MEAN}; claimed: below {MARGIN:.0%}",
    unit="share",
    sides=("barrier",),
    needs="cross-domain interpolation of fine-tuned runs",
    **DOMAINS,
)
def cross_domain_basin_loss(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "fine_tuned", unions=False, above=False, metric="loss")


@claim(
    "P-T of all domains lie in one basin at once: there is no barrier in accuracy between them.",
    paper=("one shared basin (five figures)",),
    compares=f"{HEIGHT}, the largest on the lines between one P-T of each domain; claimed: below {MARGIN:.0%}",
    unit="share",
    sides=("largest barrier",),
    needs="cross-domain interpolation of fine-tuned runs between each two of three domains",
    **ALL_DOMAINS,
)
def one_basin(evidence: Evidence) -> Iterator[Comparison]:
    return _at_once(evidence)


@claim(
    "There is no barrier in the loss between P-T of all domains at once.",
    paper=("one shared basin (five figures; curves, no number)",),
    compares=f"{RISE}, test set, the largest on the lines between one P-T of each domain; claimed: below {MARGIN:.0%}",
    unit="share",
    sides=("largest barrier",),
    needs="cross-domain interpolation of fine-tuned runs between each two of three domains",
    **ALL_DOMAINS,
)
def one_basin_loss(evidence: Evidence) -> Iterator[Comparison]:
    return _at_once(evidence, "loss")


def _at_once(evidence: Evidence, metric: str | None = None) -> Iterator[Comparison]:
    """The largest barrier on the lines between one P-T of each domain, of three domains or more."""
    lines: dict[frozenset[RunName], tuple[float, float]] = {}
    gone: dict[str, str] = {}
    for _, barrier in _scenarios(evidence, "fine_tuned", unions=False, metric=metric):
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
    paper=("a boost in the middle on all of them (curves, no number)",),
    compares=f"test accuracy at alpha 1/2 minus the mean of the ends, {MEAN}; claimed: above 0",
    unit="points",
    sides=("gain",),
    needs="cross-domain interpolation of fine-tuned runs",
    **DOMAINS,
)
def cross_domain_gain(evidence: Evidence) -> Iterator[Comparison]:
    for place, gain in _scenarios(evidence, "fine_tuned", unions=False, column="midpoint_gain"):
        yield from against(place, gain, 0.0, above=True)


@claim(
    "RI-T of different domains are separated by a barrier.",
    paper=("a barrier on all five figures",),
    compares=f"{BARRIER}; {MEAN}",
    unit="share",
    sides=("barrier",),
    needs="cross-domain interpolation of runs from scratch",
    **DOMAINS,
)
def cross_domain_rit(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "from_scratch", unions=False, above=True)


@claim(
    "P-T outperforms RI-T also on a domain that neither was trained on.",
    paper=("consistently (ends of the curves, no number)",),
    compares="test accuracy on the other domain, P-T against RI-T trained on the same one",
    unit="share",
    sides=("P-T", "RI-T"),
    needs="cross-domain interpolation of fine-tuned runs and of runs from scratch",
    **DOMAINS,
)
def other_domain(evidence: Evidence) -> Iterator[Comparison]:
    for (trained, on), of_runs in _on_other_domains(evidence).items():
        sides = evidence.by_role(trained, of_runs, "fine_tuned", "from_scratch")
        yield from compare(f"{trained} on {on}", *sides)


@claim(
    "P-T is better than chance on a domain that it was not trained on.",
    paper=("non-trivial accuracy (ends of the curves, no number)",),
    compares="test accuracy on the other domain minus that of guessing, every P-T; claimed: above 0",
    unit="share",
    sides=("above chance",),
    needs="cross-domain interpolation of fine-tuned runs",
    **DOMAINS,
    limits=(-1.0, 1.0),
)
def other_domain_chance(evidence: Evidence) -> Iterator[Comparison]:
    for (trained, on), of_runs in _on_other_domains(evidence).items():
        above = {run: score - evidence.chance(on) for run, score in of_runs.items()}
        yield from against(f"{trained} on {on}", evidence.by_run(trained, "fine_tuned", above), 0.0, above=True)


@claim(
    "P-T of a union of domains and of one domain lie in one basin: there is no barrier in accuracy between them.",
    paper=("no barrier on any of six figures",),
    compares=f"{NO_BARRIER}; {MEAN}",
    unit="share",
    sides=("barrier",),
    needs="interpolation between fine-tuned runs of a union and of a domain",
    **UNIONS,
)
def union_basin(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "fine_tuned", unions=True, above=False)


@claim(
    "There is no barrier in the loss between P-T of a union of domains and of one domain.",
    paper=("no barrier on any of six figures (curves, no number)",),
    compares=f"{RISE}, test set, {MEAN}; claimed: below {MARGIN:.0%}",
    unit="share",
    sides=("barrier",),
    needs="interpolation between fine-tuned runs of a union and of a domain",
    **UNIONS,
)
def union_basin_loss(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "fine_tuned", unions=True, above=False, metric="loss")


@claim(
    "RI-T of a union and of one domain are separated by a barrier.",
    paper=("a barrier on all six figures",),
    compares=f"{BARRIER}; {MEAN}",
    unit="share",
    sides=("barrier",),
    needs="interpolation between runs from scratch of a union and of a domain",
    **UNIONS,
)
def union_rit(evidence: Evidence) -> Iterator[Comparison]:
    return _across(evidence, "from_scratch", unions=True, above=True)


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


def _scenarios(
    evidence: Evidence, role: Role, *, unions: bool, column: str = "barrier", metric: str | None = None
) -> Iterator[tuple[str, Measured]]:
    """Place and numbers of every line between two runs of a role that belong to different tasks.

    A line that is evaluated on several domains is one, with the mean of its numbers. unions: whether one takes part.
    """
    pairs = barrier_rows(evidence, CROSS_DOMAIN, evidence.pairs(CROSS_DOMAIN, "barriers", role, role), "test", metric)
    if pairs.rows.empty:
        yield CROSS_DOMAIN, Measured({}, pairs.left_out)
        return
    ends = pairs.rows[["checkpoint_a", "checkpoint_b"]].apply(lambda row: " & ".join(sorted(row)), axis=1)
    for line, rows in pairs.rows.assign(pair=ends).groupby("pair", sort=False):
        name = PairName.parse(str(line))
        if bool({run.task for run in name.runs} & evidence.unions) == unions:
            place = " & ".join(run.task for run in name.runs)
            yield place, relative(PairRows(rows, pairs.left_out), column)


def tasks_of(rows: pd.DataFrame) -> set[str]:
    """Tasks of the runs in a table of pairs."""
    return {
        CheckpointName.parse(text).task for side in ("checkpoint_a", "checkpoint_b") for text in rows[side].unique()
    }


def scenario_name(scenario: object, rows: pd.DataFrame) -> str:
    """`Figure 19 (clipart → real, on clipart)`."""
    ends = " → ".join(CheckpointName.parse(rows[side].iloc[0]).task for side in ("checkpoint_a", "checkpoint_b"))
    return f"{str(scenario).replace('_', ' ').capitalize()} ({ends}, on {rows['task'].iloc[0]})"
