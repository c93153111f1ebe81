"""CKA and distances of weights, beside the paper's Tables 1, 2, 7 and 8 (appendix B.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.claims.similarity import one_cka
from transferscope.experiment.names import CheckpointName
from transferscope.report import published
from transferscope.report.chapters.chapter import Chapter, Section, Words, interval, number, overview, pivot, spread
from transferscope.tables import formats
from transferscope.tables.grid import Grid

FLOOR = "permuted examples (floor)"


def cka(evidence: Evidence) -> list[Grid]:
    """Pair kinds by layers, as Tables 1 and 7, for one sort of features and one estimator.

    Two networks without a common name of layers are compared in the table of closest layers.
    """
    by_name = [_cka_grid(f"Ours: {task}", task, one_cka(table)) for task, table in _each_of_two(evidence, "cka")]
    return by_name + _closest_layers(evidence)


def _each_of_two(evidence: Evidence, name: str) -> list[tuple[str, pd.DataFrame]]:
    """The tables of all tasks that compare two models, and not a model with itself alone."""
    return [(task, table) for task, table in evidence.each(name) if _of_two(table).any()]


def _of_two(table: pd.DataFrame) -> pd.Series:
    return table["checkpoint_a"] != table["checkpoint_b"]


def _closest_layers(evidence: Evidence) -> list[Grid]:
    """For every layer of the first the most similar one of the second, where no layers have one name."""
    grids = []
    for task, table in evidence.each("cka_layers"):
        of_name = [rows for one, rows in evidence.each("cka") if one == task]
        compared = {pair for rows in of_name for pair in zip(rows["checkpoint_a"], rows["checkpoint_b"], strict=True)}
        apart = table[_of_two(table)].dropna(subset="cka")
        for pair, part in apart.groupby(["checkpoint_a", "checkpoint_b"], sort=False):
            if pair in compared:
                continue
            first, second = (str(part[f"label_{side}"].iloc[0]) for side in "ab")
            rows = tuple(
                _closest(of_layer.nlargest(2, "cka").to_dict("records"))
                for _, of_layer in part.groupby("layer", sort=False)
            )
            note = (
                f"From the heat map ({part['features'].iloc[0]} features, {part['estimator'].iloc[0]} estimator, "
                f"{int(part['num_examples'].iloc[0]):,} test examples): for each layer of {first} the one "
                f"of {second} with the largest CKA, which as the largest of several is high by chance. The floor is "
                "the CKA of the same two layers with permuted examples."
            )
            columns = (f"layer of {first}", f"closest of {second}", "CKA", FLOOR, "next", "its CKA")
            caption, entry = f"{task}: closest layers of {first} and {second}", f"{task}.cka_layers.table"
            grids.append(Grid(caption, columns, rows, note=note, entry=entry, text_columns=2))
    return grids


def cka_other(evidence: Evidence) -> list[Grid]:
    """The other sorts of features and estimators, every pair with its interval, and the second opinion."""
    grids = []
    for task, table in _each_of_two(evidence, "cka"):
        shown = one_cka(table)
        for (features, estimator), part in table.drop(shown.index).groupby(["features", "estimator"], sort=False):
            grids.append(_cka_grid(f"{task}, {features}, {estimator}", task, part))
        if "low" in shown.columns:
            grids.append(_cka_intervals(task, shown))
    return grids + _second_opinions(evidence)


def _closest(best: list[dict[Any, Any]]) -> tuple[str, ...]:
    """Cells of a layer and the one or two that are most similar to it."""
    first, *others = best
    after: Mapping[Any, Any] = others[0] if others else {"layer_b": formats.MISSING, "cka": math.nan}
    numbers = (formats.decimals(float(first[name])) for name in ("cka", "permuted"))
    return (
        str(first["layer"]),
        str(first["layer_b"]),
        *numbers,
        str(after["layer_b"]),
        formats.decimals(float(after["cka"])),
    )


def _cka_grid(caption: str, task: str, table: pd.DataFrame) -> Grid:
    first = table.iloc[0]
    note = (
        f"{first['features']} features (after the activation where there is one), {first['estimator']} estimator, "
        f"{int(first['num_examples']):,} test examples; mean (range over pairs)."
    )
    return _by_layer(caption, table, "cka", note, f"{task}.cka.table")


def _second_opinions(evidence: Evidence) -> list[Grid]:
    grids = []
    for task, table in _each_of_two(evidence, "second_opinion"):
        for measure, part in table.groupby("measure", sort=False):
            note = (
                f"{part['features'].iloc[0]} features, {int(part['num_examples'].iloc[0]):,} examples, not debiased: "
                "compare with the floor; mean (range over pairs)."
            )
            caption = f"{task}, {measure} similarity"
            grids.append(_by_layer(caption, part, "value", note, f"{task}.second_opinion.table"))
    return grids


def _by_layer(caption: str, table: pd.DataFrame, value: str, note: str, entry: str) -> Grid:
    """Kinds of pairs and controls by layers; last the floor: all pairs of two models with permuted examples."""
    layers = list(dict.fromkeys(table["layer"].astype(str)))
    rows = [(str(kind), *_cells(part, layers, value)) for kind, part in table.groupby("pair_kind", sort=False)]
    if "permuted" in table.columns:
        rows.append((FLOOR, *_cells(table[_of_two(table)], layers, "permuted")))
    return Grid(caption, ("pair", *layers), tuple(rows), note=note, entry=entry)


def _cells(table: pd.DataFrame, layers: list[str], value: str) -> list[str]:
    cells = {
        str(layer): spread(values, formats.decimals) for layer, values in table.groupby("layer", sort=False)[value]
    }
    return [cells.get(layer, formats.MISSING) for layer in layers]


def _cka_intervals(task: str, table: pd.DataFrame) -> Grid:
    layers = list(dict.fromkeys(table["layer"].astype(str)))
    rows = []
    for (kind, a, b), part in table.groupby(["pair_kind", "checkpoint_a", "checkpoint_b"], sort=False):
        cells = {str(row["layer"]): _with_interval(row) for row in part.to_dict("records")}
        rows.append((str(kind), str(a), str(b), *(cells.get(layer, "") for layer in layers)))
    return Grid(
        f"{task}, every pair with its interval",
        ("pair", "first", "second", *layers),
        tuple(rows),
        note="95 % intervals over examples. There is none where features are the same up to rotation and scale, since "
        "nothing varies, and none of fewer than 50 examples.",
        entry=f"{task}.cka.table",
        text_columns=3,
    )


def _with_interval(row: Mapping[Any, Any]) -> str:
    return formats.decimals(float(row["cka"])) + interval(float(row["low"]), float(row["high"]), formats.decimals)


def distances_between(evidence: Evidence) -> list[Grid]:
    """Global distances of pairs of models, mean and range over pairs."""
    return _distances(evidence, "Ours: distance between two models", initial=False)


def distances_travelled(evidence: Evidence) -> list[Grid]:
    """Global distances to the initial weights."""
    return _distances(evidence, "Ours: distance to the initial weights", initial=True)


def _distances(evidence: Evidence, caption: str, *, initial: bool) -> list[Grid]:
    rows = []
    for task, table in evidence.each("distances"):
        table = table[_to_initial_weights(table) == initial]
        for kind, part in table.groupby("pair_kind", sort=False):
            whole, summed = part[part["module"] == "all"], part[part["module"] == "sum"]
            numbers = (whole["l2"], summed["l2"], whole["squared"], whole["relative"])
            rows.append((task, str(kind), str(len(whole)), *(spread(values, number) for values in numbers)))
    columns = ("task", "pair", "pairs", "l2", "sum over modules", "l2 squared", "relative")
    return overview(caption, columns, rows, "Mean (range).", "<task>.distances.table")


def _to_initial_weights(table: pd.DataFrame) -> pd.Series:
    """True if both sides of a row are one run."""
    sides = (
        table[side].map({text: CheckpointName.parse(text).run_name for text in table[side].unique()})
        for side in ("checkpoint_a", "checkpoint_b")
    )
    return next(sides) == next(sides)


PER_MODULE = {"l2": "l2", "relative": "relative to the first", "statistics_l2": "l2 of running statistics"}


def distances_per_module(evidence: Evidence) -> list[Grid]:
    """l2 and relative distance of every module, mean over pairs: modules by pair kinds.

    Of networks with BatchNorm also the distance of their running statistics, which are no weights.
    """
    grids = []
    for task, table in evidence.each("distances"):
        rows = table[~table["module"].isin(("all", "sum"))]
        for column, name in PER_MODULE.items():
            if column in rows.columns and (column != "statistics_l2" or rows["num_statistics"].any()):
                caption = f"{task}, module by module ({name})"
                grids.append(pivot(caption, rows, "module", "pair_kind", column, f"{task}.distances.table"))
    return grids


CHAPTER = Chapter(
    title="Similarity of features and weights",
    appendix="B.3",
    sections=(
        Section(
            id="tables_1_7",
            numbers="Tables 1 and 7",
            title="Similarity of features (CKA)",
            see="Two P-T should be alike in every layer; pairs with an RI-T should be near the floor. Compare the "
            "order of the rows, not the numbers.",
            analysis="similarity",
            figures=("cka", "cka_heat_map", "cka_matrix"),
            paper=(published.TABLE_1, published.TABLE_7),
            tables=cka,
            folded=cka_other,
            note="The paper does not say how features were pooled, on how many examples, or with which estimator; "
            "the biased estimate (Kornblith et al. 2019) of unrelated features is far from 0, the debiased and "
            "minibatch ones are near 0. Controls: a model with itself, two untrained models, and the "
            "same with permuted examples. The heat maps compare every block with every block.",
            of_files=Words(
                "1 where a layer of both models has the same features but for rotation and scale, near the floor where "
                "they have nothing in common.",
                "Controls: a model with itself, and the same with permuted examples (the floor). The heat maps compare "
                "every block with every block.",
            ),
        ),
        Section(
            id="table_2",
            numbers="Table 2, Figure 10",
            title="Distance between two models",
            see="Two P-T should lie much closer together than two RI-T, in every module.",
            analysis="similarity",
            figures=("distance_per_module", "distance_matrix"),
            paper=(published.TABLE_2,),
            tables=distances_between,
            folded=distances_per_module,
            note="The paper's tables do not agree with each other, so the l2 over all weights is shown beside the "
            "sum of the modules' and the square.",
            of_files=Words(
                "Distance between the weights of every module, with channels in the order of the files; relative "
                "distances are divided by the norm of the first model's weights. Networks that differ "
                "only in the order of channels lie far apart, too."
            ),
        ),
        Section(
            id="table_8",
            numbers="Table 8, Figure 11",
            title="Distance to the initial weights",
            see="Fine-tuning should move the weights much less than training from scratch.",
            analysis="similarity",
            figures=("distance_to_initialisation", "distance_travelled"),
            paper=(published.TABLE_8,),
            tables=distances_travelled,
        ),
    ),
)
