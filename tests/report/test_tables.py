"""Tables of the report: ranges, intervals, controls and the floor, spectra."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from drawn_study import STUDY
from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.experiment.plan import make_plan
from transferscope.report.chapters import basins, landscape, mistakes, similarity, spectrum

KEYS = {"task": "clipart", "features": "pooled", "estimator": "debiased", "num_examples": 512}


def evidence(**tables: pd.DataFrame) -> Evidence:
    return Evidence(make_plan(STUDY), {"clipart": TaskResults("clipart", tables=tables)})


def cka_table() -> pd.DataFrame:
    rows = [
        ("P-T & P-T", "pt_1", "pt_2", 0.8, 0.7, 0.9, 0.02),
        ("P-T & RI-T", "pt_1", "rit_1", 0.2, 0.1, 0.3, 0.04),
        ("P-T & RI-T", "pt_2", "rit_1", 0.4, 0.3, 0.5, 0.03),
        ("same model", "pt_1", "pt_1", 1.0, 1.0, 1.0, 0.5),
    ]
    columns = ["pair_kind", "checkpoint_a", "checkpoint_b", "cka", "low", "high", "permuted"]
    return pd.DataFrame(rows, columns=columns).assign(layer="conv1", **KEYS)


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ((0.2, 0.1, math.inf), "0.20 (0.10 to as far as measured)"),
        ((math.inf, 0.3, math.inf), "as far as measured (0.30 to as far as measured)"),
        ((math.inf, math.inf, math.inf), "as far as measured"),
        ((0.2, math.nan, math.nan), "0.20"),
    ],
)
def test_the_edge_of_a_basin_says_once_that_none_was_met(ends: tuple[float, float, float], shown: str) -> None:
    """Where place and both bounds lie beyond all measured places there is nothing to put in brackets."""
    row = dict(zip(("boundary_left", "boundary_left_low", "boundary_left_high"), ends, strict=True))
    assert landscape._edge(row, "left") == shown


def test_hulls_of_one_label_have_a_row_each() -> None:
    """Kinds that start from two replicas of P may have one label."""
    row = {"hull": "P-T", "length": math.nan, "low": 0.1, "high": 0.3, "num_models": 2, "num_samples": 9}
    rows = [
        row | {"checkpoints": checkpoints, "quantity": quantity, "value": value, "num_examples": 50, "threshold": 0.2}
        for checkpoints, value in (("a, b", 0.11), ("c, d", 0.22))
        for quantity in ("mu", "epsilon", "delta", "distance")
    ]
    (grid,) = basins.basin(evidence(basin=pd.DataFrame(rows)))
    assert [(row[1], row[3][:4]) for row in grid.rows] == [("P-T", "0.11"), ("P-T", "0.22")]


def test_controls_and_floor_stand_under_the_pairs():
    """Range over pairs; the floor is that of pairs of two models, so the control of one model does not count."""
    grid = similarity.cka(evidence(cka=cka_table()))[0]
    assert dict(grid.rows) == {
        "P-T & P-T": "0.800",
        "P-T & RI-T": "0.300 (0.200 to 0.400)",
        "same model": "1.000",
        "permuted examples (floor)": "0.030 (0.020 to 0.040)",
    }
    assert "debiased estimator, 512 test examples" in grid.note


def test_every_pair_is_shown_with_its_interval():
    """In the folded part, beside the other estimators and measures."""
    opinion = cka_table().rename(columns={"cka": "value"}).assign(measure="SVCCA")
    grids = similarity.cka_other(evidence(cka=cka_table(), second_opinion=opinion))
    by_caption = {grid.caption: grid for grid in grids}
    pairs = by_caption["clipart, every pair with its interval"]
    assert pairs.rows[0] == ("P-T & P-T", "pt_1", "pt_2", "0.800 [0.700, 0.900]")
    assert "not debiased" in by_caption["clipart, SVCCA similarity"].note


def test_networks_without_a_common_layer_name_are_compared_by_their_closest_layers():
    """The largest CKA of each row of the heat map; a table of a model with itself alone is not shown."""
    own = cka_table()[-1:]
    rows = [("stem", "patch", 0.9, 0.0), ("stem", "blocks.0", 0.7, 0.1), ("fc", "patch", 0.1, -0.1)]
    rows += [("fc", "blocks.0", 0.4, 0.2), ("odd", "patch", math.nan, math.nan)]
    layers = pd.DataFrame(rows, columns=["layer", "layer_b", "cka", "permuted"]).assign(
        checkpoint_a="pt_1", checkpoint_b="rit_1", pair_kind="P-T & RI-T", label_a="net", label_b="vit", **KEYS
    )
    grids = similarity.cka(evidence(cka=own, cka_layers=layers))
    assert [grid.caption for grid in grids] == ["clipart: closest layers of net and vit"]
    assert grids[0].rows == (
        ("stem", "patch", "0.900", "0.000", "blocks.0", "0.700"),
        ("fc", "blocks.0", "0.400", "0.200", "patch", "0.100"),
    )
    assert similarity.cka_other(evidence(cka=own, cka_layers=layers)) == []
    both = similarity.cka(evidence(cka=cka_table(), cka_layers=layers))
    assert [grid.caption for grid in both] == ["Ours: clipart"]


def test_layers_without_a_spectrum_are_named():
    """Below the table of whole networks, once for each kind; nothing where every layer has one."""
    row = dict.fromkeys(spectrum.SUMMARIES, 2.0) | {"module": "all", "run": "pt_1", "label": "P-T", "epoch": "final"}
    for names in ("", "blocks.0.attn, places"):
        table = pd.DataFrame([row | {"left_out": names}, row | {"left_out": names, "run": "pt_2"}])
        note = spectrum.networks(evidence(spectrum=table))[0].note
        assert note.count("Without one are, in P-T") == bool(names)
        assert note.endswith(f": {names}." if names else "the paper's method ignores them.")


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
    pairs, over_pairs = mistakes.mistakes(evidence(mistakes=pd.DataFrame([pair]), mistakes_spread=spread))
    shown = dict(zip(pairs.columns, pairs.rows[0], strict=True))
    assert shown["uncommon, first"] == "33.3 % [25.0 %, 40.0 %]"
    assert shown["kappa"] == "0.500 [0.400, 0.600]"
    assert shown["uncommon, second"] == "60.0 %"
    assert "g1 is “only first right”" in pairs.note
    shown = dict(zip(over_pairs.columns, over_pairs.rows[0], strict=True))
    assert shown["pairs"] == "4"
    assert shown["accuracy, first"] == "50.0 % (40.0 % to 60.0 %) [30.0 %, 70.0 %]"
    assert shown["kappa"] == "0.500 (0.400 to 0.600) [0.300, 0.700]"


def spectra(stride: str = "honoured") -> Evidence:
    """A run from scratch at two epochs and a fine-tuned one: the whole network, its sum and one layer."""
    row = {"task": "clipart", "spectral_norm": 2.0, "ratio": 3.0, "stable_rank": 9.0, "effective_rank": 5.0}
    row |= {"condition": float("inf"), "num_values": 100, "stride": stride}
    rows = [
        row | {"run": run, "label": label, "epoch": epoch, "module": module, "frobenius": norm, "count_below_0.1": below}
        for run, label, epoch, norm, below in (
            ("rit_1", "RI-T", 0, 1.0, 90), ("rit_1", "RI-T", 15, 6.0, 30), ("pt_1", "P-T", 15, 8.0, 10),
        )
        for module in ("conv1", "all", "sum")
    ]  # fmt: skip
    small = {"task": "clipart", "threshold": 0.1, "difference": 0.2, "low": 0.05, "high": 0.3, "num_layers": 1}
    small |= {"layers_more_in_a": 1, "probability_smaller": 0.7}
    return evidence(spectrum=pd.DataFrame(rows), small_values=pd.DataFrame([small]))


def test_networks_are_shown_trained_and_untrained() -> None:
    """The last epoch of each kind, and RI-T's epoch 0 under a name of its own."""
    (grid,) = spectrum.networks(spectra())
    assert [row[:3] for row in grid.rows] == [
        ("clipart", "RI-T", "6"), ("clipart", "P-T", "8"), ("clipart", "RI-T, untrained", "1"),
    ]  # fmt: skip


