"""Tables as Markdown."""

from __future__ import annotations

from transferscope.tables.grid import Grid
from transferscope.tables.markdown import escape, markdown_table


def test_markdown_cells_cannot_break_out() -> None:
    """Bars, markup and line ends in names are escaped; no HTML is left, whatever the dialect makes of a backslash."""
    grid = Grid("", ("a", "b"), (("x|y\n", "<b>*"),))
    assert markdown_table(grid).splitlines() == ["| a | b |", "| --- | ---: |", r"| x\|y  | &lt;b&gt;\* |"]
    assert escape("<script>$x_1$ &lt; ~a~\u2028# b\r[c](d)") == r"&lt;script&gt;\$x\_1\$ &amp;lt; \~a\~ \# b \[c\](d)"
