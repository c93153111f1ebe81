"""The card of a pair shows what the tables hold."""

from __future__ import annotations

import numpy as np
import pytest

from transferscope.plots.connections import LOOKS, WAYS, connection_card
from transferscope.system.errors import UserError


def test_curves_bars_and_profile_are_those_of_the_tables(drawn) -> None:
    """A curve per way at its points, a bar in points per way, and for each module a bar and a point of the line."""
    points, barriers, modules = drawn.connection()
    ways, heights, profile = connection_card(points, barriers, modules).axes
    names = [way for way in WAYS if way in LOOKS and way != "tempered"]
    test = points.query("split == 'test' and metric == 'accuracy'")
    for line, way in zip(ways.lines, names, strict=True):
        assert np.allclose(line.get_ydata(), test[test["way"] == way]["value"])
    expected = barriers.query("split == 'test' and metric == 'accuracy'").set_index("way")["barrier"].loc[names]
    assert np.allclose([bar.get_width() for bar in heights.patches], 100 * expected)
    alone = modules.query("profile == 'alone' and metric == 'accuracy'")
    assert np.allclose([bar.get_height() for bar in profile.patches], 100 * alone["drop"])
    cumulative = modules.query("profile == 'cumulative' and metric == 'accuracy' and way == 'modules'")
    assert np.allclose(profile.lines[0].get_ydata(), 100 * cumulative["drop"])


def test_tempered_way_is_in_the_loss_alone(drawn) -> None:
    """A temperature changes nothing but the loss."""
    card = connection_card(*drawn.connection(), metric="loss")
    assert "tempered" in [text.get_text() for text in card.legends[0].get_texts()]
    card = connection_card(*drawn.connection())
    assert "tempered" not in [text.get_text() for text in card.legends[0].get_texts()]


def test_without_rows_it_says_so(drawn) -> None:
    """Where a run diverged there are no rows; a column that is missing is named."""
    points, barriers, modules = drawn.connection()
    empty = connection_card(points.iloc[:0], barriers.iloc[:0], modules.iloc[:0])
    assert "diverged" in empty.axes[0].texts[0].get_text()
    with pytest.raises(UserError, match="lacks the column way"):
        connection_card(points.drop(columns="way"), barriers, modules)


def test_intervals_below_zero_are_shown_to_their_end(drawn) -> None:
    """A way without a barrier may have less than 0 by chance; where none has, bars begin at the axis."""
    points, barriers, modules = drawn.connection()
    heights = connection_card(points, barriers, modules).axes[1]
    ends = barriers.query("split == 'test' and metric == 'accuracy'")[["barrier_low", "barrier_high"]]
    assert (heights.get_xlim()[0] == 0) == (ends.min().min() >= 0)
    lower = barriers.assign(barrier=0.0, barrier_low=-0.03, barrier_high=0.01)
    assert connection_card(points, lower, modules).axes[1].get_xlim()[0] <= -3
    higher = barriers.assign(barrier=0.2, barrier_low=0.1, barrier_high=0.3)
    assert connection_card(points, higher, modules).axes[1].get_xlim()[0] == 0
