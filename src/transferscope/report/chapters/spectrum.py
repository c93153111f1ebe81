"""Singular values and norms of the weights (appendix C)."""

from __future__ import annotations

import pandas as pd

from transferscope.claims.evidence import Evidence, last_epochs
from transferscope.claims.spectrum import rows_of_layers
from transferscope.report.chapters.chapter import Chapter, Section, Words, means, number, overview, pivot, spread
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
COUNT = "count_below_"
"""The columns of counts begin with it; the threshold follows."""


def networks(evidence: Evidence) -> list[Grid]:
    """Norms, ranks and condition of the whole network, untrained and trained, mean over runs."""
    every = sorted((*_networks(evidence), *_networks(evidence, untrained=True)), key=lambda row: row[0])
    strides = _stride(evidence, every[-1][2]) if every else ""
    note = f"Mean (range over runs). Condition is ∞ where a stride skips inputs. {strides}{_left_out(evidence)}"
    columns = ("task", "kind", *SUMMARIES.values())
    return overview("Ours: the whole network", columns, means(every, SUMMARIES), note, "<task>.spectrum.table")


def layers(evidence: Evidence) -> list[Grid]:
    """Norms, ranks and condition of every layer, mean over the runs of a kind."""
    grids = []
    for task, table in evidence.each("spectrum"):
        rows = rows_of_layers(table)
        by_layer = rows.groupby(["module", "label"], sort=False)[list(SUMMARIES)].mean()
        cells = tuple((module, kind, *map(number, part)) for module, kind, *part in by_layer.reset_index().to_numpy())
        columns = ("layer", "kind", *SUMMARIES.values())
        caption, entry = f"{task}, layer by layer", f"{task}.spectrum.table"
        grids += overview(caption, columns, cells, _stride(evidence, rows), entry)
    return grids


def small_values(evidence: Evidence) -> list[Grid]:
    """Share of the whole network's singular values below each threshold, and the difference with its interval."""
    return [*_shares_below(evidence), *_differences(evidence)]


def paddings(evidence: Evidence) -> list[Grid]:
    """Share of the whole network's singular values below each threshold, for the network's padding and the circular."""
    rows = []
    heads: list[str] = []
    for task, table in evidence.each("network_spectrum"):
        for (kind, padding), part in table[table["module"] == "all"].groupby(["label", "padding"], sort=False):
            heads, shares = _below(part)
            bounded = (number(part["spectral_norm"].mean()), number(part["norm_bound"].max()))
            rows.append((task, str(kind), str(padding), *shares, *bounded))
    note = (
        "Mean (range over runs). Counts of the network's own padding are exact for small layers, estimated for large "
        "ones: the columns low_below and high_below hold 95 % error bars. The bound of the norm is certified."
    )
    caption = "Ours: the network's own padding against the circular one"
    columns = ("task", "kind", "padding", *heads, "‖W‖_2", "bound of it")
    return overview(caption, columns, rows, note, "<task>.network_spectrum.table")


def _shares_below(evidence: Evidence) -> list[Grid]:
    rows, note = [], ""
    heads: list[str] = []
    for task, kind, part in _networks(evidence):
        heads, shares = _below(part)
        rows.append((task, kind, f"{part['num_values'].iloc[0]:,.0f}", *shares))
        note = f"Mean (range over runs). {_stride(evidence, part)}{_left_out(evidence)}"
    columns = ("task", "kind", "values", *heads)
    return overview("Ours: share below a threshold", columns, rows, note, "<task>.spectrum.table")


