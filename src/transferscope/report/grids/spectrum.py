"""Tables of singular values and norms."""

from __future__ import annotations

import pandas as pd

from transferscope.claims.evidence import last_epochs
from transferscope.report.grids.common import Results, each, if_any, number, pivot, spread
from transferscope.tables import formats
from transferscope.tables.grid import Grid

SUMMARIES = {
    "frobenius": "‖W‖_F",
    "spectral_norm": "‖W‖_2",
    "stable_rank": "stable rank",
    "effective_rank": "effective rank",
    "condition": "condition",
    "num_values": "values",
}


def networks(results: Results) -> list[Grid]:
    """Norms, ranks and condition of the whole network, untrained and trained, mean over runs."""
    rows, note = [], ""
    for task, kind, part in sorted([*_networks(results), *_networks(results, untrained=True)], key=lambda row: row[0]):
        rows.append((task, kind, *(spread(part[name], number) for name in SUMMARIES)))
        note = f"Mean (range over runs). Condition is ∞ where a stride skips inputs. {_stride(part)}"
    return if_any("Ours: the whole network", ("task", "kind", *SUMMARIES.values()), rows, note, "<task>.spectrum.table")


def layers(results: Results) -> list[Grid]:
    """Norms, ranks and condition of every layer, mean over the runs of a kind."""
    found = []
    for task, table in each(results, "spectrum"):
        rows = _layers(table)
        means = rows.groupby(["module", "label"], sort=False)[list(SUMMARIES)].mean()
        cells = tuple((module, kind, *map(number, part)) for module, kind, *part in means.reset_index().to_numpy())
        columns = ("layer", "kind", *SUMMARIES.values())
        found.append(Grid(f"{task}, layer by layer", columns, cells, _stride(rows), f"{task}.spectrum.table", 2))
    return found


def small_values(results: Results) -> list[Grid]:
    """Share of the whole network's singular values below each threshold, and the difference with its interval."""
    return [*_shares_below(results), *_differences(results)]


def _shares_below(results: Results) -> list[Grid]:
    rows = []
    columns: list[str] = []
    note = ""
    for task, kind, part in _networks(results):
        columns = [name for name in part.columns if name.startswith("count_below_")]
        shares = [spread(part[name] / part["num_values"], formats.percent) for name in columns]
        rows.append((task, kind, f"{part['num_values'].iloc[0]:,.0f}", *shares))
        note = f"Mean (range over runs). {_stride(part)}"
    heads = ("task", "kind", "values", *(f"below {name.removeprefix('count_below_')}" for name in columns))
    return if_any("Ours: share below a threshold", heads, rows, note, "<task>.spectrum.table")


def _differences(results: Results) -> list[Grid]:
    rows = [
        (
            task,
            f"{row['threshold']:g}",
            formats.percent(row["difference"]),
            f"{formats.percent(row['low'])} to {formats.percent(row['high'])}",
            f"{row['layers_more_in_a']} of {row['num_layers']}",
            formats.percent(row["probability_smaller"]),
        )
        for task, table in each(results, "small_values")
        for row in table.to_dict("records")
    ]
    columns = ("task", "threshold", "share of RI-T less that of P-T", "95 % interval", "layers with more", "smaller")
    note = (
        "The interval draws runs and layers with replacement. Layers with more: those where more singular values of "
        "RI-T are below. Smaller: the chance that one of RI-T is smaller than one of P-T, at no threshold; a half is "
        "no difference."
    )
    return if_any(
        "Ours: more small singular values in RI-T than in P-T?", columns, rows, note, "<task>.small_values.table"
    )


def bound_factors(results: Results) -> list[Grid]:
    """Factors of the generalisation bound at the last epoch, by task and kind."""
    heads = {
        "sum_of_ratios": "Σ ‖W‖_F / ‖W‖_2",
        "sum_of_squared_ratios": "Σ ‖W‖_F² / ‖W‖_2²",
        "log_product_of_norms": "ln Π ‖W‖_2",
        "num_layers": "layers",
        "margin": "margin γ",
        "margin_median": "median margin",
        "input_norm": "input norm B",
        "input_dimension": "input dimension d",
    }
    rows = []
    for task, table in each(results, "bound_factors"):
        last = last_epochs(table)
        for kind, part in last.groupby("label", sort=False):
            rows.append((task, str(kind), *(spread(part[name], number) for name in heads)))
    note = (
        "Mean (range over runs). The margin, in logits, is the one that all but 5 % of the training examples reach; "
        "below 0 the bound says nothing. B is the largest l2 norm of a training image as the network sees it."
    )
    return if_any(
        "Ours: factors of the bound", ("task", "kind", *heads.values()), rows, note, "<task>.bound_factors.table"
    )


def norm_ratios_per_layer(results: Results) -> list[Grid]:
    """The terms of the sum, mean over the runs of a kind."""
    return [
        pivot(f"{task}, layer by layer", _layers(table), "module", "label", "ratio", f"{task}.spectrum.table")
        for task, table in each(results, "spectrum")
    ]


def _layers(table: pd.DataFrame) -> pd.DataFrame:
    return last_epochs(table[~table["module"].isin(("all", "sum"))])


def _stride(rows: pd.DataFrame) -> str:
    """What the report must say of how the values were made."""
    if "stride" in rows.columns and (rows["stride"] == "ignored").any():
        return "Strides are ignored (taken as 1), as the paper's method does."
    return "Strides are honoured; the paper's method ignores them."


def _networks(results: Results, *, untrained: bool = False) -> list[tuple[str, str, pd.DataFrame]]:
    """Task, kind and rows of the whole network at the last epoch; untrained: at epoch 0 of RI-T."""
    found = []
    for task, table in each(results, "spectrum"):
        rows = table[table["module"] == "all"]
        if untrained:
            rows = rows[(rows["epoch"].astype(str) == "0") & (rows["label"] == "RI-T")].assign(label="RI, untrained")
        else:
            rows = last_epochs(rows)
        found += [(task, str(kind), part) for kind, part in rows.groupby("label", sort=False)]
    return found
