"""Claims on mistakes (appendix B.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from transferscope.claims.comparisons import Comparison, compare, paired
from transferscope.claims.evidence import Evidence, PairRows
from transferscope.claims.registry import BETWEEN_PAIRS, BETWEEN_RUNS, claim


@claim(
    "More of RI-T's mistakes are its own than of P-T's.",
    source="Section B.2, Tables 3 and 6",
    paper=("clipart 47.4 % | 13.8 %", "CheXpert, mean of five classes 23.9 % | 23.5 % (larger in 2 of 5)"),
    compares="mistakes that only this model makes / all its mistakes, RI-T minus P-T in every pair of the two, mean "
    "over classes",
    unit="share",
    sides=("RI-T", "P-T"),
    needs="mistakes of pairs of a fine-tuned run and one from scratch",
    section="tables_3_6",
)
def uncommon_mistakes(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        (mixed,) = _predicted(task, evidence.pairs(task, "mistakes", "fine_tuned", "from_scratch"))
        yield from paired(task, *(mixed.mean(_ratio(side)) for side in "ba"))


@claim(
    "Two P-T share more of their mistakes than a P-T and an RI-T.",
    source="Section B.2, Tables 3, 5 and 6",
    paper=("clipart 72.5 % | 48.5 %", "CheXpert, mean of five classes 69.5 % | 63.4 %"),
    compares=f"common mistakes / mistakes of either, mean over classes, {BETWEEN_PAIRS}",
    unit="share",
    sides=("P-T & P-T", "P-T & RI-T"),
    needs="mistakes of pairs of two fine-tuned runs, and of a fine-tuned run and one from scratch",
    section="tables_3_6",
)
def shared_mistakes_mixed(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        both = evidence.pairs(task, "mistakes", "fine_tuned", "fine_tuned")
        mixed = evidence.pairs(task, "mistakes", "fine_tuned", "from_scratch")
        yield from compare(task, *(pairs.mean(shared) for pairs in _predicted(task, both, mixed)))


@claim(
    "Two P-T share more of their mistakes than two RI-T.",
    source="Section B.2, Tables 4, 5 and 6",
    paper=(
        "CheXpert, mean of five classes 69.5 % | 64.8 %",
        "clipart 72.5 % | 76.7 %, the other way round",
    ),
    compares=f"common mistakes / mistakes of either, mean over classes, {BETWEEN_PAIRS}",
    unit="share",
    sides=("P-T & P-T", "RI-T & RI-T"),
    needs="mistakes of pairs of two fine-tuned runs and of two runs from scratch",
    section="tables_3_6",
)
def shared_mistakes_rit(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.tasks:
        fine = evidence.pairs(task, "mistakes", "fine_tuned", "fine_tuned")
        scratch = evidence.pairs(task, "mistakes", "from_scratch", "from_scratch")
        yield from compare(task, *(pairs.mean(shared) for pairs in _predicted(task, fine, scratch)))


@claim(
    "P-T's accuracy per class correlates more with class size than RI-T's.",
    source="Section B.2, Figure 8",
    paper=("clipart, Pearson r .370 | .329 over 345 classes",),
    compares=f"Pearson r of accuracy per class with training examples per class, {BETWEEN_RUNS}",
    unit="coefficient",
    sides=("P-T", "RI-T"),
    needs="class accuracies of fine-tuned runs and of runs from scratch",
    section="figure_8",
)
def class_size(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each("class_size_correlation"):
        # The row "mean" is of the accuracies averaged over the runs of a kind.
        r = table[table["run"] != "mean"].set_index("run")["pearson_r"]
        yield from compare(task, evidence.by_run(task, "fine_tuned", r), evidence.by_run(task, "from_scratch", r))


def _ratio(side: str) -> Callable[[pd.DataFrame], pd.Series]:
    """The uncommon ratio of a model in classes where both have one: a model may make no mistake in a class."""
    columns = ["uncommon_ratio_a", "uncommon_ratio_b"]
    return lambda rows: rows[f"uncommon_ratio_{side}"].where(rows[columns].notna().all(axis=1))


def shared(rows: pd.DataFrame) -> pd.Series:
    """Common mistakes / (common + only one is wrong); NaN where neither model makes one."""
    either = rows["common_mistakes"] + rows["only_a_correct"] + rows["only_b_correct"]
    return rows["common_mistakes"] / either.where(either > 0)


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
