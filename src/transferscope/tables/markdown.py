"""Tables as Markdown."""

from __future__ import annotations

from transferscope.tables.grid import Grid


def markdown_table(grid: Grid) -> str:
    """A pipe table; numbers are aligned to the right."""
    rule = ["---" if index < grid.text_columns else "---:" for index in range(len(grid.columns))]
    lines = ["| " + " | ".join(map(escape, row)) + " |" for row in (grid.columns, *grid.rows)]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def escape(text: object) -> str:
    """Text that cannot break out of a cell of a pipe table, nor be taken for markup."""
    escaped = str(text).replace("\\", "\\\\").replace("\n", " ")
    for sign in "|*_`<>[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped
