"""The figure of barriers between copies shows what the table holds."""

from __future__ import annotations

import numpy as np

from transferscope.plots.split_runs import barrier_by_split


def test_lines_are_means_over_runs(drawn) -> None:
    """A panel per kind of run, a line per way: at every split the mean over runs, in points."""
    table = drawn.split_runs()
    figure = barrier_by_split(table)
    for ax, label in zip(figure.axes, ("P-T", "RI-T"), strict=True):
        assert ax.get_title() == label
        for line, way in zip(ax.lines[:-1], ("straight", "aligned_rescaled"), strict=True):  # the last one is 0
            rows = table[(table["label"] == label) & (table["way"] == way) & (table["metric"] == "accuracy")]
            assert np.allclose(line.get_ydata(), 100 * rows.groupby("split_epoch")["barrier"].mean())
            assert line.get_xdata().tolist() == [0, 1, 4]


def test_loss_is_not_in_points(drawn) -> None:
    """The barrier of the loss keeps its unit."""
    table = drawn.split_runs()
    ax = barrier_by_split(table, metric="loss").axes[0]
    rows = table.query("label == 'P-T' and way == 'straight' and metric == 'loss'")
    assert np.allclose(ax.lines[0].get_ydata(), rows.groupby("split_epoch")["barrier"].mean())
    assert "nats" in ax.get_ylabel()


def test_without_rows_it_says_so(drawn) -> None:
    """Where all copies diverged the figure says it."""
    assert "diverged" in barrier_by_split(drawn.split_runs().iloc[:0]).axes[0].texts[0].get_text()
