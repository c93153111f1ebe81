"""The common look of the figures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from transferscope.plots import style


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.001, "0.001"), (1000, "1000"), (1e-5, "10⁻⁵"), (-1e4, "\N{MINUS SIGN}10⁴"), (250, "250")],
)
def test_powers_of_ten_are_written_without_math_text(value, text):
    """Near 1 as plain numbers, far from it with superscripts."""
    assert style.power_label(value) == text


def test_long_names_keep_both_ends():
    """The shortened name has the allowed length and tells names of one stem apart."""
    text = style.shorten("the_first_very_long_class_name_7", 12)
    assert len(text) == 12
    assert text.startswith("the_f")
    assert text.endswith("name_7")


def test_known_kinds_keep_their_look_whatever_else_is_drawn():
    """P-T is the same blue alone, beside others and beside unknown kinds."""
    alone = style.looks_for(["P-T"])["P-T"]
    assert style.looks_for(["mine", "RI-T", "P-T"])["P-T"] == alone == style.LOOKS["fine_tuned",]


def test_no_two_kinds_of_one_figure_look_the_same():
    """Also variants of a kind and kinds that are not known."""
    kinds = ["P-T", "P-T large lr", "RI-T", "RI-T small lr", "RI-T same init", "mine", "yours"]
    assert len(set(style.looks_for(kinds).values())) == len(kinds)
    pairs = ["P-T & P-T", "P-T union & P-T", "RI-T & RI-T", "RI-T & RI-T small lr", "a & b"]
    assert len(set(style.looks_for(pairs).values())) == len(pairs)


def test_a_variant_takes_the_colour_of_its_kind():
    """P-T at another learning rate is blue and dashed; a union pair alone looks like the plain pair."""
    looks = style.looks_for(["P-T", "P-T large lr"])
    assert looks["P-T"].colour == looks["P-T large lr"].colour
    assert looks["P-T"].dash != looks["P-T large lr"].dash
    assert style.looks_for(["P-T union & P-T"])["P-T union & P-T"] == style.LOOKS["fine_tuned", "fine_tuned"]


def test_kinds_come_in_the_usual_order():
    """A variant follows its base, unknown kinds come last."""
    assert style.in_usual_order(["mine", "RI-T", "P-T large lr", "P-T"]) == ["P-T", "P-T large lr", "RI-T", "mine"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1, 2, 3], "linear"), ([0.01, 5], "log"), ([0, 0.01, 5], "symlog"), ([-0.01, 5], "symlog"), ([np.nan], "linear")],
)
def test_the_scale_follows_the_values(values, kind):
    """Log needs positive values over a wide range; zeros or signs make it symlog."""
    _, axes = style.new_figure()
    assert style.scale_for(axes[0, 0], np.array(values)) == axes[0, 0].get_yscale() == kind


def test_an_accuracy_axis_stays_near_its_bounds_and_does_not_magnify_noise():
    """Values of .8 to .801 get an axis of at least .04."""
    _, axes = style.new_figure()
    style.metric_axis(axes[0, 0], "accuracy", np.array([0.8, 0.801]))
    low, high = axes[0, 0].get_ylim()
    assert high - low >= 0.04
    style.metric_axis(axes[0, 0], "accuracy", np.array([0.0, 1.0]))
    assert axes[0, 0].get_ylim() == pytest.approx((0, 1), abs=0.03)


def test_a_figure_without_data_says_why():
    """Also with the note on generated images."""
    figure = style.empty_figure("nothing was measured", style.GENERATED_NOTE)
    texts = [text.get_text() for text in (*figure.axes[0].texts, *figure.texts)]
    assert texts == ["nothing was measured", "generated images"]


def test_the_note_survives_a_tight_crop():
    """`bbox_inches="tight"` keeps the footnote, and the layout leaves it a line of its own."""
    figure = style.add_note(style.new_figure()[0], style.GENERATED_NOTE)
    figure.draw_without_rendering()
    note, box = figure.texts[0].get_window_extent(), figure.get_tightbbox()
    assert box.y0 * figure.dpi <= note.y0 + 1
    assert note.y1 < figure.axes[0].get_tightbbox().y0


def test_plots_need_neither_torch_nor_pyplot():
    """Importing every module of figures leaves both unloaded, and the settings of matplotlib as they were."""
    code = """
import sys, matplotlib
before = matplotlib.rcParams.copy()
from transferscope.plots import barriers, cka, class_labels, criticality, curves, distances, galleries, mistakes, spectrum
assert "torch" not in sys.modules and "matplotlib.pyplot" not in sys.modules and "kedro" not in sys.modules
assert matplotlib.rcParams.copy() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_layout_has_no_last_digits():
    """Positions are whole multiples of a millionth of the figure: what the solver adds below that varies by run."""
    figure, axes = style.new_figure(2, 3)
    axes[0, 0].set_ylabel("a label that takes room")
    figure.draw_without_rendering()
    corners = np.array([ax.get_position(original=True).get_points() for ax in figure.axes])
    assert (corners == np.round(corners, 6)).all()
    assert len(np.unique(corners[:, 0, 0])) == 3
