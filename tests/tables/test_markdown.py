"""Tables as Markdown."""

from __future__ import annotations

from transferscope.tables.grid import Grid
from transferscope.tables.markdown import markdown_table


def test_markdown_cells_cannot_break_out() -> None:
    """Bars, markup and line ends in names are escaped."""
    grid = Grid("", ("a", "b"), (("x|y\n", "<b>*"),))
    assert markdown_table(grid).splitlines() == ["| a | b |", "| --- | ---: |", r"| x\|y  | \<b\>\* |"]
