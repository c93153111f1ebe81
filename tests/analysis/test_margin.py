"""Margins by hand."""

from __future__ import annotations

import math

import pytest
import torch

from transferscope.analysis.margin import margin_row, margins


def test_the_class_against_the_best_other_one():
    """Negative where the prediction is wrong."""
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.0, 5.0]])
    assert margins(logits, torch.tensor([0, 1, 2])).tolist() == [1, -2, 5]


def test_every_known_label_of_several():
    """The logit with the sign of its label; unknown ones have none."""
    logits = torch.tensor([[3.0, -1.0], [2.0, 0.5]])
    labels = torch.tensor([[1, 0], [-1, 0]], dtype=torch.int8)
    assert margins(logits, labels).tolist() == [3, 1, -0.5]


def test_all_but_a_twentieth_reach_the_margin():
    """Of margins 0 … 100 the one at 5 %, and the median."""
    logits = torch.stack([torch.arange(101.0), torch.zeros(101)], dim=1)
    row = margin_row(logits, torch.zeros(101, dtype=torch.long))
    assert row == pytest.approx({"margin": 5, "margin_median": 50})


def test_no_number_where_there_is_none():
    """Of logits that are not finite, and of findings that are all unknown."""
    for logits, labels in ((torch.tensor([[math.nan, 1.0]]), torch.tensor([0])), (torch.ones(1, 2), -torch.ones(1, 2))):
        assert all(math.isnan(value) for value in margin_row(logits, labels).values())
