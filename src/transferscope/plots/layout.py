"""Constrained layout with the same result each time."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox


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
