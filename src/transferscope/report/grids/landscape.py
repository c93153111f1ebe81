"""Tables of barriers, beside the paper's Figures 12 to 29."""

from __future__ import annotations

import math

import pandas as pd

from transferscope.claims.evidence import CROSS_DOMAIN, main_metric
from transferscope.claims.landscape_effects import place
from transferscope.report.grids.common import Results, each, if_any, pivot, score, spread
from transferscope.tables import formats
from transferscope.tables.grid import Grid, from_table


def barriers(results: Results) -> list[Grid]:
    """Barrier on the test set in the main metric, by task and kind of pair."""
    rows = []
    note = "Mean (range over pairs)."
    for task, table in each(results, "barriers"):
        metric = main_metric(table)
        for shown in (metric, f"{AS_STORED}{metric}"):
            part = table[(table["split"] == "test") & (table["metric"] == shown)]
            if part.empty:  # as stored is a network with BatchNorm alone
                continue
            rows += [(task, *row) for row in _barrier_rows(part)]
            if shown != metric:
                note = f"Mean (range over pairs). {BATCHNORM_NOTE}"
    columns = ("task", "pair", "curves", "metric", "barrier (points)", "gain half-way (points)")
    return if_any("Ours: barriers, test", columns, rows, note, "<task>.barriers.table")


AS_STORED = "naive_"
BATCHNORM_NOTE = (
    "BatchNorm's statistics are recomputed on training images at every point, the ends too; beside it the same with "
    "statistics as stored, interpolated like weights."
)


def _barrier_rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row per kind of pair, and per pair of epochs where the table compares several."""
    return [
        (
            str(kind),
            str(len(part)),
            formats.metric_name(str(part["metric"].iloc[0])),
            spread(part["barrier"], formats.points),
            spread(part["midpoint_gain"], formats.points),
        )
        for kind, part in table.groupby(_kinds(table), sort=False)
    ]


def _kinds(table: pd.DataFrame) -> pd.Series:
    """`P-T & P-T`, with the epochs of its ends where there are several: `P-T & P-T, best & final`."""
    epochs = [table[side].str.rpartition("@")[2] for side in ("checkpoint_a", "checkpoint_b")]
    ends = epochs[0] + " & " + epochs[1]
    return table["pair_kind"] + (", " + ends if ends.nunique() > 1 else "")


def barrier_summary(results: Results) -> list[Grid]:
    """All scenarios on the test set, in the metric of their task."""
    table = results[CROSS_DOMAIN].tables.get("barrier_summary") if CROSS_DOMAIN in results else None
    if table is None or table.empty:
        return []
    test = table[table["split"] == "test"]
    has_auc = set(test.loc[test["metric"] == "auc", "task"])
    rows = [
        (
            str(row["scenario"]).replace("_", " "),
            str(row["pair_kind"]),
            str(row["task"]),
            f"{formats.metric_name(row['metric'])}, {row['epochs']}",
            f"{row['pairs']:.0f}",
            _range(row["mean"], row["smallest"], row["largest"]),
            _bounds(row["examples_low"], row["examples_high"]),
            _bounds(row["pairs_low"], row["pairs_high"]),
        )
        for row in test.to_dict("records")
        if row["metric"] == ("auc" if row["task"] in has_auc else "accuracy")
    ]
    columns = (
        "scenario", "pair", "on", "metric, epochs", "pairs", "barrier (points)", "95 % over examples",
        "95 % over pairs",
    )  # fmt: skip
    note = "Mean (smallest to largest pair); a point is a hundredth of accuracy or AUC."
    entry = f"{CROSS_DOMAIN}.barrier_summary.table"
    return [Grid("Ours: every scenario, test", columns, tuple(rows), note, entry, 4)]


def _range(mean: float, low: float, high: float) -> str:
    ends = formats.points(low), formats.points(high)
    return formats.points(mean) if ends[0] == ends[1] else f"{formats.points(mean)} ({ends[0]} to {ends[1]})"


def _bounds(low: float, high: float) -> str:
    return formats.MISSING if math.isnan(low) else f"{formats.points(low)} to {formats.points(high)}"


BARRIERS = (
    "scenario", "pair_kind", "checkpoint_a", "checkpoint_b", "split", "metric", "barrier", "barrier_alpha",
    "midpoint_gain", "barrier_low", "barrier_high", "gain_low", "gain_high",
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
            rows = rows.assign(alpha=rows["alpha"].round(6), pair_kind=_kinds(rows))
            rows = rows[rows["alpha"].isin(alphas)]
            say = score(main_metric(table))
            entry = f"{task}.interpolation.table"
            caption = f"Ours: {task}, test {formats.metric_name(main_metric(table))} by alpha"
            found.append(pivot(caption, rows, "pair_kind", "alpha", "value", entry, say))
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
            rows += [(place(scenario, part), *row) for row in _barrier_rows(part)]
    columns = ("scenario", "pair", "curves", "metric", "barrier (points)", "gain half-way (points)")
    return if_any(caption, columns, rows, "", f"{CROSS_DOMAIN}.barriers.table")


def figure_number(name: str) -> int:
    """`figure_19` -> 19; a name without a number is put with the last figures."""
    digits = "".join(letter for letter in name if letter.isdigit())
    return int(digits) if digits else 999
