"""Tables of barriers, beside the paper's Figures 12 to 29."""

from __future__ import annotations

import pandas as pd

from transferscope.report import formats
from transferscope.report.evidence import CROSS_DOMAIN, main_metric
from transferscope.report.grid import Grid, from_table
from transferscope.report.grids.common import Results, each, if_any, pivot, score, spread
from transferscope.report.landscape_effects import place


def barriers(results: Results) -> list[Grid]:
    """Barrier on the test set in the main metric, by task and kind of pair."""
    rows = []
    for task, table in each(results, "barriers"):
        part = table[(table["split"] == "test") & (table["metric"] == main_metric(table))]
        rows += [(task, *row) for row in _barrier_rows(part, "pair_kind")]
    columns = ("task", "pair", "curves", "metric", "barrier (points)", "gain half-way (points)")
    return if_any("Ours: barriers, test", columns, rows, "Mean (range over pairs).", "<task>.barriers.table")


def _barrier_rows(table: pd.DataFrame, key: str) -> list[tuple[str, ...]]:
    return [
        (
            str(kind),
            str(len(part)),
            str(part["metric"].iloc[0]),
            spread(part["barrier"], formats.points),
            spread(part["midpoint_gain"], formats.points),
        )
        for kind, part in table.groupby(key, sort=False)
    ]


BARRIERS = (
    "scenario", "pair_kind", "checkpoint_a", "checkpoint_b", "split", "metric", "barrier", "barrier_alpha",
    "midpoint_gain",
)  # fmt: skip


def barriers_all(results: Results) -> list[Grid]:
    """Every pair, split and metric."""
    note = "Accuracy and AUC are fractions, the loss is in nats per example."
    return [
        from_table(f"{task}, every pair", table, BARRIERS, entry=f"{task}.barriers.table", note=note)
        for task, table in each(results, "barriers")
    ]


def extrapolation(results: Results) -> list[Grid]:
    """Test metric at the ends and one step beyond, mean over pairs."""
    found = []
    for task, table in each(results, "interpolation"):
        rows = table[(table["split"] == "test") & (table["metric"] == main_metric(table))]
        if rows["alpha"].min() < 0:
            alphas = sorted({float(rows["alpha"].min()), -0.5, 0.0, 0.5, 1.0, 1.5, float(rows["alpha"].max())})
            rows = rows.assign(alpha=rows["alpha"].round(6))
            rows = rows[rows["alpha"].isin(alphas)]
            say = score(main_metric(table))
            entry = f"{task}.interpolation.table"
            found.append(pivot(f"Ours: {task}, test metric by alpha", rows, "pair_kind", "alpha", "value", entry, say))
    return found


def cross_domain(results: Results) -> list[Grid]:
    """Barriers and gains of scenarios between single domains."""
    return _scenarios(results, range(19, 24), "Ours: between two domains, test")


def unions(results: Results) -> list[Grid]:
    """Barriers and gains of all other scenarios."""
    return _scenarios(results, range(24, 1000), "Ours: with combined domains, test")


def _scenarios(results: Results, numbers: range, caption: str) -> list[Grid]:
    table = results[CROSS_DOMAIN].tables.get("barriers") if CROSS_DOMAIN in results else None
    rows: list[tuple[str, ...]] = []
    if table is None:
        return []
    table = table[(table["split"] == "test") & (table["metric"] == main_metric(table))]
    for scenario, part in table.groupby("scenario", sort=False):
        if figure_number(str(scenario)) in numbers:
            rows += [(place(scenario, part), *row) for row in _barrier_rows(part, "pair_kind")]
    columns = ("scenario", "pair", "curves", "metric", "barrier (points)", "gain half-way (points)")
    return if_any(caption, columns, rows, "", f"{CROSS_DOMAIN}.barriers.table")


def figure_number(name: str) -> int:
    """`figure_19` -> 19; a name without a number is put with the last figures."""
    digits = "".join(letter for letter in name if letter.isdigit())
    return int(digits) if digits else 999
