"""Models merged into one (beyond the paper)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from transferscope.claims.evidence import CROSS_DOMAIN, Evidence
from transferscope.plots.merging import METHODS
from transferscope.report.chapters.chapter import Chapter, Section, Words
from transferscope.tables import formats
from transferscope.tables.grid import Grid

ROWS = ("merge", "model", "setting", "verdict")
BY_INTERVAL = "In brackets 95 % intervals over test images."


def merges(evidence: Evidence) -> list[Grid]:
    """A row per merge and model: its score over all tasks, the gain with the verdict, and the gap to the union."""
    grids = []
    for scope, table in _tables(evidence):
        several = set(table.loc[table["task"] == "all", "merge"])
        rows = table[(table["task"] == "all") | ~table["merge"].isin(several)]
        note = (
            f"{BY_INTERVAL}{_images(rows)} Mean over the tasks where there are several. Gain: over the candidate "
            "that other images chose, paired on the same images. ★: the merge that those images chose. Refitted: with "
            "a linear classifier fitted to the network's features of images of the train part."
        )
        if rows["behind_union"].notna().any():
            note += " Behind: what a model trained on all images has more."
        grids.append(_grid(f"Ours: merges, {_title(scope)}", scope, rows, note, with_task=False))
    return grids


def every_task(evidence: Evidence) -> list[Grid]:
    """The same on every single task of the merges that are judged on several."""
    grids = []
    for scope, table in _tables(evidence):
        rows = table[table["task"] != "all"]
        if rows["task"].nunique() > 1:
            grids.append(_grid(f"{_title(scope)}, merges task by task", scope, rows, BY_INTERVAL, with_task=True))
    return grids


def _images(rows: pd.DataFrame) -> str:
    """Numbers of images that chose and that judged, as a sentence; nothing where merges differ in them."""
    sizes = set(rows[["num_choice", "num_examples"]].itertuples(index=False, name=None))
    if len(sizes) != 1:
        return ""
    choosing, judging = map(int, next(iter(sizes)))
    return f" {choosing:,} images choose, and {judging:,} others judge."


def _tables(evidence: Evidence) -> list[tuple[str, pd.DataFrame]]:
    across = evidence.table(CROSS_DOMAIN, "merging")
    return [*evidence.each("merging"), *([(CROSS_DOMAIN, across)] if len(across) else [])]


def _title(scope: str) -> str:
    return "across tasks" if scope == CROSS_DOMAIN else scope


def _grid(caption: str, scope: str, table: pd.DataFrame, note: str, *, with_task: bool) -> Grid:
    names = (*ROWS[:1], "task", *ROWS[1:]) if with_task else ROWS
    numbers = ("score", "refitted", "gain", *(("behind",) if table["behind_union"].notna().any() else ()))
    shown = [tuple(_cells(row)[name] for name in (*names, *numbers)) for row in table.to_dict("records")]
    entry = f"{scope}.merging.table"
    return Grid(caption, (*names, *numbers), tuple(shown), note=note, entry=entry, text_columns=len(names))


def _cells(row: Mapping[Hashable, Any]) -> dict[str, str]:
    model = METHODS.get(str(row["model"]), str(row["model"]))
    return {
        "merge": str(row["merge"]),
        "task": str(row["task"]),
        "model": f"{model} ★" if row["chosen"] and row["kind"] == "merge" else model,
        "setting": _text(row["setting"]),
        "verdict": _text(row["verdict"]),
        "score": _ranged(row, "value", sign=False),
        "refitted": formats.MISSING if pd.isna(row["refitted"]) else formats.points(float(row["refitted"])),
        "gain": _ranged(row, "gain", sign=True),
        "behind": _ranged(row, "behind_union", sign=True),
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) and value else formats.MISSING


def _ranged(row: Mapping[Hashable, Any], name: str, *, sign: bool) -> str:
    """Points, with their interval: `85.1 [82.2, 87.5]`."""
    values = [float(row[key]) for key in (name, f"{name}_low", f"{name}_high")]
    if pd.isna(values[0]):
        return formats.MISSING
    value, low, high = (formats.points(one, sign=sign) for one in values)
    return value if pd.isna(values[1:]).any() else f"{value} [{low}, {high}]"


CHAPTER = Chapter(
    title="Does averaging pay?",
    appendix="beyond the paper",
    sections=(
        Section(
            id="merging",
            numbers="Beyond the paper",
            title="Several models merged into one",
            see="The average of two P-T of different domains should be good on both, near a P-T that was trained on "
            "their union, since they lie in one basin. That of two RI-T should be near chance, unless their channels "
            "are matched and rescaled.",
            analysis="merging",
            figures=("merging",),
            tables=merges,
            folded=every_task,
            note="A merge pays if the whole interval of its gain over the chosen candidate lies above 0, and does not "
            "pay if all of it lies at 0 or below. That candidate, settings and the merge to be used are chosen on "
            "images that judge nothing. The chosen merge lies at <scope>.<merge>.merged, weights and card.",
            of_files=Words(
                "The score of each model, of their ensemble and of each merge, on images that chose nothing.",
                "A merge pays if the whole interval of its gain over the chosen single model lies above 0, and does "
                "not pay if all of it lies at 0 or below. That model and the merge that is written (★) are chosen on "
                "other images. Statistics of BatchNorm of merges are those of images of the train part, single models "
                "are as their files have them, so that a part of a gain or loss may be that of the statistics. The "
                "weights lie with their card at <task>.<merge>.merged of the catalog.",
            ),
        ),
    ),
)
