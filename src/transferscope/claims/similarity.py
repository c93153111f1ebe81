"""Claims on similarity of features and distance of weights (appendix B.3)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from transferscope.claims.comparisons import Comparison, Measured, against, compare
from transferscope.claims.evidence import Evidence
from transferscope.claims.pair_rows import PairRows
from transferscope.claims.registry import BETWEEN_PAIRS, BETWEEN_RUNS, claim
from transferscope.experiment.run import Role

CKA_FLOOR = 0.1
"""CKA below this, averaged over layers, counts as no similarity: the paper prints .0004 to .0424 for two RI-T."""

_CKA = f"CKA averaged over layers, {BETWEEN_PAIRS}"


@claim(
    "The features of two P-T are more alike than those of a P-T and an RI-T.",
    source="Section B.3, Tables 1 and 7",
    paper=("mean over layers: CheXpert .534 | .018", "clipart .286 | .006"),
    compares=_CKA,
    unit="coefficient",
    sides=("P-T & P-T", "P-T & RI-T"),
    needs="CKA of pairs of two fine-tuned runs, and of a fine-tuned run and one from scratch",
    section="tables_1_7",
)
def cka_mixed(evidence: Evidence) -> Iterator[Comparison]:
    return _cka(evidence, ("fine_tuned", "fine_tuned"), ("fine_tuned", "from_scratch"))


@claim(
    "The features of two P-T are more alike than those of two RI-T.",
    source="Section B.3, Tables 1 and 7",
    paper=("mean over layers: CheXpert .534 | .011", "clipart .286 | .004"),
    compares=_CKA,
    unit="coefficient",
    sides=("P-T & P-T", "RI-T & RI-T"),
    needs="CKA of pairs of two fine-tuned runs and of two runs from scratch",
    section="tables_1_7",
)
def cka_rit(evidence: Evidence) -> Iterator[Comparison]:
    return _cka(evidence, ("fine_tuned", "fine_tuned"), ("from_scratch", "from_scratch"))


@claim(
    "The features of two P-T are more alike than those of a P-T and P.",
    source="Section B.3, Tables 1 and 7",
    paper=("mean over layers: CheXpert .534 | .321", "clipart .286 | .284"),
    compares=_CKA,
    unit="coefficient",
    sides=("P-T & P-T", "P-T & P"),
    needs="CKA of pairs of two fine-tuned runs, and of a fine-tuned run and its source",
    section="tables_1_7",
)
def cka_pt_p(evidence: Evidence) -> Iterator[Comparison]:
    yield from _cka(evidence, ("fine_tuned", "fine_tuned"), ("fine_tuned", "source"))


@claim(
    "P-T's features stay closer to P's than to RI-T's.",
    source="Section B.3, Tables 1 and 7",
    paper=("mean over layers: CheXpert .321 | .018", "clipart .284 | .006"),
    compares=_CKA,
    unit="coefficient",
    sides=("P-T & P", "P-T & RI-T"),
    needs="CKA of pairs of a fine-tuned run and its source, and of a fine-tuned run and one from scratch",
    section="tables_1_7",
)
def cka_p(evidence: Evidence) -> Iterator[Comparison]:
    return _cka(evidence, ("fine_tuned", "source"), ("fine_tuned", "from_scratch"))


@claim(
    "P-T's features have more in common with P's than those of two RI-T have with each other.",
    source="Section B.3, Tables 1 and 7",
    paper=("mean over layers: CheXpert .321 | .011", "clipart .284 | .004"),
    compares=_CKA,
    unit="coefficient",
    sides=("P-T & P", "RI-T & RI-T"),
    needs="CKA of pairs of a fine-tuned run and its source, and of two runs from scratch",
    section="tables_1_7",
)
def cka_p_rit(evidence: Evidence) -> Iterator[Comparison]:
    return _cka(evidence, ("fine_tuned", "source"), ("from_scratch", "from_scratch"))


@claim(
    "The features of a P-T and an RI-T have more in common than those of two RI-T.",
    source="Section B.3, Tables 1 and 7",
    paper=("mean over layers: CheXpert .018 | .011", "clipart .006 | .004"),
    compares=_CKA,
    unit="coefficient",
    sides=("P-T & RI-T", "RI-T & RI-T"),
    needs="CKA of pairs of a fine-tuned run and one from scratch, and of two runs from scratch",
    section="tables_1_7",
)
def cka_lowest(evidence: Evidence) -> Iterator[Comparison]:
    return _cka(evidence, ("fine_tuned", "from_scratch"), ("from_scratch", "from_scratch"))


@claim(
    "The features of two RI-T have next to nothing in common.",
    source="Section B.3, Tables 1 and 7",
    paper=("mean over layers: CheXpert .011, clipart .004", "no layer above .043"),
    compares=f"CKA averaged over layers of every pair RI-T & RI-T; claimed: below {CKA_FLOOR:g}",
    unit="coefficient",
    sides=("RI-T & RI-T",),
    needs="CKA of pairs of two runs from scratch",
    section="tables_1_7",
    limits=(0.0, 1.0),
)
def cka_floor(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        pairs = _one_cka(evidence.pairs(task, "cka", "from_scratch", "from_scratch"))
        # A biased estimate of unrelated features is far above 0, and says nothing about the floor.
        if set(pairs.rows.get("estimator", ())) != {"biased"}:
            yield from against(task, _mean_cka(pairs), CKA_FLOOR, above=False)


@claim(
    "The features of two RI-T have no more in common than those of two untrained networks.",
    source="Section B.3, Tables 1 and 7",
    paper=("next to nothing in common (untrained networks are not compared)",),
    compares=f"{_CKA}; positive: less than untrained",
    unit="coefficient",
    sides=("RI-T & RI-T", "two untrained"),
    needs="CKA of pairs of two runs from scratch, trained and untrained",
    section="tables_1_7",
)
def cka_untrained(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        trained = _one_cka(evidence.pairs(task, "cka", "from_scratch", "from_scratch"))
        untrained = _one_cka(evidence.untrained(task, "cka", "from_scratch"))
        yield from compare(task, *map(_mean_cka, (trained, untrained)), larger=False)


@claim(
    "Two P-T are closer in weights than two RI-T.",
    source="Section B.3, Table 2, Figure 10",
    paper=("CheXpert 200 | 255", "clipart 178 | 822", "quickdraw 219 | 777", "real 193 | 815"),
    compares=f"l2 distance over all weights, {BETWEEN_PAIRS}; positive: P-T's is smaller",
    unit="number",
    sides=("P-T & P-T", "RI-T & RI-T"),
    needs="distances of pairs of two fine-tuned runs and of two runs from scratch",
    section="table_2",
)
def l2(evidence: Evidence) -> Iterator[Comparison]:
    return _distances(evidence, ("fine_tuned", "fine_tuned"), ("from_scratch", "from_scratch"))


@claim(
    "Two P-T are closer in weights than two RI-T that share their initial weights, as P-T share P's.",
    source="Section B.3, Table 2, Figure 10",
    paper=("not compared: the paper's RI-T in Table 2 start apart",),
    compares=f"l2 distance over all weights, {BETWEEN_PAIRS}; positive: P-T's is smaller",
    unit="number",
    sides=("P-T & P-T", "RI-T & same init"),
    needs="distances of pairs of two fine-tuned runs, and of two runs from scratch with the same initial weights",
    section="table_2",
)
def l2_same_init(evidence: Evidence) -> Iterator[Comparison]:
    return _distances(evidence, ("fine_tuned", "fine_tuned"), ("from_scratch", "shared_init"))


@claim(
    "Training takes two P-T less far apart than two RI-T.",
    source="Section B.3, Table 2, Figure 10",
    paper=("not compared: the paper's distances hold those of the initial weights",),
    compares=f"l2 distance over all weights minus that before training, {BETWEEN_PAIRS}; positive: P-T's is smaller",
    unit="number",
    sides=("P-T & P-T", "RI-T & RI-T"),
    needs="distances of pairs of two fine-tuned runs and of two runs from scratch, and of their initial weights",
    section="table_2",
)
def l2_beyond_start(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        kinds = (evidence.pairs(task, "distances", role, role) for role in ("fine_tuned", "from_scratch"))
        sides = [pairs for pairs in kinds if pairs.rows.empty or "l2_before" in pairs.rows]
        if len(sides) == 2:
            yield from compare(task, *(_whole(pairs, before=True) for pairs in sides), larger=False)


@claim(
    "P-T stays closer to its initial weights than RI-T.",
    source="Section B.3, Tables 2 and 8, Figure 11",
    paper=(
        "Table 8: clipart 5668 | 23249",
        "quickdraw 7501 | 24713",
        "real 5796 | 24394",
        "CheXpert 4984 | 4174, the other way round (Table 2: 237 | 598)",
    ),
    compares=f"l2 distance over all weights to epoch 0, {BETWEEN_RUNS}; positive: P-T's is smaller",
    unit="number",
    sides=("P-T", "RI-T"),
    needs="distances of fine-tuned runs and of runs from scratch to their initialisation",
    section="table_8",
)
def l2_init(evidence: Evidence) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        ends = (evidence.travelled(task, role) for role in ("fine_tuned", "from_scratch"))
        yield from compare(task, *map(_whole, ends), larger=False)


def _distances(evidence: Evidence, first: tuple[Role, Role], second: tuple[Role, Role]) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        kinds = (evidence.pairs(task, "distances", *roles) for roles in (first, second))
        yield from compare(task, *map(_whole, kinds), larger=False)


def _cka(evidence: Evidence, first: tuple[Role, Role], second: tuple[Role, Role]) -> Iterator[Comparison]:
    for task in evidence.compared_tasks:
        kinds = (_one_cka(evidence.pairs(task, "cka", *roles)) for roles in (first, second))
        yield from compare(task, *map(_mean_cka, kinds))


def _mean_cka(pairs: PairRows) -> Measured:
    """Mean over layers; features that are linear in the image count only where there are no others.

    Averaged over pixels they are the image's mean colour, alike in any two models.
    """
    rows = pairs.rows
    if "linear" in rows and not rows["linear"].all():
        pairs = PairRows(rows[~rows["linear"].astype(bool)], pairs.left_out)
    return pairs.mean(lambda rows: rows["cka"])


def _one_cka(pairs: PairRows) -> PairRows:
    return PairRows(one_cka(pairs.rows), pairs.left_out)


def one_cka(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with one sort of features and one estimator: pooled and unbiased where there is a choice."""
    for column, preferred in (("features", ("pooled",)), ("estimator", ("debiased", "minibatch"))):
        if column in rows.columns and rows[column].nunique() > 1:
            present = set(rows[column])
            chosen = next((value for value in preferred if value in present), rows[column].iloc[0])
            rows = rows[rows[column] == chosen]
    return rows


def _whole(pairs: PairRows, *, before: bool = False) -> Measured:
    """l2 over all weights, by pair; before: less what it was before training."""
    return pairs.where("module", "all").mean(lambda rows: rows["l2"] - (rows["l2_before"] if before else 0.0))
