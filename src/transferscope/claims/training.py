"""Claims on learning curves (appendix B.1)."""

from __future__ import annotations

from collections.abc import Iterator

from transferscope.claims.comparisons import Comparison, compare
from transferscope.claims.evidence import Evidence
from transferscope.claims.registry import BETWEEN_RUNS, claim


@claim(
    "P-T ends with a better test metric than RI-T.",
    source="Section B.1, Figure 2",
    paper=(
        "CheXpert AUC .735 | .70",
        "real 78.4 % | 61.5 %",
        "clipart 74.3 % | 57.9 %",
        "quickdraw 67 % | 64 % (at the best learning rates, read off the figure)",
    ),
    compares=f"final test accuracy (AUC where multi-label), {BETWEEN_RUNS}",
    unit="score",
    sides=("P-T", "RI-T"),
    needs="fine-tuned runs and runs from scratch on one task",
    section="figure_2",
)
def final_score(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        sides = evidence.scores(task, "fine_tuned"), evidence.scores(task, "from_scratch")
        yield from compare(task, *sides, metric=evidence.metric(task))


@claim(
    "P-T learns faster than RI-T.",
    source="Section B.1, Figure 2",
    paper=("on all four data sets (a curve, no number)",),
    compares=f"train accuracy (AUC where multi-label) averaged over the measured epochs, {BETWEEN_RUNS}",
    unit="score",
    sides=("P-T", "RI-T"),
    needs="fine-tuned runs and runs from scratch on one task",
    section="figure_2",
)
def speed(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        first, second = (evidence.scores(task, role, lambda run: run.speed) for role in ("fine_tuned", "from_scratch"))
        yield from compare(task, first, second, metric=evidence.metric(task))


@claim(
    "P-T prefers the smaller learning rate.",
    source="Section B.1, Figure 2",
    paper=(
        "lr .02 | .1: real 78.4 % | 76 %",
        "clipart 74.3 % | 73 %",
        "quickdraw 67 % | 54 %",
        "CheXpert: .1 fails",
    ),
    compares="final test metric, every P-T at its smallest learning rate against every one at its largest",
    unit="score",
    sides=("small", "large"),
    needs="fine-tuned runs at two learning rates on one task",
    section="figure_2",
)
def pt_small_lr(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        by_lr = list(evidence.scores_by_lr(task, "fine_tuned").values())
        if len(by_lr) > 1:
            yield from compare(task, by_lr[0], by_lr[-1], metric=evidence.metric(task))


@claim(
    "RI-T prefers the larger learning rate.",
    source="Section B.1, Figure 2",
    paper=(
        "lr .1 | .02: real 61.5 % | 48.5 %",
        "clipart 57.9 % | 38 %",
        "quickdraw 64 % | 56.5 %",
        "CheXpert: alike, .1 is faster",
    ),
    compares="final test metric, every RI-T at its largest learning rate against every one at its smallest",
    unit="score",
    sides=("large", "small"),
    needs="runs from scratch at two learning rates on one task",
    section="figure_2",
)
def rit_large_lr(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        by_lr = list(evidence.scores_by_lr(task, "from_scratch").values())
        if len(by_lr) > 1:
            yield from compare(task, by_lr[-1], by_lr[0], metric=evidence.metric(task))
