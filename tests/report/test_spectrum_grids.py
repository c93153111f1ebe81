"""Tables of spectra in the report."""

from __future__ import annotations

import pandas as pd
from transferscope.claims.results import TaskResults
from transferscope.report.grids import spectrum


def results(stride: str = "honoured") -> dict[str, TaskResults]:
    """An RI-T of two epochs and a P-T: the whole network, its sum and one layer."""
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
    return {
        "clipart": TaskResults("clipart", {}, {"spectrum": pd.DataFrame(rows), "small_values": pd.DataFrame([small])})
    }


def test_networks_are_shown_trained_and_untrained() -> None:
    """The last epoch of each kind, and RI-T's epoch 0 under a name of its own."""
    (grid,) = spectrum.networks(results())
    assert [row[:3] for row in grid.rows] == [
        ("clipart", "RI-T", "6"), ("clipart", "P-T", "8"), ("clipart", "RI, untrained", "1"),
    ]  # fmt: skip


def test_the_report_says_whether_strides_are_honoured() -> None:
    """In the note of every table of singular values."""
    for stride, word in (("honoured", "Strides are honoured"), ("ignored", "Strides are ignored")):
        for grid in (*spectrum.networks(results(stride)), *spectrum.layers(results(stride))):
            assert word in grid.note


def test_the_comparison_is_a_number_with_an_interval() -> None:
    """Shares in percent, beside the shares below the threshold that it compares."""
    shares, differences = spectrum.small_values(results())
    assert [row[-1] for row in shares.rows] == ["30.0 %", "10.0 %"]
    assert differences.rows == (("clipart", "0.1", "20.0 %", "5.0 % to 30.0 %", "1 of 1", "70.0 %"),)
