"""A figure as the files that show it: PNG for the screen, PDF for print."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200


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
    """Both files, the same bytes for the same figure: neither holds a date."""
    pdf, png = BytesIO(), BytesIO()
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None}, bbox_inches="tight")
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None}, bbox_inches="tight")
    return RenderedFigure(png.getvalue(), pdf.getvalue())
