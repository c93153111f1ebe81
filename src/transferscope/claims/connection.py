"""Claims on what remains of barriers modulo permutation and scale (beyond the paper)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pandas as pd

from transferscope.claims.comparisons import Comparison, Measured, Unit, against, compare, paired
from transferscope.claims.evidence import Evidence
from transferscope.claims.pair_rows import NORMAL_975, PairRows
from transferscope.claims.registry import BETWEEN_PAIRS, claim
from transferscope.claims.run_facts import main_metric
from transferscope.experiment.names import CheckpointName, PairName
from transferscope.experiment.options import ModelOptions
from transferscope.experiment.run import Role
from transferscope.models.fixup_resnet import FIXUP_LAYOUTS

MOSTLY = 0.5
"""A way that leaves less than this part of the straight line's barrier takes most of it away."""
IN_PLACE = 0.01
"""Matching that moves less than this part of the channels has found the identity."""


@claim(
    "The barrier between two RI-T is mostly permutation and scale.",
    source="Ainsworth et al. 2022, Git Re-Basin (arXiv 2209.04836); Jordan et al. 2022, REPAIR (arXiv 2211.08403)",
    paper=("Fixup ResNet20 on CIFAR-10: 24.9 of about 80 points are left at width ×1, 5 at ×4",),
    compares="part of the straight line's barrier that is left once channels are matched and their variance corrected, "
    f"test set; claimed: below {MOSTLY:.0%}",
    unit="share",
    sides=("left",),
    needs="connection of pairs of two runs from scratch, with the way aligned_rescaled",
    section="connection",
)
def barrier_is_permutation(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        pairs = _way(evidence.pairs(task, "connection", "from_scratch", "from_scratch"), "aligned_rescaled")
        yield from against(
            task, pairs.mean_with_error(lambda rows: rows["left"], "left_low", "left_high"), MOSTLY, above=False
        )


@claim(
    "Two P-T need no permutation: their channels correspond as they are.",
    source="Section B.4 and Ainsworth et al. 2022, Git Re-Basin (arXiv 2209.04836)",
    paper=("P-T lie in one basin (no number on permutations)",),
    compares=f"part of the channels that weight matching moves; claimed: below {IN_PLACE:.0%}",
    unit="share",
    sides=("moved",),
    needs="connection of pairs of two fine-tuned runs, with the way aligned",
    section="connection",
)
def pt_in_place(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        pairs = _way(evidence.pairs(task, "connection", "fine_tuned", "fine_tuned"), "aligned")
        yield from against(task, pairs.mean(lambda rows: rows["moved"]), IN_PLACE, above=False)


@claim(
    "Between wider RI-T less of the barrier is left.",
    source="Jordan et al. 2022, REPAIR (arXiv 2211.08403), Fixup ResNet20 on CIFAR-10",
    paper=("24.9 points at ×1, 13.2 at ×2, 4.95 at ×4, 3.04 at ×8",),
    compares=f"barrier after matching and correction of variance, {BETWEEN_PAIRS}, a width against the next one; "
    "positive: smaller in the wider network",
    unit="points",
    sides=("narrow", "wide"),
    needs="connection of pairs of runs from scratch of several widths (conf/width), with the way aligned_rescaled",
    section="connection",
)
def width_shrinks(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        by_width = _by_width(evidence, task)
        for narrow, wide in pairwise(by_width):
            yield from compare(task, narrow, wide)


STABLE = 0.02
"""Copies whose barrier is smaller lie in one basin (2 points of error in Frankle et al. 2020)."""
_SPLITS = (
    "connection of runs from scratch and fine-tuned runs with copies of them that split before the first epoch "
    "(split_from, conf/split)"
)
_FRANKLE = "Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis (arXiv 1912.05671)"
_HEIGHT = "barrier on the straight line between a run and its copy, test set"


@claim(
    "The basin of a P-T is chosen before its first epoch.",
    source=f"Section B.4; {_FRANKLE}",
    paper=("P-T lie in one basin, whatever the order of their examples (curves, no number)",),
    compares=f"{_HEIGHT}, of copies that take the examples in another order from the first one on; claimed: below "
    f"{STABLE:.0%}",
    unit="points",
    sides=("barrier",),
    needs=_SPLITS,
    section="split_runs",
)
def pt_basin_at_start(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        yield from against(task, _at_split(evidence, task, "fine_tuned", first=True), STABLE, above=False)


@claim(
    "The basin of an RI-T is chosen later than that: not before its first epoch.",
    source=_FRANKLE,
    paper=("vision models become stable to the order of their examples early in training (abstract, no number)",),
    compares=f"{_HEIGHT}, of copies that take the examples in another order from the first one on; claimed: above "
    f"{STABLE:.0%}",
    unit="points",
    sides=("barrier",),
    needs=_SPLITS,
    section="split_runs",
)
def rit_basin_later(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        yield from against(task, _at_split(evidence, task, "from_scratch", first=True), STABLE, above=True)


@claim(
    "The later two copies of an RI-T split, the lower is the barrier between them.",
    source=_FRANKLE,
    paper=("vision models become stable to the order of their examples early in training (abstract, no number)",),
    compares=f"{_HEIGHT}, of copies that split before the first epoch against those that split last, of every run; "
    "positive: smaller after the last",
    unit="points",
    sides=("first", "last"),
    needs=f"{_SPLITS}, and later",
    section="split_runs",
)
def rit_splits_shrink(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        first, last = (_at_split(evidence, task, "from_scratch", first=first) for first in (True, False))
        yield from paired(task, first, last)


def _at_split(evidence: Evidence, task: str, role: Role, *, first: bool) -> Measured:
    """Barriers between runs of a role and their copies that split before the first epoch, or last, by run."""
    table = evidence.table(task, "split_runs")
    if table.empty:
        return Measured({})
    rows = table[(table["way"] == "straight") & (table["split"] == "test") & (table["metric"] == main_metric(table))]
    values: dict[Unit, float] = {}
    errors: dict[Unit, float] = {}
    left_out: dict[str, str] = {}
    for run, of_run in rows.groupby("run", sort=False):
        name = CheckpointName.parse(str(run)).run_name
        if evidence.spec(name).role != role:
            continue
        row = of_run.sort_values("split_epoch").iloc[0 if first else -1]
        failed = evidence.failures((name, CheckpointName.parse(str(row["copy"])).run_name))
        left_out |= failed
        if not failed and (row["split_epoch"] == 0) == first:
            values[name] = float(row["barrier"])
            errors[name] = float(row["barrier_high"] - row["barrier_low"]) / (2 * NORMAL_975)
    return Measured(values, left_out, errors=errors)


def _way(pairs: PairRows, way: str) -> PairRows:
    """A row per pair: the test set, the main metric, one way."""
    rows = pairs.rows
    if rows.empty:
        return pairs
    chosen = (rows["way"] == way) & (rows["split"] == "test") & (rows["metric"] == main_metric(rows))
    return PairRows(rows[chosen], pairs.left_out)


def _by_width(evidence: Evidence, task: str) -> list[Measured]:
    """Barriers that are left between runs from scratch of one width, the narrowest first; none for a single width."""
    table = evidence.table(task, "connection")
    if table.empty:
        return []
    rows = _way(PairRows(table), "aligned_rescaled").rows
    by_width: dict[tuple[int, ...], dict[Unit, float]] = {}
    left_out: dict[str, str] = {}
    for row in rows.to_dict("records"):
        names = [CheckpointName.parse(row[side]) for side in ("checkpoint_a", "checkpoint_b")]
        specs = [evidence.spec(name.run_name) for name in names]
        widths = [_widths(spec.model) for spec in specs]
        alike = widths[0] and widths[0] == widths[1] and {spec.role for spec in specs} == {"from_scratch"}
        failed = evidence.failures(name.run_name for name in names)
        left_out |= failed if alike else {}
        if alike and not failed and pd.notna(row["barrier"]):
            by_width.setdefault(widths[0], {})[PairName(*names)] = float(row["barrier"])
    if len(by_width) < 2:  # a single width has no wider one, but what failed is named
        return [Measured({}, left_out), Measured({})] if left_out else []
    return [Measured(by_width[width], left_out) for width in sorted(by_width)]


def _widths(model: ModelOptions) -> tuple[int, ...]:
    """Channels of the stages of a Fixup network; empty for others."""
    layout = FIXUP_LAYOUTS.get(model.name)
    return tuple(model.options.get("widths", layout.widths)) if layout else ()
