"""Claims on learning curves and final metrics (appendix B.1, B.2 and B.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from transferscope.claims.comparisons import Comparison, Measured, against, compare, left_out
from transferscope.claims.evidence import Evidence
from transferscope.claims.registry import BETWEEN_RUNS, claim
from transferscope.claims.run_facts import RunFacts

ALIKE = 0.05
"""Two final metrics are alike if they differ by less than this part of what the better one is above chance."""


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
    for task in evidence.compared_tasks:
        yield from compare(task, *_both(evidence, task, lambda run: run.score), metric=evidence.metric(task))
    yield from left_out("views", evidence.views)


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
    for task in evidence.compared_tasks:
        yield from compare(task, *_both(evidence, task, lambda run: run.speed), metric=evidence.metric(task))
    yield from left_out("views", evidence.views)


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
    for task in evidence.compared_tasks:
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
    for task in evidence.compared_tasks:
        by_lr = list(evidence.scores_by_lr(task, "from_scratch").values())
        if len(by_lr) > 1:
            yield from compare(task, by_lr[-1], by_lr[0], metric=evidence.metric(task))


@claim(
    "On a multi-label task RI-T ends alike at both learning rates.",
    source="Section B.1, Figure 2",
    paper=("CheXpert: alike (read off the figure, .70 | .70)",),
    compares="final test metric above chance at the largest learning rate minus that at the smallest, every RI-T "
    f"against every one, as a part of the mean of both; claimed: between -{ALIKE:.0%} and +{ALIKE:.0%}",
    unit="share",
    sides=("large", "small"),
    needs="runs from scratch at two learning rates on a multi-label task",
    section="figure_2",
)
def rit_rates_alike(evidence: Evidence) -> Iterator[Comparison]:
    for task, first, second in _rates_on_multi_label(evidence, lambda run: run.score):
        chance = evidence.chance(task)
        above = [value - chance for side in (first, second) for value in side.values.values()]
        scale = sum(above) / len(above) if above else 1.0
        sides = (_relative(side, chance, scale) for side in (first, second))
        yield from compare(task, *sides, within=ALIKE, metric="auc")


@claim(
    "On a multi-label task RI-T learns faster at the larger learning rate.",
    source="Section B.1, Figure 2",
    paper=("CheXpert: faster (a curve, no number)",),
    compares="train AUC averaged over the measured epochs, every RI-T at its largest learning rate against every one "
    "at its smallest",
    unit="score",
    sides=("large", "small"),
    needs="runs from scratch at two learning rates on a multi-label task",
    section="figure_2",
)
def rit_large_lr_faster(evidence: Evidence) -> Iterator[Comparison]:
    for task, first, second in _rates_on_multi_label(evidence, lambda run: run.speed):
        yield from compare(task, first, second, metric="auc")


@claim(
    "Models overfit severely on multi-label tasks alone: their best epoch is better than the last.",
    source="Section B.1, Figure 2",
    paper=("severe overfitting on CheXpert, none on DomainNet (curves, no number)",),
    compares="best test metric minus final one, as a part of the best above chance, every run of a multi-label task "
    "against every run of the other tasks",
    unit="share",
    sides=("multi-label", "others"),
    needs="runs on a multi-label task and on others",
    section="figure_2",
)
def overfitting(evidence: Evidence) -> Iterator[Comparison]:
    falls = {task: _falls(evidence, task) for task in evidence.compared_tasks}
    multi = [task for task in falls if evidence.metric(task) == "auc"]
    others = [falls[task] for task in falls if task not in multi]
    rest = Measured({unit: value for one in others for unit, value in one.values.items()})
    for task in multi:
        yield from compare(task, falls[task], rest, metric="auc")


@claim(
    "On a multi-label task P-T has a higher test loss than RI-T, although its AUC is better.",
    source="Section B.4",
    paper=("CheXpert (curves, no number)",),
    compares=f"final test loss, {BETWEEN_RUNS}",
    unit="number",
    sides=("P-T", "RI-T"),
    needs="fine-tuned runs and runs from scratch on a multi-label task",
    section="figure_2",
)
def higher_loss(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        if evidence.metric(task) == "auc":
            yield from compare(task, *_both(evidence, task, lambda run: run.loss), metric="loss")


@claim(
    "P-T is more accurate than RI-T class by class.",
    source="Section B.2, Figure 8",
    paper=("clipart, in nearly all of 345 classes (a figure, no number)",),
    compares="share of the classes in which a P-T is more accurate than an RI-T, ties counted half; claimed: "
    "above half",
    unit="share",
    sides=("classes",),
    needs="class accuracies of fine-tuned runs and of runs from scratch",
    section="figure_8",
    over="classes",
    limits=(0.0, 1.0),
)
def class_by_class(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each_compared("class_accuracy"):
        wide = table.pivot_table(index="class_name", columns="run", values="accuracy")
        yield from against(task, evidence.wins(task, wide, "fine_tuned", "from_scratch"), 0.5, above=True)


def _both(evidence: Evidence, task: str, number: Callable[[RunFacts], float]) -> tuple[Measured, Measured]:
    return evidence.scores(task, "fine_tuned", number), evidence.scores(task, "from_scratch", number)


def _rates_on_multi_label(
    evidence: Evidence, number: Callable[[RunFacts], float]
) -> Iterator[tuple[str, Measured, Measured]]:
    """Task and numbers of RI-T at the largest and at the smallest learning rate."""
    for task in evidence.compared_tasks:
        by_lr = list(evidence.scores_by_lr(task, "from_scratch", number).values())
        if len(by_lr) > 1 and evidence.metric(task) == "auc":
            yield task, by_lr[-1], by_lr[0]


def _relative(measured: Measured, chance: float, scale: float) -> Measured:
    return Measured(
        {unit: (value - chance) / scale for unit, value in measured.values.items()},
        measured.left_out,
        errors={unit: error / scale for unit, error in measured.errors.items()},
    )


def _falls(evidence: Evidence, task: str) -> Measured:
    """Best minus final test metric of every run that is compared on a task, as a part of its best above chance."""
    chance = evidence.chance(task)
    sides = _both(evidence, task, lambda run: run.fall / (run.score + run.fall - chance))
    return Measured({**sides[0].values, **sides[1].values}, {**sides[0].left_out, **sides[1].left_out})
