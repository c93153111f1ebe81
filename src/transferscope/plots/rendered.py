"""A figure as the files that show it: PNG for the screen, PDF for print."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from matplotlib.figure import Figure

DPI = 200


@dataclass(frozen=True)
class RenderedFigure:
    """The contents of both files."""

    png: bytes
    pdf: bytes


def render(figure: Figure) -> RenderedFigure:
    """Both files, the same bytes for the same figure: neither holds a date."""
    pdf, png = BytesIO(), BytesIO()
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None}, bbox_inches="tight")
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None}, bbox_inches="tight")
    return RenderedFigure(png.getvalue(), pdf.getvalue())
