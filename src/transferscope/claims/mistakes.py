"""Claims on mistakes (appendix B.2).

The paper also says that more of RI-T's mistakes are its own than of P-T's. That ratio is larger for the less accurate
model of a pair, whatever it gets wrong, so it says no more than `final_score` and is no claim here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from transferscope.claims.comparisons import Comparison, compare
from transferscope.claims.evidence import Evidence
from transferscope.claims.pair_rows import PairRows
from transferscope.claims.registry import BETWEEN_PAIRS, BETWEEN_RUNS, claim
from transferscope.experiment.run import Role

_OVERLAP = (
    "common mistakes beyond those expected by chance, as a part of the most that two models of these accuracies can "
    "have, mean over classes"
)


@claim(
    "Two P-T share more of their mistakes than a P-T and an RI-T.",
    source="Section B.2, Tables 3, 5 and 6",
    paper=("clipart 72.5 % | 48.5 %", "CheXpert, mean of five classes 69.5 % | 63.4 %"),
    compares=f"{_OVERLAP}, {BETWEEN_PAIRS}",
    unit="coefficient",
    sides=("P-T & P-T", "P-T & RI-T"),
    needs="mistakes of pairs of two fine-tuned runs, and of a fine-tuned run and one from scratch",
    section="tables_3_6",
)
def shared_mistakes_mixed(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        yield from _overlaps(evidence, task, ("fine_tuned", "fine_tuned"), ("fine_tuned", "from_scratch"))


@claim(
    "Two P-T share more of their mistakes than two RI-T.",
    source="Section B.2, Tables 4, 5 and 6",
    paper=(
        "CheXpert, mean of five classes 69.5 % | 64.8 %",
        "clipart 72.5 % | 76.7 %, the other way round",
    ),
    compares=f"{_OVERLAP}, {BETWEEN_PAIRS}",
    unit="coefficient",
    sides=("P-T & P-T", "RI-T & RI-T"),
    needs="mistakes of pairs of two fine-tuned runs and of two runs from scratch",
    section="tables_3_6",
)
def shared_mistakes_rit(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        yield from _overlaps(evidence, task, ("fine_tuned", "fine_tuned"), ("from_scratch", "from_scratch"))


@claim(
    "P-T's accuracy per class correlates more with class size than RI-T's.",
    source="Section B.2, Figure 8",
    paper=("clipart, Pearson r .370 | .329 over 345 classes",),
    compares=f"Pearson r of accuracy per class with training examples per class, {BETWEEN_RUNS}",
    unit="coefficient",
    sides=("P-T", "RI-T"),
    needs="class accuracies of fine-tuned runs and of runs from scratch",
    section="figure_8",
    limits=(-2.0, 2.0),
)
def class_size(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each_compared("class_size_correlation"):
        # The row "mean" is of the accuracies averaged over the runs of a kind.
        r = table[table["run"] != "mean"].set_index("run")["pearson_r"]
        yield from compare(task, *evidence.by_role(task, r, "fine_tuned", "from_scratch"))


def _overlaps(
    evidence: Evidence, task: str, first: tuple[Role, Role], second: tuple[Role, Role]
) -> Iterable[Comparison]:
    kinds = (evidence.pairs(task, "mistakes", *roles) for roles in (first, second))
    return compare(task, *(pairs.mean(excess_overlap) for pairs in _predicted(task, *kinds)))


def excess_overlap(rows: pd.DataFrame) -> pd.Series:
    """(c - e) / (m - e) of c common mistakes, by chance e, and at most m = the mistakes of the better model.

    0 where two models err as independently as their accuracies allow, 1 where all mistakes of the better one are also
    the other's, whatever the accuracies; Cohen's kappa divided by its largest value. NaN where a model makes no
    mistake, or nothing else.
    """
    common, number = rows["common_mistakes"], rows["num_examples"]
    first, second = common + rows["only_b_correct"], common + rows["only_a_correct"]
    chance, most = first * second / number, first.where(first < second, second)
    return (common - chance) / (most - chance).where(most - chance > 0)


def _predicted(task: str, *kinds: PairRows) -> list[PairRows]:
    """Pairs without the findings that neither model of some pair ever predicts: their mistakes are all positives."""
    never: set[str] = set()
    for rows in (pairs.rows for pairs in kinds):
        if "num_predicted_a" in rows:
            never |= set(rows.loc[(rows["num_predicted_a"] == 0) & (rows["num_predicted_b"] == 0), "class_name"])
    if not never:
        return list(kinds)
    note = {f"{task}: {', '.join(sorted(never))}": "predicted by neither model"}
    return [
        PairRows(pairs.rows[~pairs.rows["class_name"].isin(never)], {**pairs.left_out, **note})
        if len(pairs.rows)
        else pairs
        for pairs in kinds
    ]
