"""Singular values and norms of the weights (appendix C)."""

from __future__ import annotations

import pandas as pd

from transferscope.claims.evidence import Evidence, last_epochs
from transferscope.report.chapters.chapter import Chapter, Section, number, overview, pivot, spread
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
UNTRAINED = "RI, untrained"
COUNT = "count_below_"
"""The columns of counts begin with it; the threshold follows."""


def networks(evidence: Evidence) -> list[Grid]:
    """Norms, ranks and condition of the whole network, untrained and trained, mean over runs."""
    rows, note = [], ""
    every = [*_networks(evidence), *_networks(evidence, untrained=True)]
    for task, kind, part in sorted(every, key=lambda row: row[0]):
        rows.append((task, kind, *(spread(part[name], number) for name in SUMMARIES)))
        note = f"Mean (range over runs). Condition is ∞ where a stride skips inputs. {_stride(part)}"
    return overview(
        "Ours: the whole network", ("task", "kind", *SUMMARIES.values()), rows, note, "<task>.spectrum.table"
    )


def layers(evidence: Evidence) -> list[Grid]:
    """Norms, ranks and condition of every layer, mean over the runs of a kind."""
    grids = []
    for task, table in evidence.each("spectrum"):
        rows = _layers(table)
        means = rows.groupby(["module", "label"], sort=False)[list(SUMMARIES)].mean()
        cells = tuple((module, kind, *map(number, part)) for module, kind, *part in means.reset_index().to_numpy())
        columns = ("layer", "kind", *SUMMARIES.values())
        caption, entry = f"{task}, layer by layer", f"{task}.spectrum.table"
        grids += overview(caption, columns, cells, _stride(rows), entry)
    return grids


def small_values(evidence: Evidence) -> list[Grid]:
    """Share of the whole network's singular values below each threshold, and the difference with its interval."""
    return [*_shares_below(evidence), *_differences(evidence)]


def paddings(evidence: Evidence) -> list[Grid]:
    """Share of the whole network's singular values below each threshold, for the network's padding and the circular."""
    rows = []
    columns: list[str] = []
    for task, table in evidence.each("network_spectrum"):
        whole = table[table["module"] == "all"]
        columns = [name for name in whole.columns if name.startswith(COUNT)]
        for (kind, padding), part in whole.groupby(["label", "padding"], sort=False):
            shares = [spread(part[name] / part["num_values"], formats.percent) for name in columns]
            bounded = (number(part["spectral_norm"].mean()), number(part["norm_bound"].max()))
            rows.append((task, str(kind), str(padding), *shares, *bounded))
    heads = ("task", "kind", "padding", *(f"below {name.removeprefix(COUNT)}" for name in columns))
    note = (
        "Mean (range over runs). Counts of the network's own padding are exact for small layers, estimated for large "
        "ones: the columns low_below and high_below hold 95 % error bars. The bound of the norm is certified."
    )
    caption = "Ours: the network's own padding against the circular one"
    return overview(caption, (*heads, "‖W‖_2", "bound of it"), rows, note, "<task>.network_spectrum.table")


def _shares_below(evidence: Evidence) -> list[Grid]:
    rows = []
    columns: list[str] = []
    note = ""
    for task, kind, part in _networks(evidence):
        columns = [name for name in part.columns if name.startswith(COUNT)]
        shares = [spread(part[name] / part["num_values"], formats.percent) for name in columns]
        rows.append((task, kind, f"{part['num_values'].iloc[0]:,.0f}", *shares))
        note = f"Mean (range over runs). {_stride(part)}"
    heads = ("task", "kind", "values", *(f"below {name.removeprefix(COUNT)}" for name in columns))
    return overview("Ours: share below a threshold", heads, rows, note, "<task>.spectrum.table")


def _differences(evidence: Evidence) -> list[Grid]:
    rows = [
        (
            task,
            f"{row['threshold']:g}",
            formats.percent(row["difference"]),
            f"{formats.percent(row['low'])} to {formats.percent(row['high'])}",
            f"{row['layers_more_in_a']} of {row['num_layers']}",
            formats.percent(row["probability_smaller"]),
        )
        for task, table in evidence.each("small_values")
        for row in table.to_dict("records")
    ]
    columns = ("task", "threshold", "share of RI-T less that of P-T", "95 % interval", "layers with more", "smaller")
    note = (
        "The interval draws runs and layers with replacement. Layers with more: those where more singular values of "
        "RI-T are below. Smaller: the chance that one of RI-T is smaller than one of P-T, at no threshold; a half is "
        "no difference."
    )
    caption = "Ours: more small singular values in RI-T than in P-T?"
    return overview(caption, columns, rows, note, "<task>.small_values.table")


