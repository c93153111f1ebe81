"""Claims on what remains of barriers modulo permutation and scale (beyond the paper)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pandas as pd

from transferscope.claims.comparisons import Comparison, Measured, Unit, against, compare
from transferscope.claims.evidence import Evidence, PairRows, main_metric
from transferscope.claims.registry import BETWEEN_PAIRS, claim
from transferscope.experiment.names import CheckpointName, PairName
from transferscope.experiment.options import ModelOptions
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
