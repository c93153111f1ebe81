"""Analyses and figures of the user's own."""

from __future__ import annotations

from transferscope.claims.evidence import Evidence
from transferscope.report.chapters.chapter import Chapter, Section, Words
from transferscope.tables.grid import Grid, from_table

SHOWN_ROWS = 40
"""Longer tables are cut on the page; the catalog has them whole."""


def tables(evidence: Evidence) -> list[Grid]:
    """Every table of the user's own analyses, per task."""
    grids = []
    for task in evidence.tasks:
        for name, table in evidence.results[task].tables.items():
            if name.startswith("own_") and len(table):
                rest = len(table) - SHOWN_ROWS
                note = f"the first {SHOWN_ROWS} of {len(table)} rows" if rest > 0 else ""
                caption = f"{task}: {name.removeprefix('own_').replace('_', ' ')}"
                entry = f"{task}.{name}.table"
                grids.append(from_table(caption, table[:SHOWN_ROWS], list(table.columns), entry=entry, note=note))
    return grids


CHAPTER = Chapter(
    title="Analyses of your own",
    appendix="",
    sections=(
        Section(
            id="own",
            numbers="Own",
            title="Analyses of your own",
            see="Tables and figures of the modules that `analyses.own.modules` names.",
            analysis="own",
            figures=("own",),
            tables=tables,
            of_files=Words("Tables and figures of the modules that `analyses.own.modules` names."),
        ),
    ),
)
