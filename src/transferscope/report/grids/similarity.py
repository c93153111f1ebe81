"""Tables of CKA and distances, beside the paper's Tables 1, 2, 7 and 8."""

from __future__ import annotations

import pandas as pd

from transferscope.report import formats
from transferscope.report.effects import one_cka
from transferscope.report.grid import Grid
from transferscope.report.grids.common import Results, each, if_any, number, pivot, spread


def cka(results: Results) -> list[Grid]:
    """Pair kinds by layers, as Tables 1 and 7, for one sort of features and one estimator."""
    return [_cka_grid(f"Ours: {task}", task, one_cka(table)) for task, table in each(results, "cka")]


def cka_other(results: Results) -> list[Grid]:
    """The other sorts of features and estimators."""
    found = []
    for task, table in each(results, "cka"):
        shown = one_cka(table)
        for (features, estimator), part in table.drop(shown.index).groupby(["features", "estimator"], sort=False):
            found.append(_cka_grid(f"{task}, {features}, {estimator}", task, part))
    return found


def _cka_grid(caption: str, task: str, table: pd.DataFrame) -> Grid:
    layers = list(dict.fromkeys(table["layer"].astype(str)))
    rows = []
    for kind, part in table.groupby("pair_kind", sort=False):
        cells = [spread(part[part["layer"].astype(str) == layer]["cka"], formats.decimals) for layer in layers]
        rows.append((str(kind), *cells))
    first = table.iloc[0]
    note = (
        f"{first['features']} features, {first['estimator']} estimator, {int(first['num_examples']):,} examples; "
        "mean (range over pairs)."
    )
    return Grid(caption, ("pair", *layers), tuple(rows), note, f"{task}.cka.table")


def distances_between(results: Results) -> list[Grid]:
    """Global distances of pairs of models, mean and range over pairs."""
    return _distances(results, "Ours: distance between two models", initial=False)


def distances_travelled(results: Results) -> list[Grid]:
    """Global distances to the initial weights."""
    return _distances(results, "Ours: distance to the initial weights", initial=True)


def _distances(results: Results, caption: str, *, initial: bool) -> list[Grid]:
    rows = []
    for task, table in each(results, "distances"):
        table = table[~table["pair_kind"].str.endswith("on the way")]
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


def distances_per_module(results: Results) -> list[Grid]:
    """l2 of every module, mean over pairs: modules by pair kinds."""
    found = []
    for task, table in each(results, "distances"):
        rows = table[~table["module"].isin(("all", "sum")) & ~table["pair_kind"].str.endswith("on the way")]
        found.append(
            pivot(f"{task}, module by module (l2)", rows, "module", "pair_kind", "l2", f"{task}.distances.table")
        )
    return found
