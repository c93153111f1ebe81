"""Barriers on the lines between models, beside the Figures 12 to 29 of the paper (appendix B.4 to B.8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from transferscope.claims.cross_domain import scenario_name, tasks_of
from transferscope.claims.evidence import CROSS_DOMAIN, Evidence
from transferscope.claims.run_facts import main_metric
from transferscope.experiment.names import CheckpointName
from transferscope.experiment.plan import Plan
from transferscope.report import published
from transferscope.report.chapters.basins import BASIN, PLANES
from transferscope.report.chapters.chapter import Chapter, Section, Words, number, overview, per_task, pivot, spread
from transferscope.tables import formats
from transferscope.tables.grid import Grid

BARRIER_COLUMNS = ("pair", "curves", "metric", "barrier", "gain half-way")
IN_POINTS = "Accuracy and AUC in points, which are hundredths; the loss in nats per example."
ALL_BARRIERS = (
    "scenario", "pair_kind", "checkpoint_a", "checkpoint_b", "split", "metric", "barrier", "barrier_alpha",
    "midpoint_gain", "barrier_low", "barrier_high", "gain_low", "gain_high", "largest_gap", "num_examples",
)  # fmt: skip
EXTRAPOLATED = (-0.5, 0.0, 0.5, 1.0, 1.5)
"""Alphas of the table of Figure 18, beside the first and the last."""


def barriers(evidence: Evidence) -> list[Grid]:
    """Barrier on the test set in the main metric, by task and kind of pair."""
    rows = []
    note = f"Mean (range over pairs). {IN_POINTS}"
    for task, table in evidence.each("barriers"):
        metric = main_metric(table)
        stored = _barrier_rows(table, AS_STORED + metric)
        rows += [(task, *row) for row in (*_barrier_rows(table, metric), *_barrier_rows(table, "loss"), *stored)]
        if stored:
            note = f"Mean (range over pairs). {IN_POINTS} {BATCHNORM_NOTE}"
    columns = ("task", *BARRIER_COLUMNS)
    return [*overview("Ours: barriers, test", columns, rows, note, "<task>.barriers.table"), *_lowest(evidence)]


def _lowest(evidence: Evidence) -> list[Grid]:
    """The lowest test metric of each line with its ends, the number that can be read off Figures 4 and 16."""
    rows = []
    for task, table in evidence.each("interpolation"):
        metric = main_metric(table)
        inside = _on_test(table, metric)
        inside = inside[inside["alpha"].between(0, 1)]
        for kind, part in inside.groupby(_kinds(inside), sort=False):
            lowest = part.groupby(list(_SIDES))["value"].min()
            rows.append((task, str(kind), formats.metric_name(metric), spread(lowest, formats.score(metric))))
    columns = ("task", "pair", "metric", "lowest on the line")
    caption = "Ours: lowest test metric on the line, ends included"
    return overview(caption, columns, rows, "Mean (range over pairs).", "<task>.interpolation.table")


AS_STORED = "naive_"
"""Begins the name of a metric that is measured with BatchNorm's statistics as stored."""
BATCHNORM_NOTE = (
    "BatchNorm's statistics are recomputed on training images at every point, the ends too; beside it the same with "
    "statistics as stored, interpolated like weights."
)


def _barrier_rows(table: pd.DataFrame, metric: str | None = None) -> list[tuple[str, ...]]:
    """A row per kind of pair, and per pair of epochs where the table compares several; test set, main metric."""
    rows = _on_test(table, metric)
    if rows.empty:  # the metric with statistics as stored, of networks without BatchNorm
        return []
    return [
        (
            str(kind),
            str(len(part)),
            formats.metric_name(str(part["metric"].iloc[0])),
            spread(part["barrier"], number if metric == "loss" else formats.points),
            spread(part["midpoint_gain"], number if metric == "loss" else formats.points),
        )
        for kind, part in rows.groupby(_kinds(rows), sort=False)
    ]


