"""Tables as Markdown."""

from __future__ import annotations

import re

from transferscope.tables.grid import Grid

BREAKS = re.compile("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029\0]")
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
MARKS = "\\|*_`[]~$#"
"""Signs that some dialect of Markdown reads as markup, `$` as mathematics."""


def markdown_table(grid: Grid) -> str:
    """A pipe table; numbers are aligned to the right."""
    rule = ["---" if index < grid.text_columns else "---:" for index in range(len(grid.columns))]
    lines = ["| " + " | ".join(map(escape, row)) + " |" for row in (grid.columns, *grid.rows)]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def escape(text: object) -> str:
    """Text that cannot break out of a cell of a pipe table, nor be taken for Markdown or HTML by any dialect."""
    line = BREAKS.sub(" ", str(text))
    return "".join(HTML.get(sign, f"\\{sign}" if sign in MARKS else sign) for sign in line)
