"""The columns of all tables on the page `catalog`, written from their schemas in place of a comment."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from transferscope.datasets.schemas.registry import describe, named_schemas
from transferscope.tables.markdown import escape

PAGE = "catalog"
MARK = "<!-- The columns of every table follow here in the built pages; they are written from the schemas. -->"


def columns_of_tables() -> str:
    """A heading per pipeline, and below it each table with its meaning, key and columns."""
    parts = []
    for pipeline, tables in groupby(named_schemas(), key=lambda found: found[0]):
        parts.append(f"### Tables of {pipeline}\n")
        for _, name, schema in tables:
            key = ", ".join(f"`{column}`" for column in schema.metadata["key"])
            named = f" Each row has its own {key}." if key else ""
            parts.append(f"**`{name}`**. {schema.description}{named}\n")
            parts.append("| Column | Kind | Unit | Range | Meaning |\n|---|---|---|---|---|")
            parts += map(_row, describe(name).to_dict("records"))
            parts.append("")
    return "\n".join(parts)


def _row(column: dict[str, str]) -> str:
    cells = (_cell(column[name]) for name in ("kind", "unit", "range", "meaning"))
    return f"| `{column['column'].replace('|', '/')}` | {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text in which code in backticks stays code."""
    parts = text.split("`")
    return "`".join(part if index % 2 else escape(part) for index, part in enumerate(parts))


def _fill(app: Any, page: str, source: list[str]) -> None:
    if page == PAGE:
        assert MARK in source[0], f"docs/{PAGE}.md lacks the comment {MARK}"
        source[0] = source[0].replace(MARK, columns_of_tables())


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls it."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
