"""Kinds of runs, spread over replicas, choice of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from transferscope.plots.rows import (
    choose,
    heading,
    how_many,
    kind_of_run,
    kinds_of,
    last_epoch_rows,
    require_columns,
    spread,
    spread_by_name,
    without_gaps,
)
from transferscope.system.errors import UserError


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        ("clipart.pt_1", "P-T"),
        ("clipart.pt_1@final", "P-T"),
        ("clipart.tuned_12@best", "tuned"),
        ("real_clipart.tuned_later_1", "tuned later"),
        ("mine_v2", "mine v2"),
    ],
)
def test_a_run_is_called_by_its_label_or_by_its_name(run, kind):
    """Of a run that no study labels, replica, task and epoch do not matter."""
    assert kind_of_run(run) == kind


def test_a_label_goes_before_the_name():
    """A user may call the runs of kind `mine` anything."""
    table = pd.DataFrame({"run": ["clipart.mine_1"], "label": ["P-T"]})
    assert kinds_of(table).tolist() == ["P-T"]
    assert kinds_of(table[["run"]]).tolist() == ["mine"]


def test_spread_is_mean_smallest_and_largest_at_each_x():
    """Two replicas at two points, by hand; rows come back in order of x."""
    table = pd.DataFrame({"x": [1, 0, 1, 0], "y": [3.0, 1.0, 5.0, 2.0]})
    summary = spread(table, "x", "y")
    assert summary.to_dict("list") == {"x": [0, 1], "mean": [1.5, 4.0], "low": [1.0, 3.0], "high": [2.0, 5.0]}


def test_spread_leaves_out_values_that_are_not_finite():
    """A diverged replica does not pull the mean to NaN or infinity."""
    table = pd.DataFrame({"x": [0, 0, 1, 1], "y": [1.0, np.nan, np.inf, np.nan]})
    assert spread(table, "x", "y").to_dict("list") == {"x": [0], "mean": [1.0], "low": [1.0], "high": [1.0]}


def test_spread_joins_alphas_that_differ_by_rounding():
    """0.1 + 0.2 and 0.3 are one point of the curve."""
    assert len(spread(pd.DataFrame({"x": [0.1 + 0.2, 0.3], "y": [1.0, 2.0]}), "x", "y")) == 1


def test_spread_by_name_keeps_the_order_of_the_names():
    """Modules stay in the order of the forward pass, missing ones are NaN."""
    table = pd.DataFrame({"module": ["fc", "stem"], "l2": [2.0, 1.0]})
    assert spread_by_name(table, "module", "l2", ["stem", "layer1", "fc"])["mean"].tolist()[::2] == [1.0, 2.0]


def test_missing_columns_are_named():
    """The error says which table, what it lacks and what it has."""
    with pytest.raises(UserError, match=r"table 'history' lacks the column lr; it has epoch"):
        require_columns(pd.DataFrame({"epoch": []}), ("epoch", "lr"), "history")


def test_choose_prefers_then_takes_the_first():
    """`wanted` wins, then `preferred`, then the first row."""
    table = pd.DataFrame({"features": ["flattened", "pooled"]})
    assert choose(table, "features", "flattened")["features"].tolist() == ["flattened"]
    assert choose(table, "features", None, ("pooled",))["features"].tolist() == ["pooled"]
    assert choose(table, "features", None)["features"].tolist() == ["flattened"]


def test_choose_refuses_what_is_not_there():
    """The error lists what is present."""
    with pytest.raises(UserError, match=r"no rows with path = 'long'; present: direct"):
        choose(pd.DataFrame({"path": ["direct"]}), "path", "long")


@pytest.mark.parametrize(
    ("epochs", "last"), [([0, 5, 15], "15"), (["0", "best", "final"], "final"), (["best", 0], "0")]
)
def test_the_last_epoch_of_a_run_is_final_or_the_largest_number(epochs, last):
    """Numbers and names may be mixed; `best` is not the last."""
    table = pd.DataFrame({"run": "a", "epoch": epochs})
    assert last_epoch_rows(table)["epoch"].astype(str).tolist() == [last]


def test_an_epoch_can_be_chosen_by_number_or_name():
    """5 and "5" are the same epoch."""
    assert len(last_epoch_rows(pd.DataFrame({"run": "a", "epoch": ["0", "5"]}), 5)) == 1


def test_an_empty_title_is_a_title():
    """Only a title that is not given is replaced by the task."""
    table = pd.DataFrame({"task": ["real"]})
    assert (heading(None, table), heading("", table)) == ("real", "")


def test_the_number_of_images_is_said_where_it_is_known():
    """One number of one part, of several parts the same or each its own."""
    table = pd.DataFrame({"split": ["test", "train"], "num_examples": [400, 400]})
    assert how_many(table) == " (400 images each)"
    assert how_many(table[:1]) == " (400 images)"
    assert how_many(table.assign(num_examples=[300, 1200])) == " (300 test, 1,200 train images)"
    assert how_many(table[["split"]]) == ""


def test_an_epoch_that_one_replica_alone_has_is_left_out():
    """Not the last ones of the runs that went on where another diverged."""
    of_run = {"a": [0, 3, 5, 6], "b": [0, 3, 6], "diverged": [0]}
    rows = [{"run": run, "epoch": epoch} for run, epochs in of_run.items() for epoch in epochs]
    kept = without_gaps(pd.DataFrame(rows), "epoch")
    assert sorted(zip(kept["run"], kept["epoch"], strict=True)) == [
        ("a", 0), ("a", 3), ("a", 6), ("b", 0), ("b", 3), ("b", 6), ("diverged", 0),
    ]  # fmt: skip
