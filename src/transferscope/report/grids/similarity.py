"""Tables of CKA and distances, beside the paper's Tables 1, 2, 7 and 8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from transferscope.claims.effects import one_cka
from transferscope.report.grids.common import Results, each, if_any, number, pivot, spread
from transferscope.tables import formats
from transferscope.tables.grid import Grid

FLOOR = "permuted examples (floor)"


def cka(results: Results) -> list[Grid]:
    """Pair kinds by layers, as Tables 1 and 7, for one sort of features and one estimator."""
    return [_cka_grid(f"Ours: {task}", task, one_cka(table)) for task, table in each(results, "cka")]


def cka_other(results: Results) -> list[Grid]:
    """The other sorts of features and estimators, every pair with its interval, and the second opinion."""
    found = []
    for task, table in each(results, "cka"):
        shown = one_cka(table)
        for (features, estimator), part in table.drop(shown.index).groupby(["features", "estimator"], sort=False):
            found.append(_cka_grid(f"{task}, {features}, {estimator}", task, part))
        if "low" in shown.columns:
            found.append(_cka_intervals(task, shown))
    return found + _second_opinions(results)


def _cka_grid(caption: str, task: str, table: pd.DataFrame) -> Grid:
    first = table.iloc[0]
    note = (
        f"{first['features']} features, {first['estimator']} estimator, {int(first['num_examples']):,} examples; "
        "mean (range over pairs)."
    )
    return _layers_grid(caption, table, "cka", note, f"{task}.cka.table")


def _second_opinions(results: Results) -> list[Grid]:
    found = []
    for task, table in each(results, "second_opinion"):
        for measure, part in table.groupby("measure", sort=False):
            note = (
                f"{part['features'].iloc[0]} features, {int(part['num_examples'].iloc[0]):,} examples, not debiased: "
                "compare with the floor; mean (range over pairs)."
            )
            caption = f"{task}, {measure} similarity"
            found.append(_layers_grid(caption, part, "value", note, f"{task}.second_opinion.table"))
    return found


def _layers_grid(caption: str, table: pd.DataFrame, value: str, note: str, entry: str) -> Grid:
    """Kinds of pairs and controls by layers; last the floor: all pairs of two models with permuted examples."""
    layers = list(dict.fromkeys(table["layer"].astype(str)))
    rows = [(str(kind), *_cells(part, layers, value)) for kind, part in table.groupby("pair_kind", sort=False)]
    if "permuted" in table.columns:
        rows.append((FLOOR, *_cells(table[table["checkpoint_a"] != table["checkpoint_b"]], layers, "permuted")))
    return Grid(caption, ("pair", *layers), tuple(rows), note, entry)


def _cells(table: pd.DataFrame, layers: list[str], value: str) -> list[str]:
    found = {
        str(layer): spread(values, formats.decimals) for layer, values in table.groupby("layer", sort=False)[value]
    }
    return [found.get(layer, formats.MISSING) for layer in layers]


def _cka_intervals(task: str, table: pd.DataFrame) -> Grid:
    layers = list(dict.fromkeys(table["layer"].astype(str)))
    rows = []
    for (kind, a, b), part in table.groupby(["pair_kind", "checkpoint_a", "checkpoint_b"], sort=False):
        cells = {str(row["layer"]): _with_interval(row) for row in part.to_dict("records")}
        rows.append((str(kind), str(a), str(b), *(cells.get(layer, "") for layer in layers)))
    note = "95 % bootstrap intervals over batches of examples."
    caption = f"{task}, every pair with its interval"
    return Grid(caption, ("pair", "first", "second", *layers), tuple(rows), note, f"{task}.cka.table", 3)


def _with_interval(row: Mapping[Any, Any]) -> str:
    value, low, high = (formats.decimals(float(row[name])) for name in ("cka", "low", "high"))
    return value if formats.MISSING in (low, high) else f"{value} [{low}, {high}]"


def distances_between(results: Results) -> list[Grid]:
    """Global distances of pairs of models, mean and range over pairs."""
    return _distances(results, "Ours: distance between two models", initial=False)


def distances_travelled(results: Results) -> list[Grid]:
    """Global distances to the initial weights."""
    return _distances(results, "Ours: distance to the initial weights", initial=True)


def _distances(results: Results, caption: str, *, initial: bool) -> list[Grid]:
    rows = []
    for task, table in each(results, "distances"):
        table = table[table["pair_kind"].str.endswith("& init") == initial]
        for kind, part in table.groupby("pair_kind", sort=False):
            whole, summed = part[part["module"] == "all"], part[part["module"] == "sum"]
            squared = whole["squared"] if "squared" in whole.columns else whole["l2"] ** 2
            rows.append((
                task, str(kind), str(len(whole)), spread(whole["l2"], number), spread(summed["l2"], number),
                spread(squared, number), spread(whole["relative"], number) if "relative" in whole.columns else "",
            ))  # fmt: skip
    columns = ("task", "pair", "pairs", "l2", "sum over modules", "l2 squared", "relative")
    return if_any(caption, columns, rows, "Mean (range).", "<task>.distances.table")


PER_MODULE = {"l2": "l2", "relative": "relative to the first", "statistics_l2": "l2 of running statistics"}


def distances_per_module(results: Results) -> list[Grid]:
    """l2 and relative distance of every module, mean over pairs: modules by pair kinds.

    Of networks with BatchNorm also the distance of their running statistics, which are no weights.
    """
    found = []
    for task, table in each(results, "distances"):
        rows = table[~table["module"].isin(("all", "sum"))]
        for column, name in PER_MODULE.items():
            if column in rows.columns and (column != "statistics_l2" or rows["num_statistics"].any()):
                caption = f"{task}, module by module ({name})"
                found.append(pivot(caption, rows, "module", "pair_kind", column, f"{task}.distances.table"))
    return found