def test_the_report_says_whether_strides_are_honoured() -> None:
    """In the note of every table of singular values."""
    for stride, word in (("honoured", "Strides are honoured"), ("ignored", "Strides are ignored")):
        for grid in (*spectrum.networks(spectra(stride)), *spectrum.layers(spectra(stride))):
            assert word in grid.note


def test_the_comparison_is_a_number_with_an_interval() -> None:
    """Shares in percent, beside the shares below the threshold that it compares."""
    shares, differences = spectrum.small_values(spectra())
    assert [row[-1] for row in shares.rows] == ["30.0 %", "10.0 %"]
    assert differences.rows == (("clipart", "0.1", "20.0 %", "5.0 % to 30.0 %", "1 of 1", "70.0 %"),)


def test_the_lowest_metric_of_a_line_stands_beside_the_barriers() -> None:
    """As the paper's Figures 4 and 16 have it: between the ends, on the test set, mean and range over pairs."""
    names = [("clipart.rit_1@final", "clipart.rit_2@final"), ("clipart.rit_1@final", "clipart.rit_3@final")]
    values = {-1.0: 0.01, 0.0: 0.7, 0.5: 0.1, 1.0: 0.6, 2.0: 0.02}
    points = pd.DataFrame(
        {"checkpoint_a": a, "checkpoint_b": b, "split": split, "alpha": alpha, "value": value + 0.1 * index}
        for index, (a, b) in enumerate(names)
        for split, shift in (("test", 0.0), ("train", -0.1))
        for alpha, value in ((alpha, value + shift) for alpha, value in values.items())
    ).assign(pair_kind="RI-T & RI-T", metric="accuracy")
    (grid,) = landscape.barriers(evidence(interpolation=points))
    assert grid.caption == "Ours: lowest test metric on the line, ends included"
    assert grid.rows == (("clipart", "RI-T & RI-T", "accuracy", "15.0 % (10.0 % to 20.0 %)"),)