def _below(part: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Heads and cells of the shares of singular values below each threshold."""
    columns = [name for name in part.columns if name.startswith(COUNT)]
    shares = [spread(part[name] / part["num_values"], formats.percent) for name in columns]
    return [f"below {name.removeprefix(COUNT)}" for name in columns], shares


def _differences(evidence: Evidence) -> list[Grid]:
    rows = [
        (
            task,
            f"{row['threshold']:g}",
            formats.percent(row["difference"]),
            f"{formats.percent(row['low'])} to {formats.percent(row['high'])}"
            if row["low"] == row["low"]
            else formats.MISSING,
            f"{row['layers_more_in_a']} of {row['num_layers']}",
            formats.percent(row["probability_smaller"]),
        )
        for task, table in evidence.each("small_values")
        for row in table.to_dict("records")
    ]
    columns = ("task", "threshold", "share of RI-T less that of P-T", "95 % interval", "layers with more", "smaller")
    note = (
        "The interval is over other runs of both kinds, and there is none for a single run or for equal ones. "
        "Layers with more: those where more singular values of RI-T are below. Smaller: the chance that one of RI-T "
        "is smaller than one of P-T, at no threshold; a half is no difference."
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
    parts = [
        (task, str(kind), part)
        for task, table in evidence.each("bound_factors")
        for kind, part in last_epochs(table).groupby("label", sort=False)
    ]
    note = (
        "Mean (range over runs). The margin, in logits, is the one that all but 5 % of the training examples reach; "
        "below 0 the bound says nothing. B is the largest l2 norm of a training image as the network sees it."
    )
    columns = ("task", "kind", *heads.values())
    return overview("Ours: factors of the bound", columns, means(parts, heads), note, "<task>.bound_factors.table")


def norm_ratios_per_layer(evidence: Evidence) -> list[Grid]:
    """The terms of the sum, mean over the runs of a kind."""
    return [
        pivot(f"{task}, layer by layer", rows_of_layers(table), "module", "label", "ratio", f"{task}.spectrum.table")
        for task, table in evidence.each("spectrum")
    ]


def _stride(evidence: Evidence, rows: pd.DataFrame) -> str:
    """The sentence on how strides were treated."""
    ignored = "stride" in rows.columns and (rows["stride"] == "ignored").any()
    if evidence.plan.compares_files:
        return "Strides are ignored (taken as 1)." if ignored else "Strides are honoured."
    if ignored:
        return "Strides are ignored (taken as 1), as the paper's method does."
    return "Strides are honoured; the paper's method ignores them."


def _left_out(evidence: Evidence) -> str:
    """The sentence that names layers without a spectrum, for each kind of network that has some."""
    layers = {
        (str(kind), str(names))
        for _, table in evidence.each("spectrum")
        if "left_out" in table.columns
        for kind, names in table[["label", "left_out"]].dropna().itertuples(index=False)
        if names
    }
    listed = "; ".join(f"{kind}: {names}" for kind, names in sorted(layers))
    only = " Only 2-d convolutions and linear layers that the forward pass reaches have a spectrum. Without one are, in"
    return f"{only} {listed}." if listed else ""


def _networks(evidence: Evidence, *, untrained: bool = False) -> list[tuple[str, str, pd.DataFrame]]:
    """Task, kind and rows of the whole network at the last epoch; untrained: of runs from scratch at epoch 0."""
    networks = []
    for task, table in evidence.each("spectrum"):
        rows = table[table["module"] == "all"]
        if untrained:
            drawn = {name.run for name in evidence.members(task, "from_scratch")}
            rows = rows[(rows["epoch"].astype(str) == "0") & rows["run"].isin(drawn)]
            rows = rows.assign(label=rows["label"].astype(str) + ", untrained")
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
            note="The lower part leaves out values of exactly 0, of which untrained networks have many. "
            "For the tasks in analyses.spectrum.layer_pages every layer has its own panels in the file "
            "layer_spectra.pdf beside the figures, in the catalog <task>.layer_spectra.pages. docs/spectrum.md "
            "describes how to read them.",
            of_files=Words(
                "Singular values of all convolutions and linear layers, side by side, with circular padding of images "
                "(zeros at the edges change small values and the condition) and without BatchNorm.",
                "‖W‖_2 of the whole network is that of the layer with the largest.",
            ),
        ),
        Section(
            id="figure_33",
            numbers="Figure 33",
            title="Singular values below a threshold",
            see="At small thresholds RI-T's curve should lie above P-T's.",
            analysis="spectrum",
            figures=("spectrum_counts",),
            tables=small_values,
            of_files=Words("Number and share of singular values below each threshold, with circular padding."),
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
            of_files=Words("With the network's own padding (solid) and with circular padding (dashed)."),
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
            of_files=Words(
                "Of networks of one architecture with the same product of norms and the same margin γ: the larger the "
                "sum, the larger the bound on the generalisation error. Where γ is below 0 there is no bound."
            ),
        ),
    ),
)
