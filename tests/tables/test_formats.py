"""Numbers as the report prints them."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from transferscope.tables import formats
from transferscope.tables.columns import column
from transferscope.tables.grid import from_table


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("test_accuracy", 0.9214, "92.1 %"),
        ("kappa", 0.73512, "0.735"),
        ("gain_low", -0.02147, "-0.021"),
        ("train_fraction", 0.25, "25.0 %"),
        ("num_predicted_a", 1250, "1,250"),
        ("test_loss", 1.5, "1.500"),
        ("p_value", 1.26e-12, "1.3e-12"),
        ("common_mistakes", 3263, "3,263"),
        ("l2", 822.4312, "822.4"),
        ("mu", math.inf, "∞"),
        ("learned", True, "yes"),
        ("run", "pt_1", "pt_1"),
        ("metric", "auc", "AUC"),
        ("accuracy", math.nan, formats.MISSING),
        ("best_epoch", 15.0, "15"),
    ],
)
def test_cell(name: str, value: object, text: str) -> None:
    """Accuracy in percent with one decimal, kappa and loss with three decimals, counts with separators."""
    assert formats.cell(value, column(name).show) == text


@pytest.mark.parametrize("name", ["shared_values", "cka_layers", "differences", "speedometer", "lossless", "audit_auc"])
def test_a_name_that_only_contains_a_word_has_no_format_of_it(name: str) -> None:
    """Formats belong to columns, not to parts of names; the heading is the name."""
    assert column(name).show is formats.plain
    assert column(name).heading == name.replace("_", " ")


def test_a_table_may_bring_the_formats_of_its_metric() -> None:
    """A value is percent or AUC as the table's metric says."""
    table = pd.DataFrame({"run": ["a"], "final_test": [0.9214]})
    for metric, text in (("accuracy", "92.1 %"), ("auc", "0.921")):
        grid = from_table("runs", table, list(table.columns), show={"final_test": formats.score(metric)})
        assert grid.rows == (("a", text),)


def test_points_have_no_negative_zero() -> None:
    """A gap that rounds to nothing is 0.0."""
    assert formats.points(-0.0001, sign=True) == "0.0"
    assert formats.points(0.031, sign=True) == "+3.1"


def test_significant() -> None:
    """Readable from hundredths to millions."""
    assert [formats.significant(value) for value in (0.0123456, 23249.4, 4.7e9, 0.0)] == [
        "0.01235",
        "23,249",
        "4.700e+09",
        "0",
    ]


def test_long_table_says_what_it_leaves_out() -> None:
    """The number of rows is stated where not all are shown."""
    grid = from_table("runs", pd.DataFrame({"run": list("abc"), "kappa": [0.1, 0.2, 0.3]}), ["run", "kappa"], most=2)
    assert grid.rows == (("a", "0.100"), ("b", "0.200"))
    assert "The first 2 of 3 rows." in grid.note
