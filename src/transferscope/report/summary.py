"""The report in short, as Markdown: claims and the tables beside the paper's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from transferscope.claims.results import TaskResults
from transferscope.report.page import _environment, context
from transferscope.tables.grid import Grid


def write_markdown(
    study: Mapping[str, Any],
    claims: pd.DataFrame,
    results: Mapping[str, TaskResults],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """The same claims and key tables as the page, without figures and long tables."""
    content = context(study, claims, results, provenance or {})
    return _environment().get_template("summary.md.j2").render(content | {"table": markdown_table, "cell": cell})


def markdown_table(grid: Grid) -> str:
    """A pipe table; numbers are aligned to the right."""
    rule = ["---" if index < grid.text_columns else "---:" for index in range(len(grid.columns))]
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in (grid.columns, *grid.rows)]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


BREAKS = re.compile("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029\0]")
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
MARKS = "\\|*_`[]~$#"
"""Signs that some dialect of Markdown reads as markup, `$` as mathematics."""


def cell(text: object) -> str:
    """Text that cannot break out of a cell of a pipe table, nor be taken for Markdown or HTML by any dialect."""
    line = BREAKS.sub(" ", str(text))
    return "".join(HTML.get(sign, f"\\{sign}" if sign in MARKS else sign) for sign in line)
