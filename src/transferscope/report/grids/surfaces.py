"""Tables of basins and planes, which go beyond the paper's figures."""

from __future__ import annotations

import math
from typing import Any

from transferscope.claims.evidence import main_metric
from transferscope.report.grids.common import Results, each, if_any, score
from transferscope.tables import formats
from transferscope.tables.grid import Grid


def basin(results: Results) -> list[Grid]:
    """(epsilon, delta) of every hull with what was sampled."""
    rows = []
    for task, table in each(results, "basin"):
        for hull, part in table.groupby("hull", sort=False):
            tried = [row for row in part.to_dict("records") if row["quantity"] == "noise"]
            found = {row["quantity"]: row for row in part.to_dict("records") if row["quantity"] != "noise"}
            mu, epsilon, delta = found["mu"], found["epsilon"], float(found["delta"]["value"])
            interval = f"{formats.decimals(epsilon['low'], 4)} to {formats.decimals(epsilon['high'], 4)}"
            rows.append((
                task,
                str(hull),
                formats.decimals(mu["value"]),
                f"{formats.decimals(epsilon['value'], 4)} ({interval})",
                formats.significant(delta, 3) if math.isfinite(delta) else "none of those tried",
                ", ".join(formats.significant(row["length"], 3) for row in tried),
                formats.significant(found["distance"]["value"], 3),
                f"{mu['num_samples']:.0f}",
                f"{tried[0]['num_samples']:.0f}" if tried else formats.MISSING,
                f"{mu['num_examples']:.0f}",
            ))  # fmt: skip
    columns = (
        "task", "hull of", "mean loss μ", "ε (95 %)", "δ", "lengths tried", "distance", "points", "rays", "examples",
    )  # fmt: skip
    note = "Losses in nats per example, lengths and distance in l2 over all weights; the intervals are over points."
    return if_any("Ours: (ε, δ) of the convex hull of all runs", columns, rows, note, "<task>.basin.table")


def planes(results: Results) -> list[Grid]:
    """The three models of every plane, where they lie and what they reach, and the best point of the grid."""
    rows = []
    for task, table in each(results, "planes"):
        metric = main_metric(table)
        for name, part in table[table["metric"] == metric].groupby("plane", sort=False):
            records = part.fillna({"checkpoint": ""}).to_dict("records")
            best = max((row for row in records if row["checkpoint"] == ""), key=_height)
            marked = [row for row in records if row["checkpoint"]]
            rows += [_place(task, name, row, metric) for row in [*marked, {**best, "checkpoint": "best of the grid"}]]
    columns = ("task", "plane", "model", "x", "y", "test metric")
    note = "x and y are l2 distances in the plane. The metric is that of the images of the plane, some of the test set."
    return [Grid("Ours: planes", columns, tuple(rows), note, "<task>.planes.table", 3)] if rows else []


def _height(row: dict[Any, Any]) -> float:
    return -math.inf if math.isnan(row["value"]) else float(row["value"])


def _place(task: str, plane: object, row: dict[Any, Any], metric: str) -> tuple[str, ...]:
    return task, str(plane), row["checkpoint"], f"{row['x']:.2f}", f"{row['y']:.2f}", score(metric)(row["value"])
