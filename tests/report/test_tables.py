"""Tables of mistakes and similarity in the report: ranges, intervals, controls and the floor."""

from __future__ import annotations

import pandas as pd
from transferscope.claims.results import TaskResults

from transferscope.report import grids

KEYS = {"task": "clipart", "features": "pooled", "estimator": "debiased", "num_examples": 512}


def results(**tables: pd.DataFrame) -> dict[str, TaskResults]:
    return {"clipart": TaskResults("clipart", tables=tables)}


def cka_table() -> pd.DataFrame:
    rows = [
        ("P-T & P-T", "pt_1", "pt_2", 0.8, 0.7, 0.9, 0.02),
        ("P-T & RI-T", "pt_1", "rit_1", 0.2, 0.1, 0.3, 0.04),
        ("P-T & RI-T", "pt_2", "rit_1", 0.4, 0.3, 0.5, 0.03),
        ("same model", "pt_1", "pt_1", 1.0, 1.0, 1.0, 0.5),
    ]
    columns = ["pair_kind", "checkpoint_a", "checkpoint_b", "cka", "low", "high", "permuted"]
    return pd.DataFrame(rows, columns=columns).assign(layer="conv1", **KEYS)


def test_controls_and_floor_stand_under_the_pairs():
    """Range over pairs; the floor is that of pairs of two models, so the control of one model does not count."""
    grid = grids.similarity.cka(results(cka=cka_table()))[0]
    assert dict(grid.rows) == {
        "P-T & P-T": "0.800",
        "P-T & RI-T": "0.300 (0.200 to 0.400)",
        "same model": "1.000",
        "permuted examples (floor)": "0.030 (0.020 to 0.040)",
    }
    assert "debiased estimator, 512 examples" in grid.note


def test_every_pair_is_shown_with_its_interval():
    """In the folded part, beside the other estimators and measures."""
    opinion = cka_table().rename(columns={"cka": "value"}).assign(measure="SVCCA")
    found = grids.similarity.cka_other(results(cka=cka_table(), second_opinion=opinion))
    by_caption = {grid.caption: grid for grid in found}
    pairs = by_caption["clipart, every pair with its interval"]
    assert pairs.rows[0] == ("P-T & P-T", "pt_1", "pt_2", "0.800 [0.700, 0.900]")
    assert "not debiased" in by_caption["clipart, SVCCA similarity"].note


def test_mistakes_have_intervals_and_a_spread_over_pairs():
    """Ratios in percent with their interval in brackets, kappa without unit, range in parentheses."""
    pair = {
        "pair_kind": "P-T & RI-T", "checkpoint_a": "pt_1", "checkpoint_b": "rit_1", "class_name": "all",
        "accuracy_a": 0.9, "accuracy_b": 0.8, "only_a_correct": 30, "only_b_correct": 10, "common_mistakes": 20,
        "uncommon_ratio_a": 1 / 3, "uncommon_ratio_a_low": 0.25, "uncommon_ratio_a_high": 0.4, "uncommon_ratio_b": 0.6,
        "kappa": 0.5, "kappa_low": 0.4, "kappa_high": 0.6, "mcnemar_p": 0.002,
    }  # fmt: skip
    statistics = [
        "accuracy_a",
        "accuracy_b",
        "uncommon_ratio_a",
        "uncommon_ratio_b",
        "uncommon_ratio_difference",
        "kappa",
    ]
    spread = pd.DataFrame(
        {"pair_kind": "P-T & RI-T", "class_name": "all", "statistic": name, "num_pairs": 4, "mean": 0.5, "min": 0.4,
         "max": 0.6, "low": 0.3, "high": 0.7}
        for name in statistics
    )  # fmt: skip
    pairs, over_pairs = grids.mistakes.mistakes(results(mistakes=pd.DataFrame([pair]), mistakes_spread=spread))
    shown = dict(zip(pairs.columns, pairs.rows[0], strict=True))
    assert shown["uncommon, first"] == "33.3 % [25.0 %, 40.0 %]"
    assert shown["kappa"] == "0.500 [0.400, 0.600]"
    assert shown["uncommon, second"] == "60.0 %"
    assert "g1 is “only first right”" in pairs.note
    shown = dict(zip(over_pairs.columns, over_pairs.rows[0], strict=True))
    assert shown["pairs"] == "4"
    assert shown["accuracy, first"] == "50.0 % (40.0 % to 60.0 %) [30.0 %, 70.0 %]"
    assert shown["kappa"] == "0.500 (0.400 to 0.600) [0.300, 0.700]"
