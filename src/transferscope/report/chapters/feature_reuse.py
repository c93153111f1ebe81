"""Feature reuse, its controls, and which epoch of the pre-trained model to start from (main text, Figures 3 and 7)."""

from __future__ import annotations

import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.report import published
from transferscope.report.chapters.chapter import Chapter, Section, interval, overview, spread
from transferscope.tables import formats
from transferscope.tables.block_sizes import paper_drop, relative_drops, shuffled_rows
from transferscope.tables.grid import Grid


def block_sizes(evidence: Evidence) -> list[Grid]:
    """Final metric and speed of both kinds by size of the blocks, and the relative drop beside the paper's."""
    rows = []
    for task, table in evidence.each("feature_reuse"):
        shown = shuffled_rows(table)
        if not (shown["series"] == "blocks").any():
            continue
        drops = relative_drops(shown).set_index("size")["drop"]
        side = int(shown["side"].iloc[0])
        for size in sorted(
            dict.fromkeys(shown["size"].astype(str)), key=lambda size: -1 if size == "values" else int(size)
        ):
            of_size = shown[shown["size"].astype(str) == size]
            name = {"values": "* (all values)", str(side): "whole images"}.get(size, f"{size} px")
            paper = paper_drop(task, size, side)
            ours = drops.get(size, float("nan"))
            percents = (_percent(float(value)) for value in (ours, paper))
            rows.append((task, name, *_both(of_size, "final_test"), *_both(of_size, "optimization_speed"), *percents))
        own = table[table["series"] == "each"]
        for size in dict.fromkeys(own["size"].astype(str)):
            of_size = own[own["size"].astype(str) == size]
            name = f"{'*' if size == 'values' else f'{size} px'}, each image by itself"
            numbers = (*_both(of_size, "final_test"), *_both(of_size, "optimization_speed"))
            rows.append((task, name, *numbers, formats.MISSING, formats.MISSING))
    columns = (
        "task", "blocks", "final, P-T", "final, RI-T", "speed, P-T", "speed, RI-T", "relative drop", "the paper's",
    )  # fmt: skip
    note = (
        "Mean (smallest to largest run). Relative drop: 100 (P-T - RI-T) / P-T of the mean final metric. The paper's "
        "is at the size that is the nearest share of its 224 px. Each image by itself: a control in which every image "
        "has a permutation of its own, so that no place means the same in two images."
    )
    return overview("Ours: shuffled images", columns, rows, note, "<task>.feature_reuse.table")


def controls(evidence: Evidence) -> list[Grid]:
    """Final metric and speed by what is taken of the pre-trained model."""
    rows = []
    for task, table in evidence.each("feature_reuse"):
        shown = table[table["series"].isin(["whole", "control"])]
        if not (shown["series"] == "control").any():
            continue
        for (label, part), of_part in shown.groupby(["label", shown["part"].fillna("")], sort=False):
            numbers = (spread(of_part[name], _score(of_part)) for name in ("final_test", "optimization_speed"))
            rows.append((task, f"{label}, {part}" if part else str(label), *numbers))
    columns = ("task", "kind", "final, test", "optimization speed")
    return overview("Ours: parts of the pre-trained model", columns, rows, "", "<task>.feature_reuse.table")


def source_epochs(evidence: Evidence) -> list[Grid]:
    """Final metric, speed and gain by source epoch, and the first epoch that gives most of the gain."""
    rows, firsts = [], []
    for task, gains in evidence.each("source_epochs"):
        runs = evidence.table(task, "feature_reuse")
        starts = runs[runs["series"].isin(["whole", "epoch"]) & (runs["role"] == "fine_tuned")]
        for row in gains.to_dict("records"):
            of_epoch = starts[starts["source_epoch"].astype(str) == str(row["source_epoch"])]
            numbers = (spread(of_epoch[name], _score(of_epoch)) for name in ("final_test", "optimization_speed"))
            gain = _points(row["gain"]) + interval(row["gain_low"], row["gain_high"], _points)
            rows.append((task, str(row["source_epoch"]), *numbers, gain, _percent(100 * row["part_of_gain"])))
        head = gains.iloc[0]
        first, low, high = (formats.cell(head[f"first_epoch{end}"], str) for end in ("", "_low", "_high"))
        note = "" if pd.isna(head["note"]) else str(head["note"])
        firsts.append((task, first, f"{low} to {high}" if low != formats.MISSING else formats.MISSING, note))
    columns = ("task", "source epoch", "final, test", "optimization speed", "gain, points", "part of the gain")
    note = (
        "Gain: mean final metric minus that from scratch, RI-T with a training of its own, with the 95 % interval over "
        "runs and test images. The runs from all epochs are trained as P-T is."
    )
    entry = "<task>.source_epochs.table"
    first_columns = ("task", "first epoch", "95 % interval", "note")
    rule = (
        "The first source epoch whose gain is at least 95 % of that from the last one. The interval holds it in 95 % "
        "of studies with other runs and other test images."
    )
    return [
        *overview("Ours: by source epoch", columns, rows, note, entry),
        *overview("Ours: the first epoch with 95 % of the gain", first_columns, firsts, rule, entry, text_columns=4),
    ]


def _both(rows: pd.DataFrame, column: str) -> tuple[str, str]:
    first, second = (
        spread(rows.loc[rows["role"] == role, column], _score(rows)) for role in ("fine_tuned", "from_scratch")
    )
    return first, second


def _score(rows: pd.DataFrame) -> formats.Format:
    return formats.score(str(rows["metric"].iloc[0]))


def _points(value: float) -> str:
    return formats.points(value, sign=True)


def _percent(value: float) -> str:
    return formats.MISSING if value != value else f"{round(value)} %"


CHAPTER = Chapter(
    title="Feature reuse",
    appendix="main text",
    sections=(
        Section(
            id="figure_3",
            numbers="Figures 1 and 3",
            title="Images with shuffled blocks",
            see="P-T should learn faster at every size, which no feature explains, and its gain in accuracy should "
            "grow with the blocks, as far as features survive in them.",
            analysis="feature_reuse",
            figures=("feature_reuse",),
            paper=(published.FIGURE_3,),
            tables=block_sizes,
            note="Figure 1 is under Images (shuffled images). One permutation of the blocks for all images, "
            "train and test, after normalisation and without augmentation; * permutes all values across positions and "
            "channels.",
        ),
        Section(
            id="reuse_controls",
            numbers="controls",
            title="Which part of the pre-trained model is needed",
            see="Random weights with the pre-trained statistics of each tensor should train faster but end no better; "
            "the number of first modules that it takes shows where the reused features lie.",
            analysis="feature_reuse",
            figures=("reuse_controls",),
            tables=controls,
            note="Statistics and first modules are trained as RI-T is, from which they differ in their initial weights "
            "alone; frozen features as P-T. Images that are each permuted on their own are with the shuffled images.",
        ),
        Section(
            id="figure_7",
            numbers="Figure 7",
            title="Which epoch to fine-tune from",
            see="Early epochs should already help; where the curve is flat, pre-training could have stopped. The "
            "first epoch with 95 % of the gain is marked with its interval.",
            analysis="source_epochs",
            figures=("source_epochs",),
            paper=(published.FIGURE_7,),
            tables=source_epochs,
        ),
    ),
)
