"""Basins and planes of several models: Definition 3.1, and the plane through three models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transferscope.claims.evidence import Evidence
from transferscope.claims.run_facts import main_metric
from transferscope.report.chapters.chapter import Section, Words, overview
from transferscope.tables import formats
from transferscope.tables.grid import Grid


def basin(evidence: Evidence) -> list[Grid]:
    """(epsilon, delta) of every hull, and both conditions at its rim."""
    rows = []
    for task, table in evidence.each("basin"):
        for _, part in table.groupby("checkpoints", sort=False):
            records = part.to_dict("records")
            of = {row["quantity"]: row for row in records if row["quantity"] not in ("noise", "ray")}
            tried = [row for row in records if row["quantity"] == "noise"]
            mu, epsilon, delta, distance = (of[name] for name in ("mu", "epsilon", "delta", "distance"))
            rows.append((
                task,
                str(part["hull"].iloc[0]),
                "a segment between 2" if mu["num_models"] == 2 else f"all between {mu['num_models']:.0f}",
                f"{formats.decimals(epsilon['value'], 4)} ({_interval(epsilon, 4)})",
                formats.decimals(mu["value"]),
                _rim(tried),
                _delta(delta) if tried else formats.MISSING,
                formats.significant(distance["value"], 3),
                f"{mu['num_samples']:.0f}",
                f"{tried[0]['num_samples']:.0f}" if tried else formats.MISSING,
                f"{mu['num_examples']:.0f}",
            ))  # fmt: skip
    columns = (
        "task", "hull of", "hull", "ε (95 %)", "mean loss μ", "rim − μ (95 %), 2ε", "δ (95 %)", "distance", "points",
        "rays", "examples",
    )  # fmt: skip
    note = (
        "Losses in nats per example; δ and the distance, the largest between two models, in l2 over all weights. ε is "
        "the finding: how much the loss varies within the hull. Every hull satisfies the definition with a δ that is "
        "large enough. The rim alone (δ = 0) satisfies both outward conditions where its loss exceeds μ by 2ε; of two "
        "models it is the two models themselves, so δ then says little about walls."
    )
    caption, entry = "Ours: (ε, δ) of the convex hull of all runs", "<task>.basin.table"
    return overview(caption, columns, rows, note, entry, text_columns=3)


def _interval(row: Mapping[Any, Any], digits: int) -> str:
    return f"{formats.decimals(row['low'], digits)} to {formats.decimals(row['high'], digits)}"


def _rim(tried: list[dict[Any, Any]]) -> str:
    """The excess loss at length 0 beside 2 epsilon."""
    rim = next((row for row in tried if row["length"] == 0), None)
    if rim is None:
        return formats.MISSING
    return f"{formats.decimals(rim['value'])} ({_interval(rim, 3)}), {formats.decimals(rim['threshold'])}"


def _delta(row: Mapping[Any, Any]) -> str:
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    if not math.isfinite(value):
        return f"more than {formats.significant(low, 3)}"
    top = formats.significant(high, 3) if math.isfinite(high) else "beyond what was tried"
    return f"{formats.significant(value, 3)} ({formats.significant(low, 3)} to {top})"


def planes(evidence: Evidence) -> list[Grid]:
    """The three models of every plane, where they lie and what they reach, and the best point of the grid."""
    rows = []
    for task, table in evidence.each("planes"):
        metric = main_metric(table)
        for name, part in table[table["metric"] == metric].groupby("plane", sort=False):
            records = part.fillna({"checkpoint": ""}).to_dict("records")
            best = max((row for row in records if row["checkpoint"] == ""), key=_height)
            marked = [row for row in records if row["checkpoint"]]
            rows += [_place(task, name, row, metric) for row in [*marked, {**best, "checkpoint": "best of the grid"}]]
    columns = ("task", "plane", "model", "x", "y", "test metric")
    note = "x and y are l2 distances in the plane. The metric is that of the images of the plane, some of the test set."
    return overview("Ours: planes", columns, rows, note, "<task>.planes.table", text_columns=3)


def _height(row: dict[Any, Any]) -> float:
    return -math.inf if math.isnan(row["value"]) else float(row["value"])


def _place(task: str, plane: object, row: dict[Any, Any], metric: str) -> tuple[str, ...]:
    at = f"{row['x']:.2f}", f"{row['y']:.2f}"
    return task, str(plane), row["checkpoint"], *at, formats.score(metric)(row["value"])


BASIN = Section(
    id="basin",
    numbers="Definition 3.1",
    title="The basin of all models of a kind",
    see="ε, the variation of the loss within the hull, should be small for P-T and many times larger for RI-T, "
    "because of the barrier inside. δ is the length at which noise and steps outward cost 2ε; of P-T it should "
    "be no larger than the distance between the models.",
    analysis="landscape",
    option="basin",
    figures=("basin",),
    tables=basin,
    note="The loss is that of the test set; intervals are over its images and over the noise that was drawn. "
    "The paper reports (.0038, 49.14), (.0054, 98.28) and (.0034, 49.14) for "
    "P-T of real, clipart and quickdraw.",
    of_files=Words(
        "ε is how much the loss varies between the models, and δ the length at which noise and steps outward cost 2ε.",
        "The loss is that of the test set; intervals are over its images and over the noise that was drawn.",
    ),
)

PLANES = Section(
    id="planes",
    numbers="Beyond the paper",
    title="The plane through three models",
    see="P, P-T 1 and P-T 2: both P-T should lie in one valley, which begins on the way from P. Three RI-T: "
    "each should lie in a valley of its own, closer together where two share their initial weights.",
    analysis="landscape",
    option="planes",
    figures=("plane",),
    tables=planes,
    note="P's classifier is for other classes, so P takes part with the new classifier that the P-T "
    "started from, which knows nothing yet.",
    of_files=Words("The test metric in the plane through three models, and where they lie in it."),
)
