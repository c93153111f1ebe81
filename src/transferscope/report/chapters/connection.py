"""Ways between two models other than the straight line (beyond the paper)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.claims.run_facts import main_metric
from transferscope.experiment.names import CheckpointName
from transferscope.experiment.run import printed_names
from transferscope.plots.connections import WAYS
from transferscope.report import published
from transferscope.report.chapters.chapter import Chapter, Section, Words, per_task
from transferscope.tables import formats
from transferscope.tables.grid import Grid

EVERY_COLUMN = (
    "pair_kind", "checkpoint_a", "checkpoint_b", "way", "split", "metric", "barrier", "barrier_low", "barrier_high",
    "left", "left_low", "left_high", "moved",
)  # fmt: skip


def barriers_left(evidence: Evidence) -> list[Grid]:
    """Barrier on each way on the test set in the main metric, a row per pair."""
    rows: list[tuple[str, ...]] = []
    tables, names = _between_runs(evidence, "connection"), _names(evidence)
    present = {way for table in tables.values() for way in table["way"]}
    shown = [way for way in WAYS if way in present]
    for task, table in tables.items():
        for (kind, a, b), part in table.groupby(["pair_kind", "checkpoint_a", "checkpoint_b"], sort=False):
            by_way = {row["way"]: _cell(row) for row in part.to_dict("records")}
            cells = [by_way.get(way, formats.MISSING) for way in shown]
            runs = " & ".join(names[str(CheckpointName.parse(str(name)).run_name)] for name in (a, b))
            moved = part["moved"].dropna()
            rows.append(
                (task, str(kind), runs, formats.percent(moved.iloc[0]) if len(moved) else formats.MISSING, *cells)
            )
    if not rows:
        return []
    note = (
        "Barrier in points (95 % over test images). On a flat way it is 0 on average. Below 0 it is by chance, or "
        "because the way is better than the chord of its ends. "
        "Moved: the part of the channels that matching moves."
    )
    columns = ("task", "pair", "runs", "moved", *(WAYS[way] for way in shown))
    grid = Grid(
        "Ours: what each way leaves of the barrier, test",
        columns, tuple(rows), note=note, entry="<task>.connection.table", text_columns=3,
    )  # fmt: skip
    return [grid]


def _names(evidence: Evidence) -> dict[str, str]:
    """Of the runs in a column beside that of their kinds: `pt_1`; of files as these are printed everywhere."""
    runs = evidence.plan.runs
    return (
        printed_names(runs.values()) if evidence.plan.compares_files else {name: run.name for name, run in runs.items()}
    )


def half_way(evidence: Evidence) -> list[Grid]:
    """Ends, and the middle of each way that is measured in the main metric, on the test set: a row per pair."""
    rows: list[tuple[str, ...]] = []
    tables, names = _between_runs(evidence, "connection_points"), _names(evidence)
    present = {way for table in tables.values() for way in table["way"]}
    shown = [way for way in WAYS if way in present]
    for task, table in tables.items():
        show = formats.score(main_metric(table))
        for (kind, a, b), part in table.groupby(["pair_kind", "checkpoint_a", "checkpoint_b"], sort=False):
            values = part.set_index(["way", "alpha"])["value"]
            ends = ", ".join(show(float(values.get(("straight", alpha), float("nan")))) for alpha in (0.0, 1.0))
            runs = " & ".join(names[str(CheckpointName.parse(str(name)).run_name)] for name in (a, b))
            middles = [show(float(values.get((way, 0.5), float("nan")))) for way in shown]
            rows.append((task, str(kind), runs, ends, *middles))
    if not rows:
        return []
    columns = ("task", "pair", "runs", "ends", *(WAYS[way] for way in shown))
    note = "Test accuracy (AUC where images have several labels) at both ends, and in the middle of each way."
    grid = Grid(
        "Ours: test metric half-way between two networks",
        columns, tuple(rows), note=note, entry="<task>.connection_points.table", text_columns=3,
    )  # fmt: skip
    return [grid]


def ways_left(evidence: Evidence) -> list[Grid]:
    """The middles of the ways, and what they leave of the barriers."""
    return [*half_way(evidence), *barriers_left(evidence)]


def _between_runs(evidence: Evidence, name: str) -> dict[str, pd.DataFrame]:
    """Rows on the test set in the main metric by task, without copies of runs, which have a section of their own."""
    by_task = {}
    for task, table in evidence.each(name):
        copies = [
            any(evidence.spec(CheckpointName.parse(end).run_name).split_from for end in ends)
            for ends in zip(table["checkpoint_a"], table["checkpoint_b"], strict=True)
        ]
        by_task[task] = _main_rows(table[~np.array(copies)])
    return by_task


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


def barriers_by_split(evidence: Evidence) -> list[Grid]:
    """Barrier between copies of one run on the test set in the main metric, a column per epoch of the split."""
    tables = {task: _main_rows(table) for task, table in evidence.each("split_runs")}
    epochs = sorted({int(epoch) for table in tables.values() for epoch in table["split_epoch"]})
    columns = ["barrier", "barrier_low", "barrier_high"]
    rows: list[tuple[str, ...]] = []
    for task, table in tables.items():
        for (label, way), part in table.groupby(["label", "way"], sort=False):
            means = part.groupby("split_epoch")[columns].mean()
            by_epoch = {
                int(epoch): _cell(row) for epoch, row in zip(means.index, means.to_dict("records"), strict=True)
            }
            cells = [by_epoch.get(epoch, formats.MISSING) for epoch in epochs]
            rows.append((task, str(label), WAYS[str(way)], str(part["run"].nunique()), *cells))
    if not rows:
        return []
    note = "Barrier in points, mean over runs (with that of their intervals of 95 % over test images)."
    heads = ("task", "run", "way", "runs", *(f"split after {epoch}" for epoch in epochs))
    grid = Grid(
        "Ours: barrier between a run and its copy, test", heads, tuple(rows), note=note,
        entry="<task>.split_runs.table", text_columns=3,
    )  # fmt: skip
    return [grid]


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
            tables=ways_left,
            folded=every_way,
            note="Left: the metric on the ways. Middle: the barrier on each, the largest gap to the chord of the ends, "
            "with its interval over test images. Right: what a network loses when one module (bars), or all modules as "
            "far as it (line), are set half-way to the other's. A curve's bend is trained on the training images, so "
            "its points may be better than both ends.",
            of_files=Words(
                "Left the metric on each way from the first model to the second, in the middle the barrier on it, "
                "right what a network loses when one module (bars), or all modules as far as it (line), are set "
                "half-way to the other's. Where matching of channels (aligned) or a correction of their variance "
                "(rescaled) takes a barrier away, it was one of order or scale.",
                "A barrier is the largest distance below the chord of the ends, estimated as on the straight line and "
                "with its interval over test images. Statistics of BatchNorm are recomputed at every point of every "
                "way, which corrects the scale of channels: rescaling changes nothing where there are such layers. "
                "Channels are matched by weights, without images. Falls of modules are means over both models, with "
                "channels in the order of the files unless the way is aligned_modules.",
            ),
        ),
        Section(
            id="split_runs",
            numbers="Beyond the paper",
            title="When is the basin chosen?",
            see="Between a P-T and a copy that takes the examples in another order there should be no barrier, from "
            "whichever epoch on it does so: pre-training has chosen the basin. Between an RI-T and its copy there "
            "should be a high one where they split before the first epoch, and a lower one the later they split.",
            analysis="landscape",
            option="connection",
            figures=("split_runs",),
            tables=barriers_by_split,
            note="A copy shares all that decides a run up to the epoch of the split: initial weights, order of the "
            "examples, learning rates. From there on its examples come in another order. Bands: mean of the intervals "
            "over test images.",
        ),
    ),
)
