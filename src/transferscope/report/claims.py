"""The study's claims: where the paper makes them, its figures, and what the tables say, by `rules.RULE`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from transferscope.report import effects as fx
from transferscope.report import landscape_effects as lx
from transferscope.report.evidence import Effect, Evidence
from transferscope.report.results import TaskResults
from transferscope.report.rules import Unit, decide, say_interval, say_ours

COLUMNS = ("claim", "source", "paper", "ours", "interval", "verdict", "rule", "num_effects", "id")


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and how it is measured.

    effect: what one comparison is, in words (goes into the column `rule`); sides: what the numbers of `ours` are;
    needs: what the plan must run; section: where the report shows more.
    """

    id: str
    claim: str
    source: str
    paper: str
    measure: Callable[[Evidence], list[Effect]]
    effect: str
    unit: Unit
    sides: tuple[str, ...]
    needs: str
    section: str


_BETWEEN_RUNS = "every P-T against every RI-T of a task"
_BETWEEN_PAIRS = "every pair of the one kind against every pair of the other"
_NO_BARRIER = f"largest fall below the chord of the ends, test set; claimed: below {100 * lx.NO_BARRIER:.0f} points"
_BARRIER = f"largest fall below the chord of the ends, test set; claimed: above {100 * lx.BARRIER:.0f} points"