def _on_test(table: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Rows of the test set and one metric, the main one unless another is named."""
    return table[(table["split"] == "test") & (table["metric"] == (metric or main_metric(table)))]


def _kinds(table: pd.DataFrame) -> pd.Series:
    """`P-T & P-T`, with the epochs of its ends where there are several: `P-T & P-T, best & final`."""
    a, b = (table[side].map(lambda text: str(CheckpointName.parse(text).epoch)) for side in _SIDES)
    ends = a + " & " + b
    return table["pair_kind"] + (", " + ends if ends.nunique() > 1 else "")


_SIDES = ("checkpoint_a", "checkpoint_b")


def barrier_summary(evidence: Evidence) -> list[Grid]:
    """All scenarios on the test set, in the metric of their task; files have no scenario and no epochs."""
    table = evidence.table(CROSS_DOMAIN, "barrier_summary")
    if table.empty:
        return []
    test = table[table["split"] == "test"]
    has_auc = set(test.loc[test["metric"] == "auc", "task"])
    of_files = evidence.plan.compares_files
    several = not of_files or bool((test["pairs"] > 1).any())
    rows = [
        (
            *([] if of_files else [str(row["scenario"]).replace("_", " ")]),
            str(row["pair_kind"]),
            str(row["task"]),
            formats.metric_name(row["metric"]) + ("" if of_files else f", {row['epochs']}"),
            *([f"{row['pairs']:.0f}"] if several else []),
            _range(row["mean"], row["smallest"], row["largest"]),
            _bounds(row["examples_low"], row["examples_high"]),
            *([_bounds(row["pairs_low"], row["pairs_high"])] if several else []),
        )
        for row in test.to_dict("records")
        if row["metric"] == ("auc" if row["task"] in has_auc else "accuracy")
    ]
    places = ("pair", "on", "metric") if of_files else ("scenario", "pair", "on", "metric, epochs")
    numbers = ("pairs", "barrier (points)", "range of 95 % intervals", "95 % over models")
    columns = (*places, *(numbers if several else ("barrier (points)", "95 % interval")))
    note = (
        "Mean (smallest to largest pair); a point is a hundredth of accuracy or AUC. The range of intervals reaches "
        "from the lowest to the highest bound of the pairs' own over examples; an interval over models is given for "
        "six or more of them."
    )
    note = note if several else "A point is a hundredth of accuracy or AUC; intervals are over test images."
    entry = f"{CROSS_DOMAIN}.barrier_summary.table"
    caption = "Barriers on test images" if of_files else "Ours: every scenario, test"
    return [Grid(caption, columns, tuple(rows), note=note, entry=entry, text_columns=len(places))]


def _range(mean: float, low: float, high: float) -> str:
    ends = formats.points(low), formats.points(high)
    return formats.points(mean) if ends[0] == ends[1] else f"{formats.points(mean)} ({ends[0]} to {ends[1]})"


def _bounds(low: float, high: float) -> str:
    return formats.MISSING if math.isnan(low) else f"{formats.points(low)} to {formats.points(high)}"


def barriers_all(evidence: Evidence) -> list[Grid]:
    """Every pair, split and metric."""
    note = "Accuracy and AUC are fractions, the loss is in nats per example."
    return per_task(evidence, "barriers", ", every pair", ALL_BARRIERS, note)


def extrapolation(evidence: Evidence) -> list[Grid]:
    """Test metric at the ends and beyond them, mean over pairs."""
    grids = []
    for task, table in evidence.each("interpolation"):
        metric = main_metric(table)
        rows = _on_test(table, metric)
        if rows["alpha"].min() < 0:
            alphas = {float(rows["alpha"].min()), *EXTRAPOLATED, float(rows["alpha"].max())}
            rows = rows.assign(alpha=rows["alpha"].round(6), pair_kind=_kinds(rows))
            rows = rows[rows["alpha"].isin(alphas)]
            caption = f"Ours: {task}, test {formats.metric_name(metric)} by alpha"
            entry = f"{task}.interpolation.table"
            grids.append(pivot(caption, rows, "pair_kind", "alpha", "value", entry, formats.score(metric)))
    return [*grids, *_boundaries(evidence)]


def _boundaries(evidence: Evidence) -> list[Grid]:
    """Ends of the common basin on either side, every pair that has no barrier between its models."""
    rows = []
    for task, table in evidence.each("barriers"):
        chosen = _on_test(table)
        if "boundary_before" not in chosen:
            continue
        for row in chosen[chosen["boundary_before"].notna()].to_dict("records"):
            pair = f"{row['checkpoint_a']} & {row['checkpoint_b']}"
            rows.append((task, str(row["pair_kind"]), pair, _edge(row, "before"), _edge(row, "after")))
    columns = ("task", "pair", "checkpoints", "before the first, alpha", "beyond the second, alpha")
    note = (
        "Where accuracy or AUC first falls more than two points below that of the nearer model (95 % over examples), "
        "interpolated between the alphas measured. 0 and 1 are the models themselves. The intervals hold the place in "
        "94 to 98 % of test sets, and in up to 99 % where the metric stays close to two points below."
    )
    caption = "Ours: boundary of the basin along the line, test"
    return overview(caption, columns, rows, note, "<task>.barriers.table", text_columns=3)


def _edge(row: Mapping[Any, Any], side: str) -> str:
    place, low, high = (float(row[f"boundary_{side}{bound}"]) for bound in ("", "_low", "_high"))
    ends = "" if math.isnan(low) or place == low == high else f" ({_alpha(low)} to {_alpha(high)})"
    return f"{_alpha(place)}{ends}"


def _alpha(value: float) -> str:
    return formats.decimals(value, 2) if math.isfinite(value) else "as far as measured"


def single_domains(evidence: Evidence) -> list[Grid]:
    """Barriers and gains of scenarios between single domains."""
    return _scenarios(evidence, "Ours: between two domains, test", unions=False)


def combined_domains(evidence: Evidence) -> list[Grid]:
    """Barriers and gains of scenarios with a model of a union."""
    return _scenarios(evidence, "Ours: with combined domains, test", unions=True)


def _scenarios(evidence: Evidence, caption: str, *, unions: bool) -> list[Grid]:
    table = evidence.table(CROSS_DOMAIN, "barriers")
    rows: list[tuple[str, ...]] = []
    for scenario, part in table.groupby("scenario", sort=False) if len(table) else ():
        if bool(tasks_of(part) & evidence.unions) == unions:
            both = (*_barrier_rows(part), *_barrier_rows(part, "loss"))
            rows += [(scenario_name(scenario, part), *row) for row in both]
    return overview(caption, ("scenario", *BARRIER_COLUMNS), rows, IN_POINTS, f"{CROSS_DOMAIN}.barriers.table")


def _figures_of(plan: Plan, *, unions: bool) -> list[str]:
    """Figures of the scenarios with, or without, a model of a union."""
    landscape, tasks = plan.study.analyses.landscape, plan.study.tasks
    scenarios = landscape.cross_domain if landscape else ()
    return [item.figure for item in scenarios if any(tasks[task].union for task in item.tasks) == unions]


CHAPTER = Chapter(
    title="Barriers in the loss landscape",
    appendix="B.4 to B.8",
    sections=(
        Section(
            id="all_barriers",
            numbers="Figures 12 to 29",
            title="All barriers as numbers",
            see="P-T pairs should lie at 0, RI-T pairs far to the right, those with the same initialisation between "
            "them, within a task as across domains.",
            analysis="landscape",
            figures=("all_barriers",),
            tables=barrier_summary,
            note="A barrier is estimated without the upward bias of a largest gap: where it is highest is chosen on "
            "one part of the information in the test images and the height measured on the other, so that a flat line "
            "has 0 on average and may have less. Intervals are over test images, the same for all models, and hold the "
            "largest gap over the measured points in 94 to 98 % of test sets where lines are flat, and in up to 99 % "
            "where barriers are small. The statistics of "
            "BatchNorm layers are recomputed from training images at every point, the ends too; the same with "
            "statistics as stored, interpolated like weights, stands beside it.",
            of_files=Words(
                "The height of each pair's barrier on the straight line: about 0, or below, in one basin.",
                "A barrier is estimated without the upward bias of a largest gap, so that a flat line has 0 on average "
                "and may have less. Intervals are over test images; those of the answers are longer where several hold "
                "at once. The statistics of BatchNorm are recomputed from images of the train part at every point, the "
                "ends too.",
            ),
        ),
        Section(
            id="figures_12_17",
            numbers="Figures 12 to 17",
            title="Barriers between two models",
            see="The line between two P-T should be flat, that between two RI-T should fall deep in the middle, "
            "also where they share their initial weights.",
            analysis="landscape",
            figures=("barrier", "loss_barrier", "barrier_matrix"),
            paper=(published.FIGURE_12, published.FIGURE_14),
            tables=barriers,
            folded=barriers_all,
            note="Figures 12, 14, 16 show the metric, 13, 15, 17 the loss; 16 and 17 the pairs with the same "
            "initialisation. A barrier estimates the largest gap to the chord between both ends without the upward "
            "bias of a maximum.",
            of_files=Words(
                "The straight line from one model to the other: flat where both lie in one basin, with a fall of "
                "accuracy and a rise of the loss where they do not."
            ),
        ),
        Section(
            id="figure_18",
            numbers="Figure 18",
            title="Beyond the two models",
            see="Outside [0, 1] the metric of a P-T pair should fall soon: both lie near the boundary of their "
            "common basin.",
            analysis="landscape",
            figures=("extrapolation",),
            tables=extrapolation,
            of_files=Words("The reach of the basin beyond either model, on the same straight line."),
        ),
        BASIN,
        PLANES,
        Section(
            id="figures_19_23",
            numbers="Figures 19 to 23",
            title="Between models of two domains",
            see="Between P-T of two domains there should be no barrier but a gain in the middle; between RI-T a "
            "barrier.",
            analysis="landscape",
            option="cross_domain",
            figures=lambda plan: _figures_of(plan, unions=False),
            tables=single_domains,
            of_files=Words("The straight line from a model of one task to one of the other."),
        ),
        Section(
            id="figures_24_29",
            numbers="Figures 24 to 29",
            title="With models of combined domains",
            see="The same with a model trained on the union of two domains: still one basin for P-T, still a "
            "barrier for RI-T.",
            analysis="landscape",
            option="cross_domain",
            figures=lambda plan: _figures_of(plan, unions=True),
            tables=combined_domains,
        ),
    ),
)
