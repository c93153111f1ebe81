"""Figures whose texts are what they are, and constrained layout with the same result each time."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def plain_figure(**options: Any) -> Figure:
    """A figure in which a dollar sign is a dollar sign: text is never read as mathematics. options: of `Figure`."""
    return _PlainFigure(**options)


class _PlainFigure(Figure):
    """A figure in which a dollar sign is a dollar sign: labels and names of classes are no formulas.

    Matplotlib would set text between two of them as mathematics, and raise an error where it is none. Its setting for
    that holds for the whole process, which is not ours alone.
    """

    def draw(self, renderer: Any) -> None:
        """Draw all, texts as plain ones."""
        self.make_texts_plain()
        super().draw(renderer)

    def make_texts_plain(self) -> None:
        """Read no text as mathematics, of those that there are now."""
        for text in self.findobj(Text):
            text.set_parse_math(False)


def lay_out(figure: Figure) -> None:
    """Give everything its place, as drawing does, without drawing."""
    if isinstance(figure, _PlainFigure):
        figure.make_texts_plain()
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)


class SettledLayout(ConstrainedLayoutEngine):
    """Matplotlib's constrained layout without the last digits of its positions.

    These depend on where the solver's variables lie in memory, and showed as the sign of a zero in a PDF.
    """

    def execute(self, fig: Figure) -> None:
        """Lay the figure out, as matplotlib does before it draws."""
        super().execute(fig)
        for ax in fig.axes:
            corners = np.round(ax.get_position(original=True).get_points(), 6)
            # Not `set_position`, which takes the axes out of the layout.
            ax._set_position(Bbox(corners), which="original")  # type: ignore[attr-defined]
