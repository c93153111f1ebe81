"""A figure as the files that show it: PNG for the screen, PDF for print."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

DPI = 200
PADDING = 0.1
"""Inches of white around everything that is drawn."""
one_at_a_time = threading.Lock()
"""Held by a thread of a run that draws, as matplotlib promises nothing for several."""


@dataclass(frozen=True)
class RenderedFigure:
    """The contents of both files."""

    png: bytes
    pdf: bytes


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk; the PDF lies beside the PNG."""

    png: Path

    @property
    def pdf(self) -> Path:
        return self.png.with_suffix(".pdf")


def render(figure: Figure) -> RenderedFigure:
    """Both files, the same bytes for the same figure: neither holds a date.

    The figure is laid out once, at the resolution of the PNG, and both files show that layout. Left to itself,
    `savefig` draws it in vain, lays it out and looks for its edges for each file anew, in more time than drawing takes.
    """
    pdf, png = BytesIO(), BytesIO()
    with _laid_out(figure) as edges:
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None}, bbox_inches=edges)
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None}, bbox_inches=edges)
    return RenderedFigure(png.getvalue(), pdf.getvalue())


@contextmanager
def _laid_out(figure: Figure) -> Iterator[Bbox]:
    """Lay the figure out; inside nothing moves any more. Yields the edges of all that is drawn, padded, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from transferscope.plots.layout import lay_out

    engine, dpi, canvas = figure.get_layout_engine(), figure.dpi, figure.canvas
    figure.dpi = DPI
    try:
        renderer = FigureCanvasAgg(figure).get_renderer()
        lay_out(figure)
        edges = figure.get_tightbbox(renderer).padded(PADDING)
        figure.set_layout_engine(None)
        yield edges
    finally:
        figure.dpi = dpi
        figure.set_canvas(canvas)
        figure.set_layout_engine(engine)