CLAIMS = (
    Claim(
        "final_score",
        "P-T ends with a better test metric than RI-T.",
        "Section B.1, Figure 2",
        "CheXpert AUC .735 | .70; real 78.4 % | 61.5 %; clipart 74.3 % | 57.9 %; quickdraw 67 % | 64 % (read off the figure; best learning rates)",
        fx.final_score,
        f"final test accuracy (AUC where multi-label), {_BETWEEN_RUNS}",
        "score",
        ("P-T", "RI-T"),
        "runs labelled P-T and RI-T on one task",
        "figure_2",
    ),
    Claim(
        "speed",
        "P-T learns faster than RI-T.",
        "Section B.1, Figure 2",
        "on all four data sets (a curve, no number)",
        fx.speed,
        f"training accuracy averaged over the epochs, {_BETWEEN_RUNS}",
        "share",
        ("P-T", "RI-T"),
        "runs labelled P-T and RI-T on one task",
        "figure_2",
    ),
    Claim(
        "pt_small_lr",
        "P-T prefers the smaller learning rate.",
        "Section B.1, Figure 2",
        "lr .02 | .1: real 78.4 % | 76 %; clipart 74.3 % | 73 %; quickdraw 67 % | 54 %; CheXpert: .1 fails",
        fx.pt_prefers_smaller_lr,
        "final test metric, every P-T at its smallest learning rate against every one at its largest",
        "score",
        ("small", "large"),
        "P-T at two learning rates on one task",
        "figure_2",
    ),
    Claim(
        "rit_large_lr",
        "RI-T prefers the larger learning rate.",
        "Section B.1, Figure 2",
        "lr .1 | .02: real 61.5 % | 48.5 %; clipart 57.9 % | 38 %; quickdraw 64 % | 56.5 %; CheXpert: alike, .1 is faster",
        fx.rit_prefers_larger_lr,
        "final test metric, every RI-T at its largest learning rate against every one at its smallest",
        "score",
        ("large", "small"),
        "RI-T at two learning rates on one task",
        "figure_2",
    ),
    Claim(
        "uncommon_mistakes",
        "More of RI-T's mistakes are its own than of P-T's.",
        "Section B.2, Tables 3 and 6",
        "clipart 47.4 % | 13.8 %; CheXpert, mean of five classes 23.9 % | 23.5 % (larger in 2 of 5)",
        fx.uncommon_ratio,
        "mistakes that only this model makes / all its mistakes, RI-T minus P-T in every pair of the two, mean over classes",
        "share",
        ("RI-T", "P-T"),
        "mistakes of pairs P-T & RI-T",
        "tables_3_6",
    ),
    Claim(
        "shared_mistakes_mixed",
        "Two P-T share more of their mistakes than a P-T and an RI-T.",
        "Section B.2, Tables 3, 5 and 6",
        "clipart 72.5 % | 48.5 %; CheXpert, mean of five classes 69.5 % | 63.4 %",
        fx.shared_mistakes_over_mixed,
        f"common mistakes / mistakes of either, mean over classes, {_BETWEEN_PAIRS}",
        "share",
        ("P-T & P-T", "P-T & RI-T"),
        "mistakes of pairs P-T & P-T and P-T & RI-T",
        "tables_3_6",
    ),
    Claim(
        "shared_mistakes_rit",
        "Two P-T share more of their mistakes than two RI-T.",
        "Section B.2, Tables 4, 5 and 6",
        "CheXpert, mean of five classes 69.5 % | 64.8 %; clipart 72.5 % | 76.7 %, the other way round",
        fx.shared_mistakes_over_rit,
        f"common mistakes / mistakes of either, mean over classes, {_BETWEEN_PAIRS}",
        "share",
        ("P-T & P-T", "RI-T & RI-T"),
        "mistakes of pairs P-T & P-T and RI-T & RI-T",
        "tables_3_6",
    ),
    Claim(
        "class_size",
        "P-T's accuracy per class correlates more with class size than RI-T's.",
        "Section B.2, Figure 8",
        "clipart, Pearson r .370 | .329 over 345 classes",
        fx.class_size,
        f"Pearson r of accuracy per class with training examples per class, {_BETWEEN_RUNS}",
        "cka",
        ("P-T", "RI-T"),
        "class accuracies of P-T and RI-T",
        "figure_8",
    ),
    Claim(
        "cka_mixed",
        "The features of two P-T are more alike than those of a P-T and an RI-T.",
        "Section B.3, Tables 1 and 7",
        "mean over layers: CheXpert .534 | .018; clipart .286 | .006",
        fx.cka_over_mixed,
        f"CKA averaged over layers, {_BETWEEN_PAIRS}",
        "cka",
        ("P-T & P-T", "P-T & RI-T"),
        "CKA of pairs P-T & P-T and P-T & RI-T",
        "tables_1_7",
    ),
    Claim(
        "cka_rit",
        "The features of two P-T are more alike than those of two RI-T.",
        "Section B.3, Tables 1 and 7",
        "mean over layers: CheXpert .534 | .011; clipart .286 | .004",
        fx.cka_over_rit,
        f"CKA averaged over layers, {_BETWEEN_PAIRS}",
        "cka",
        ("P-T & P-T", "RI-T & RI-T"),
        "CKA of pairs P-T & P-T and RI-T & RI-T",
        "tables_1_7",
    ),
    Claim(
        "cka_p",
        "P-T's features stay closer to P's than to RI-T's.",
        "Section B.3, Tables 1 and 7",
        "mean over layers: CheXpert .321 | .018; clipart .284 | .006",
        fx.cka_with_p,
        f"CKA averaged over layers, {_BETWEEN_PAIRS}",
        "cka",
        ("P-T & P", "P-T & RI-T"),
        "CKA of pairs P-T & P and P-T & RI-T",
        "tables_1_7",
    ),
    Claim(
        "cka_floor",
        "The features of two RI-T have next to nothing in common.",
        "Section B.3, Tables 1 and 7",
        "mean over layers: CheXpert .011, clipart .004; no layer above .043",
        fx.cka_floor,
        f"CKA averaged over layers of every pair RI-T & RI-T; claimed: below {fx.CKA_FLOOR:g}",
        "cka",
        ("RI-T & RI-T",),
        "CKA of pairs RI-T & RI-T",
        "tables_1_7",
    ),
    Claim(
        "l2",
        "Two P-T are closer in weights than two RI-T.",
        "Section B.3, Table 2, Figure 10",
        "CheXpert 200 | 255; clipart 178 | 822; quickdraw 219 | 777; real 193 | 815",
        fx.distance_between,
        f"l2 distance over all weights, {_BETWEEN_PAIRS}; positive: P-T's is smaller",
        "number",
        ("P-T & P-T", "RI-T & RI-T"),
        "distances of pairs P-T & P-T and RI-T & RI-T",
        "table_2",
    ),
    Claim(
        "l2_init",
        "P-T stays closer to its initial weights than RI-T.",
        "Section B.3, Tables 2 and 8, Figure 11",
        "Table 8: clipart 5668 | 23249; quickdraw 7501 | 24713; real 5796 | 24394; CheXpert 4984 | 4174, the other way round (Table 2: 237 | 598)",
        fx.distance_travelled,
        f"l2 distance over all weights to epoch 0, {_BETWEEN_RUNS}; positive: P-T's is smaller",
        "number",
        ("P-T", "RI-T"),
        "distances of P-T and RI-T to their initialisation",
        "table_8",
    ),
    Claim(
        "no_barrier_pt",
        "There is no barrier between two P-T.",
        "Section B.4, Figures 12 and 14",
        "flat; real rises from 78.4 % to 79.3 % in the middle",
        lx.no_barrier_between_pt,
        _NO_BARRIER,
        "points",
        ("barrier",),
        "interpolation of pairs P-T & P-T",
        "figures_12_17",
    ),
    Claim(
        "barrier_rit",
        "There is a barrier between two RI-T of different initialisation.",
        "Section B.4, Figures 12 and 14",
        "accuracy falls to about 0 % on DomainNet, AUC to .52 on CheXpert",
        lx.barrier_between_rit,
        _BARRIER,
        "points",
        ("barrier",),
        "interpolation of pairs RI-T & RI-T",
        "figures_12_17",
    ),
    Claim(
        "barrier_mixed",
        "There is a barrier between a P-T and an RI-T.",
        "Section B.4, Figures 12 and 14",
        "AUC below .45 on CheXpert (best weights)",
        lx.barrier_mixed,
        _BARRIER,
        "points",
        ("barrier",),
        "interpolation of pairs P-T & RI-T",
        "figures_12_17",
    ),
    Claim(
        "barrier_same_init",
        "The barrier between two RI-T persists where they share their initialisation.",
        "Section B.5, Figure 16",
        "lowest accuracy real 6.5 %, clipart 5.5 %, quickdraw 16 %",
        lx.barrier_same_init,
        _BARRIER,
        "points",
        ("barrier",),
        "interpolation of pairs RI-T & RI-T same init",
        "figures_12_17",
    ),
    Claim(
        "same_init_smaller",
        "That barrier is smaller than with different initialisations.",
        "Section B.5, Figures 12 and 16",
        "slightly: the lowest accuracy is 5.5 to 16 % instead of about 0 %",
        lx.same_init_is_smaller,
        f"barrier, {_BETWEEN_PAIRS}; positive: smaller with the same initialisation",
        "points",
        ("same", "different"),
        "interpolation of pairs RI-T & RI-T and RI-T & RI-T same init",
        "figures_12_17",
    ),
    Claim(
        "extrapolation",
        "Two P-T lie close to the boundary of their basin: beyond them the metric falls.",
        "Section B.6, Figure 18",
        "the metric falls on both sides of [0, 1] (a curve, no number)",
        lx.edge_of_the_basin,
        "fall of the test metric from an end to the end of the extrapolation, the smaller of both sides; "
        f"claimed: above {100 * lx.OUTSIDE_DROP:.0f} points",
        "points",
        ("fall",),
        "extrapolation of pairs P-T & P-T",
        "figure_18",
    ),
    Claim(
        "cross_domain_basin",
        "P-T of different domains lie in one basin: no barrier between them.",
        "Section B.7, Figures 19 to 23",
        "no barrier on any of five figures",
        lx.cross_domain_no_barrier,
        f"{_NO_BARRIER}, of the domain evaluated on",
        "points",
        ("barrier",),
        "cross-domain interpolation of P-T",
        "figures_19_23",
    ),
    Claim(
        "cross_domain_gain",
        "Half-way between P-T of different domains the metric is above the mean of the ends.",
        "Section B.7, Figures 19 to 23",
        "a boost in the middle on all of them (curves, no number)",
        lx.cross_domain_gain,
        "test accuracy at alpha 1/2 minus the mean of the ends; claimed: above 0",
        "points",
        ("gain",),
        "cross-domain interpolation of P-T",
        "figures_19_23",
    ),
    Claim(
        "cross_domain_rit",
        "RI-T of different domains are separated by a barrier.",
        "Section B.7, Figures 19 to 23",
        "a barrier on all five figures",
        lx.cross_domain_rit_barrier,
        f"{_BARRIER}, of the domain evaluated on",
        "points",
        ("barrier",),
        "cross-domain interpolation of RI-T",
        "figures_19_23",
    ),
    Claim(
        "other_domain",
        "P-T outperforms RI-T also on a domain that neither was trained on.",
        "Section B.7, Figures 19 to 23",
        "consistently (ends of the curves, no number)",
        lx.other_domain,
        "test accuracy on the other domain, P-T against RI-T trained on the same one",
        "share",
        ("P-T", "RI-T"),
        "cross-domain interpolation of P-T and RI-T",
        "figures_19_23",
    ),
    Claim(
        "union_basin",
        "P-T of a union of domains and of one domain lie in one basin.",
        "Section B.8, Figures 24 to 29",
        "no barrier on any of six figures",
        lx.union_no_barrier,
        f"{_NO_BARRIER}, of the domain evaluated on",
        "points",
        ("barrier",),
        "interpolation between P-T of a union and of a domain",
        "figures_24_29",
    ),
    Claim(
        "union_rit",
        "RI-T of a union and of one domain are separated by a barrier.",
        "Section B.8, Figures 24 to 29",
        "a barrier on all six figures",
        lx.union_rit_barrier,
        f"{_BARRIER}, of the domain evaluated on",
        "points",
        ("barrier",),
        "interpolation between RI-T of a union and of a domain",
        "figures_24_29",
    ),
    Claim(
        "rewinding",
        "Setting one module back to its initial value hurts RI-T more than P-T.",
        "Main text, Figure 5",
        "CheXpert AUC: P-T .735, with any module but the classifier set back still .71 or more; RI-T falls to .507 (conv1), .64 (layer3.0)",
        lx.rewinding_hurts_rit,
        f"mean fall of the test metric over modules but the last, {_BETWEEN_RUNS}",
        "points",
        ("RI-T", "P-T"),
        "criticality of P-T and RI-T",
        "figure_5",
    ),
    Claim(
        "first_module",
        "RI-T's first module is critical, P-T's is not.",
        "Main text, Figure 5; Section B.9, Figure 30",
        "CheXpert AUC with conv1 set back: P-T .71 or more, RI-T .507",
        lx.first_module,
        f"fall of the test metric with the first module set back, {_BETWEEN_RUNS}",
        "points",
        ("RI-T", "P-T"),
        "criticality of P-T and RI-T",
        "figure_5",
    ),
    Claim(
        "criticality_depth",
        "In P-T, modules near the output are more critical than those near the input.",
        "Main text, on module criticality; Section B.9",
        "criticality grows from lower to higher layers (heat maps, no number)",
        lx.criticality_grows,
        "Spearman correlation over modules of criticality and depth, every P-T; claimed: above 0",
        "cka",
        ("Spearman",),
        "criticality of P-T",
        "figure_30",
    ),
    Claim(
        "near_zero",
        "RI-T has more singular values near zero than P-T.",
        "Section C, Figures 31 to 33",
        "on all domains (histograms, no number)",
        fx.near_zero,
        "share of all singular values below the threshold at which the mean share is nearest to "
        f"{fx.LOWER_PART:.0%}, every RI-T against every P-T of a task",
        "share",
        ("RI-T", "P-T"),
        "spectra of P-T and RI-T",
        "figure_33",
    ),
    Claim(
        "norm_ratio",
        "The sum over layers of ‖W‖_F / ‖W‖_2 is larger for RI-T.",
        "Section C",
        "larger for RI-T (no number)",
        fx.norm_ratio,
        "that sum, every RI-T against every P-T of a task",
        "number",
        ("RI-T", "P-T"),
        "spectra of P-T and RI-T",
        "norm_ratios",
    ),
)


def decide_claims(study: Mapping[str, Any], results: Mapping[str, TaskResults]) -> pd.DataFrame:
    """A row per claim, decided by `rules.RULE` from the tables alone.

    study: the parameters (only which tasks are unions is read). results: by task, and `cross_domain`.
    Columns: claim, source, paper, ours (means by task), interval (range over comparisons), verdict, then
    rule (what one comparison is), num_effects (how many), id.
    """
    evidence = Evidence(study, results)
    return pd.DataFrame([_decide(claim, evidence) for claim in CLAIMS], columns=list(COLUMNS))


def _decide(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    evidence.left_out.clear()
    found = claim.measure(evidence)
    left_out = list(evidence.left_out)
    return {
        "claim": claim.claim,
        "source": claim.source,
        "paper": claim.paper,
        "ours": say_ours(found, claim.unit, claim.sides) or f"not run: needs {claim.needs}",
        "interval": say_interval(found, claim.unit, left_out),
        "verdict": decide(found),
        "rule": claim.effect,
        "num_effects": len(found),
        "id": claim.id,
    }
