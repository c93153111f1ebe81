"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd
import rich
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transferscope.tables.grid import from_table

WIDTH = 1000
"""Characters of a line of Markdown, at most."""


def print_tables(tables: Mapping[str, pd.DataFrame], *, markdown: bool = False) -> None:
    """Print tables with their titles; as Markdown for a document, where no line is broken."""
    console = Console(width=WIDTH, no_color=True) if markdown else rich.get_console()
    for title, table in tables.items():
        grid = from_table(title, table, list(table.columns), most=len(table))
        shown = Table(title=None if markdown else title, box=box.MARKDOWN if markdown else box.SIMPLE)
        for index, head in enumerate(grid.columns):
            side: Literal["left", "right"] = "left" if index < grid.text_columns else "right"
            # Names in the first column stay whole where a terminal is narrow; heads of numbers wrap instead.
            shown.add_column(head, justify=side, no_wrap=markdown or index == 0)
        for row in grid.rows:
            shown.add_row(*map(Text, row))  # as it is: an error may hold what rich takes for markup
        console.print(shown)