def bound_factors(evidence: Evidence) -> list[Grid]:
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
    rows = [
        (task, str(kind), *(spread(part[name], number) for name in heads))
        for task, table in evidence.each("bound_factors")
        for kind, part in last_epochs(table).groupby("label", sort=False)
    ]
    note = (
        "Mean (range over runs). The margin, in logits, is the one that all but 5 % of the training examples reach; "
        "below 0 the bound says nothing. B is the largest l2 norm of a training image as the network sees it."
    )
    columns = ("task", "kind", *heads.values())
    return overview("Ours: factors of the bound", columns, rows, note, "<task>.bound_factors.table")


def norm_ratios_per_layer(evidence: Evidence) -> list[Grid]:
    """The terms of the sum, mean over the runs of a kind."""
    return [
        pivot(f"{task}, layer by layer", _layers(table), "module", "label", "ratio", f"{task}.spectrum.table")
        for task, table in evidence.each("spectrum")
    ]


def _layers(table: pd.DataFrame) -> pd.DataFrame:
    return last_epochs(table[~table["module"].isin(("all", "sum"))])


def _stride(rows: pd.DataFrame) -> str:
    """The sentence on how strides were treated."""
    if "stride" in rows.columns and (rows["stride"] == "ignored").any():
        return "Strides are ignored (taken as 1), as the paper's method does."
    return "Strides are honoured; the paper's method ignores them."


def _networks(evidence: Evidence, *, untrained: bool = False) -> list[tuple[str, str, pd.DataFrame]]:
    """Task, kind and rows of the whole network at the last epoch; untrained: of runs from scratch at epoch 0."""
    networks = []
    for task, table in evidence.each("spectrum"):
        rows = table[table["module"] == "all"]
        if untrained:
            drawn = {name.run for name in evidence.members(task, "from_scratch")}
            rows = rows[(rows["epoch"].astype(str) == "0") & rows["run"].isin(drawn)].assign(label=UNTRAINED)
        else:
            rows = last_epochs(rows)
        networks += [(task, str(kind), part) for kind, part in rows.groupby("label", sort=False)]
    return networks


CHAPTER = Chapter(
    title="Spectra of the weights",
    appendix="C",
    sections=(
        Section(
            id="figure_31",
            numbers="Figures 31 and 32",
            title="Singular values of the whole network",
            see="RI-T should be more concentrated towards zero.",
            analysis="spectrum",
            figures=("spectrum_histogram", "spectrum_training"),
            tables=networks,
            folded=layers,
            note="RI is RI-T before training. The lower part leaves out values of exactly 0, of which RI has many. "
            "For the tasks in analyses.spectrum.layer_pages every layer has its own panels in the file "
            "layer_spectra.pdf beside the figures, in the catalog <task>.layer_spectra.pages. docs/spectrum.md "
            "says how to read them.",
        ),
        Section(
            id="figure_33",
            numbers="Figure 33",
            title="Singular values below a threshold",
            see="At small thresholds RI-T's curve should lie above P-T's.",
            analysis="spectrum",
            figures=("spectrum_counts",),
            tables=small_values,
        ),
        Section(
            id="network_padding",
            numbers="Figure 33",
            title="With the network's own padding",
            see="At small thresholds RI-T's solid line should lie above P-T's, as the dashed one of circular padding.",
            analysis="spectrum",
            figures=("spectrum_paddings", "singular_vectors"),
            tables=paddings,
            note="analyses.spectrum.vector_layers names layers whose singular vectors of the largest values are drawn, "
            "each over its own range: the inputs that the layer stretches most.",
        ),
        Section(
            id="norm_ratios",
            numbers="Appendix C",
            title="Sum of ‖W‖_F / ‖W‖_2",
            see="The sum should be larger for RI-T, and with it the bound on its generalisation error.",
            analysis="spectrum",
            figures=("norm_ratios",),
            tables=bound_factors,
            folded=norm_ratios_per_layer,
        ),
    ),
)
