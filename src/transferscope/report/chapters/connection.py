"""Ways between two models other than the straight line (beyond the paper)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from transferscope.claims.evidence import Evidence, main_metric
from transferscope.experiment.names import CheckpointName
from transferscope.plots.connections import WAYS
from transferscope.report import published
from transferscope.report.chapters.chapter import Chapter, Section, per_task
from transferscope.tables import formats
from transferscope.tables.grid import Grid

EVERY_COLUMN = (
    "pair_kind", "checkpoint_a", "checkpoint_b", "way", "split", "metric", "barrier", "barrier_low", "barrier_high",
    "left", "left_low", "left_high", "moved",
)  # fmt: skip


def barriers_left(evidence: Evidence) -> list[Grid]:
    """Barrier on each way on the test set in the main metric, a row per pair."""
    rows: list[tuple[str, ...]] = []
    tables = {task: _main_rows(table) for task, table in evidence.each("connection")}
    present = {way for table in tables.values() for way in table["way"]}
    shown = [way for way in WAYS if way in present]
    for task, table in tables.items():
        for (kind, a, b), part in table.groupby(["pair_kind", "checkpoint_a", "checkpoint_b"], sort=False):
            by_way = {row["way"]: _cell(row) for row in part.to_dict("records")}
            cells = [by_way.get(way, formats.MISSING) for way in shown]
            runs = " & ".join(CheckpointName.parse(str(name)).run for name in (a, b))
            moved = part["moved"].dropna()
            rows.append(
                (task, str(kind), runs, formats.percent(moved.iloc[0]) if len(moved) else formats.MISSING, *cells)
            )
    if not rows:
        return []
    note = (
        "Barrier in points (95 % over test images); below the chord of the ends nowhere: 0. Moved: the part of the "
        "channels that matching moves."
    )
    columns = ("task", "pair", "runs", "moved", *(WAYS[way] for way in shown))
    grid = Grid(
        "Ours: what each way leaves of the barrier, test",
        columns, tuple(rows), note=note, entry="<task>.connection.table", text_columns=3,
    )  # fmt: skip
    return [grid]


def _main_rows(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["split"] == "test") & (table["metric"] == main_metric(table))]


def _cell(row: Mapping[Hashable, Any]) -> str:
    bounds = [float(row[name]) for name in ("barrier_low", "barrier_high")]
    interval = "" if pd.isna(bounds).any() else f" ({formats.points(bounds[0])} to {formats.points(bounds[1])})"
    return f"{formats.points(float(row['barrier']))}{interval}"


def every_way(evidence: Evidence) -> list[Grid]:
    """Every way, part and metric, with the part of the straight line's barrier that is left."""
    note = (
        "left: the part of the straight line's barrier, empty where that line has none beyond doubt. Accuracy and AUC "
        "are fractions, the loss is in nats per example."
    )
    return per_task(evidence, "connection", ", ways of every pair", EVERY_COLUMN, note)


CHAPTER = Chapter(
    title="Is the barrier real?",
    appendix="beyond the paper",
    sections=(
        Section(
            id="connection",
            numbers="Beyond the paper",
            title="Ways between two models",
            see="Between two P-T all ways should be flat, with no channel moved. Between two RI-T the straight line "
            "should fall deep; with channels matched and their variance corrected most of the barrier should be gone, "
            "and along a trained curve all of it.",
            analysis="landscape",
            option="connection",
            figures=("connection",),
            paper=(published.FIXUP_WIDTHS,),
            tables=barriers_left,
            folded=every_way,
            note="Left: the metric on the ways. Middle: the barrier on each, the largest gap to the chord of the ends, "
            "with its interval over test images. Right: what a network loses when one module (bars), or all modules as "
            "far as it (line), are set half-way to the other's. A curve's bend is trained on the training images, so "
            "its points may be better than both ends.",
        ),
    ),
)
