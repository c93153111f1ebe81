"""Any text is a label: no figure reads it as mathematics, takes it apart, or grows with it."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from plots.test_every_figure import CASES
from transferscope.experiment.pairs import pair_kind
from transferscope.plots import cka, galleries
from transferscope.plots.rates import by_kind_and_rate
from transferscope.plots.rendered import render
from transferscope.plots.style import new_figure

LABELS = (
    r"$\frac{a}{$ and $x_1$", "SGD & mixup", "a.b@final", "<b>&amp;</b>", "100 % \\alpha {x} ^_", "🦙 模型 Größe", "W" * 200,
    "rsplit, lr 0.1", " & ",
)  # fmt: skip
"""Formulas that are none, signs that separate elsewhere, scripts without a glyph, the longest."""


class Relabelled:
    """Drawn tables whose labels, kinds of pair and names of classes are awkward ones."""

    def __init__(self, drawn: Any) -> None:
        self.drawn = drawn

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.drawn, name)

        def make(*args: Any, **options: Any) -> Any:
            made = function(*args, **options)
            return relabelled(made) if isinstance(made, pd.DataFrame) else made

        return make


def relabelled(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    for column in ("pair_kind", "label", "class_name", "hull", "true_label", "prediction_a", "prediction_b"):
        if column in table:
            values = {value: LABELS[place % len(LABELS)] for place, value in enumerate(table[column].unique())}
            named = (
                {value: pair_kind(text, text) for value, text in values.items()} if column == "pair_kind" else values
            )
            table[column] = table[column].map(named)
    if "run" in table and "label" not in table and "pair_kind" not in table:
        runs = {run: LABELS[place % len(LABELS)] for place, run in enumerate(table["run"].unique())}
        table["label"] = table["run"].map(runs)
    return table


SHOWN = sorted(name for name in CASES if not name.startswith(("contact", "class sizes", "labels together")))


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", SHOWN)
def test_any_text_is_a_label(drawn, name: str) -> None:
    """Every figure is drawn with labels that hold formulas, separators, markup and 200 letters, and stays a page wide."""
    rendered = render(CASES[name](Relabelled(drawn)))
    width, height = Image.open(io.BytesIO(rendered.png)).size
    assert width < 4500
    assert height < 6000


def test_a_dollar_sign_is_a_dollar_sign() -> None:
    """Text between two of them is as wide as its letters, in titles, ticks and legends alike."""
    figure, axes = new_figure()
    ax = axes[0, 0]
    ax.plot([0, 1], label=r"$\foo$")
    ax.set_title(r"$x_1$")
    ax.set_xticks([0, 1], [r"$\bar$", "b"])
    ax.legend()
    render(figure)
    assert not any(text.get_parse_math() for text in (ax.title, *ax.get_xticklabels(), *ax.get_legend().get_texts()))


def test_the_sides_of_a_heat_map_come_from_columns(drawn) -> None:
    """A label that holds " & " stands whole at its axis."""
    table = drawn.cka_layers(kinds=("P-T & RI-T",))
    table = table.assign(pair_kind=pair_kind("SGD & mixup", "b"), label_a="SGD & mixup", label_b="b")
    ax = cka.cka_heat_map(table).axes[0]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("layer of SGD & mixup", "layer of b")


def test_long_names_of_models_leave_room_for_predictions(drawn) -> None:
    """The gallery shortens them; the predictions are still there."""
    figure = galleries.uncommon_mistakes_gallery(
        drawn.images(), drawn.gallery(), name_a="x" * 200, name_b="SGD & mixup"
    )
    captions = [ax.get_xlabel() for ax in figure.axes if ax.get_xlabel()]
    assert captions
    assert all(len(line) < 60 for caption in captions for line in caption.splitlines())


def test_labels_that_differ_in_their_words_on_the_rate_stay_apart(drawn) -> None:
    """`P-T` and `P-T large lr` are one kind with two rates; two schedules at one rate are two kinds."""
    history = drawn.history(runs=("a_1", "b_1")).assign(lr=0.1)
    schedules = history.assign(
        label=history["run"].map({"clipart.a_1": "SGD lr cosine", "clipart.b_1": "SGD lr steps"})
    )
    assert list(map(str, by_kind_and_rate(schedules))) == ["SGD lr cosine, lr 0.1", "SGD lr steps, lr 0.1"]
    rates = history["run"].map({"clipart.a_1": 0.1, "clipart.b_1": 0.2})
    labels = history["run"].map({"clipart.a_1": "P-T", "clipart.b_1": "P-T large lr"})
    assert list(map(str, by_kind_and_rate(history.assign(label=labels, lr=rates)))) == ["P-T, lr 0.1", "P-T, lr 0.2"]
