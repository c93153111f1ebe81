"""Claims on the spectra of the weights (appendix C)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from transferscope.claims.comparisons import Comparison, against, compare
from transferscope.claims.evidence import Evidence, last_epochs
from transferscope.claims.registry import claim
from transferscope.experiment.run import Role

SIDES: tuple[Role, Role] = ("from_scratch", "fine_tuned")
RELATIVE = 0.1
"""Of the root mean square of a layer's singular values: smaller ones are near zero by its scale."""
LOWER_PART = 0.1
"""Singular values are counted below the threshold that has about this share of P-T's and RI-T's below it."""


@claim(
    "RI-T has more singular values near zero than P-T.",
    source="Section C, Figures 31 to 33",
    paper=("on all domains (histograms, no number)",),
    compares="share of all singular values below the threshold at which the mean share is nearest to "
    f"{LOWER_PART:.0%}, every RI-T against every P-T of a task",
    unit="share",
    sides=("RI-T", "P-T"),
    needs="spectra of fine-tuned runs and of runs from scratch",
    section="figure_33",
)
def near_zero(evidence: Evidence) -> Iterator[Comparison]:
    yield from _near_zero(
        evidence, {task: _networks(table, "all") for task, table in evidence.each_compared("spectrum")}
    )


def _near_zero(evidence: Evidence, networks: dict[str, pd.DataFrame]) -> Iterator[Comparison]:
    """Compare shares below one threshold; networks: task -> the whole network's row of each run."""
    threshold = _shared_threshold(evidence, networks)
    for task, rows in networks.items():
        shares = rows[threshold] / rows["num_values"] if threshold else rows["num_values"] * math.nan
        yield from compare(task, *evidence.by_role(task, shares, *SIDES))


@claim(
    "RI-T has more singular values near zero than P-T also with the network's own padding.",
    source="Section C, Figures 31 to 33",
    paper=("not measured: the paper's spectra have circular padding",),
    compares="share of all singular values of the maps that the networks compute below the threshold at which the mean "
    f"share is nearest to {LOWER_PART:.0%}, every RI-T against every P-T of a task; large layers are estimates",
    unit="share",
    sides=("RI-T", "P-T"),
    needs="analyses.spectrum.padding: network, with fine-tuned runs and runs from scratch",
    section="network_padding",
)
def near_zero_network(evidence: Evidence) -> Iterator[Comparison]:
    tables = evidence.each_compared("network_spectrum")
    own = {task: table[table["padding"] == "network"] for task, table in tables}
    yield from _near_zero(evidence, {task: _networks(table, "all") for task, table in own.items()})


@claim(
    "RI-T has more singular values near zero than P-T also by the scale of each layer.",
    source="Section C, Figures 31 to 33",
    paper=("not compared: the paper's thresholds are the same for all layers",),
    compares=f"share of all singular values below {RELATIVE:g} of the root mean square of those of their layer, every "
    "RI-T against every P-T of a task",
    unit="share",
    sides=("RI-T", "P-T"),
    needs="spectra of fine-tuned runs and of runs from scratch",
    section="figure_33",
)
def near_zero_by_scale(evidence: Evidence) -> Iterator[Comparison]:
    column = f"relative_below_{RELATIVE:g}"
    for task, table in evidence.each_compared("spectrum"):
        layers = rows_of_layers(table)
        if column in layers:
            sums = layers.groupby("run", sort=False)[[column, "num_values"]].sum()
            shares = sums[column] / sums["num_values"]
            yield from compare(task, *evidence.by_role(task, shares, *SIDES))


@claim(
    "RI-T has more singular values near zero than P-T in the individual layers, too.",
    source="Section C",
    paper=("for individual modules as well (no number)",),
    compares="share of the layers in which an RI-T has more values below the threshold of the whole network than a "
    "P-T, ties counted half; claimed: above half",
    unit="share",
    sides=("layers",),
    needs="spectra of fine-tuned runs and of runs from scratch",
    section="figure_33",
    over="layers",
    limits=(0.0, 1.0),
)
def near_zero_by_layer(evidence: Evidence) -> Iterator[Comparison]:
    threshold = _threshold(evidence)
    for task, table in evidence.each_compared("spectrum"):
        wide = rows_of_layers(table).pivot_table(index="module", columns="run", values=threshold or "num_values")
        wide = wide if threshold else wide * math.nan
        yield from against(task, evidence.wins(task, wide, *SIDES), 0.5, above=True)


@claim(
    "The sum over layers of ‖W‖_F / ‖W‖_2 is larger for RI-T.",
    source="Section C",
    paper=("larger for RI-T (no number)",),
    compares="that sum, every RI-T against every P-T of a task",
    unit="number",
    sides=("RI-T", "P-T"),
    needs="spectra of fine-tuned runs and of runs from scratch",
    section="norm_ratios",
)
def norm_ratio(evidence: Evidence) -> Iterator[Comparison]:
    for task, table in evidence.each_compared("spectrum"):
        # The row "all" is the spectrum of the whole network; the sum over its layers is the row "sum".
        ratios = _networks(table, "sum")["ratio"]
        yield from compare(task, *evidence.by_role(task, ratios, *SIDES))


def _threshold(evidence: Evidence) -> str | None:
    """The column of counts of all tasks' networks; None where there are none, or none differs of runs."""
    return _shared_threshold(
        evidence, {task: _networks(table, "all") for task, table in evidence.each_compared("spectrum")}
    )


def _shared_threshold(evidence: Evidence, networks: dict[str, pd.DataFrame]) -> str | None:
    compared = [rows[_is_compared(evidence, task, rows)] for task, rows in networks.items()]
    return _lower_threshold(pd.concat(compared)) if compared else None


def rows_of_layers(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of single layers of each run at its last epoch."""
    return last_epochs(table[~table["module"].isin(("all", "sum"))])


def _networks(table: pd.DataFrame, module: str) -> pd.DataFrame:
    """One module's row of each run at its last epoch, by run."""
    return last_epochs(table[table["module"] == module]).set_index("run")


def _is_compared(evidence: Evidence, task: str, rows: pd.DataFrame) -> list[bool]:
    sides = evidence.by_role(task, dict.fromkeys(rows.index, 0.0), *SIDES)
    chosen = {run.run for side in sides for unit in side.values for run in unit.runs}
    return [run in chosen for run in rows.index]


def _lower_threshold(rows: pd.DataFrame) -> str | None:
    """The column of counts at which the mean share is nearest to `LOWER_PART`; None where no count differs of runs."""
    columns = [name for name in rows.columns if name.startswith("count_below_")]
    shares = {name: float((rows[name] / rows["num_values"]).mean()) for name in columns}
    shares = {name: share for name, share in shares.items() if 0 < share < 1}
    return min(shares, key=lambda name: abs(shares[name] - LOWER_PART), default=None)
