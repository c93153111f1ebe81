"""Choose and order the rows of tidy tables for figures: kinds of runs, spread over replicas, curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from transferscope.experiment.names import CheckpointName
from transferscope.experiment.pairs import pair_kind
from transferscope.plots.roles import present_labels
from transferscope.plots.style import shorten
from transferscope.system.errors import UserError

LONGEST_FILE = 25
"""Letters of the name of a file, of which two stand beside each other."""


def kind_of_run(run: str) -> str:
    """The label of a run in the study; else the kind in its name, `rit same init` of `clipart.rit_same_init_2`."""
    try:
        name = CheckpointName.parse(run, task="unknown").run_name
    except UserError:
        return run.replace("_", " ")
    if str(name) in present_labels().runs:
        return present_labels().runs[str(name)]
    return name.kind.replace("_", " ")


def kinds_of(table: pd.DataFrame) -> pd.Series:
    """The kind of run of every row: the column `label` where the table has it, else read from the column `run`."""
    return table["label"].astype(str) if "label" in table.columns else table["run"].map(kind_of_run)


def with_named_pairs(pairs: pd.DataFrame, names: Mapping[str, str], most: int) -> tuple[pd.DataFrame, int]:
    """A table whose pairs of files are told apart: their pair_kind names the two models, `epoch_1 & epoch_2`.

    pairs: columns pair_kind, checkpoint_a, checkpoint_b. names: shown names by the full name of the run, of the files
    that have one label together; the middle of long ones is left out. most: of more such pairs the rows of the first
    ones are kept, so that their figure can be read.

    Returns the table, and the number of all such pairs where some were left out, else 0.
    """
    short = _shortened(names.values())
    known = {run: short[name] for run, name in names.items()}
    ends = [pairs[side].map(lambda name: known.get(str(CheckpointName.parse(name, task="unknown").run_name)))
            for side in ("checkpoint_a", "checkpoint_b")]  # fmt: skip
    named = ends[0].notna() & ends[1].notna()
    both = pd.Series([pair_kind(str(a), str(b)) for a, b in zip(*ends, strict=True)], index=pairs.index, dtype=object)
    shown = pairs["pair_kind"].mask(named, both)
    every = in_order(shown[named])
    kept = pairs.assign(pair_kind=shown)[~named | shown.isin(every[:most])]
    return kept, len(every) if len(every) > most else 0


def _shortened(names: Iterable[str]) -> dict[str, str]:
    """Names of at most `LONGEST_FILE` letters; more are kept of those that would look alike."""
    shown = {name: shorten(name, LONGEST_FILE) for name in names}
    longest = LONGEST_FILE
    while (counts := Counter(shown.values())).total() > len(counts):
        alike = [name for name, text in shown.items() if counts[text] > 1]
        longest += 1
        shown |= {name: shorten(name, longest) for name in alike}
    return shown


def require_columns(table: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Raise `UserError` that names what `table` lacks."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        present = ", ".join(map(str, table.columns))
        raise UserError(f"table '{name}' lacks the column {', '.join(missing)}; it has {present}")


def choose(table: pd.DataFrame, column: str, wanted: object | None, preferred: Sequence[object] = ()) -> pd.DataFrame:
    """Rows with one value of `column`: `wanted`, else the first of `preferred` that occurs, else the first row's."""
    if column not in table.columns or table.empty:
        return table
    present = list(dict.fromkeys(table[column]))
    if wanted is None:
        wanted = next((value for value in preferred if value in present), present[0])
    elif wanted not in present:
        raise UserError(f"no rows with {column} = {wanted!r}; present: {', '.join(map(str, present))}")
    return table[table[column] == wanted]


def last_epoch_rows(table: pd.DataFrame, epoch: object | None = None) -> pd.DataFrame:
    """Rows at `epoch`; default: of each run its `final` epoch, or else its largest number."""
    if "epoch" not in table.columns or table.empty:
        return table
    if epoch is not None:
        return table[table["epoch"].astype(str) == str(epoch)]
    # Of the few pairs of run and epoch, since a table of singular values has many rows of each.
    pairs = table[["run", "epoch"]].drop_duplicates()
    names = pairs["epoch"].astype(str)
    rank = pd.to_numeric(names, errors="coerce").fillna(-1.0).mask(names == "best", -2.0).mask(names == "final", np.inf)
    last = pairs[rank == rank.groupby(pairs["run"]).transform("max")]
    return table.merge(last, on=["run", "epoch"])


def main_metric(table: pd.DataFrame) -> str:
    """Metric that the task of a table with a column metric is judged by: AUC where it has any, else accuracy."""
    return "auc" if (table["metric"] == "auc").any() else "accuracy"


def heading(title: str | None, table: pd.DataFrame) -> str:
    """`title` where one is given (also an empty one), else the task."""
    return task_title(table) if title is None else title


def task_title(table: pd.DataFrame) -> str:
    """The task that a table is about, or all of them."""
    tasks = list(dict.fromkeys(table["task"].astype(str))) if "task" in table.columns else []
    return ", ".join(tasks)


def how_many(table: pd.DataFrame) -> str:
    """` (400 images)`, ` (400 images each)` of several parts; nothing where the table does not say."""
    if "num_examples" not in table.columns or "split" not in table.columns or table.empty:
        return ""
    sizes = table.drop_duplicates("split").set_index("split")["num_examples"].astype(int)
    if sizes.nunique() == 1:
        return f" ({sizes.iloc[0]:,} images{' each' if len(sizes) > 1 else ''})"
    return f" ({', '.join(f'{size:,} {split}' for split, size in sizes.items())} images)"


def without_gaps(table: pd.DataFrame, x: str) -> pd.DataFrame:
    """Rows at values of `x` that no fewer runs have than any later one.

    An epoch that one replica alone has kept, as its best, is no mean over replicas; runs that end early are.
    """
    counts = table.groupby(x)["run"].nunique().sort_index()
    later = counts[::-1].cummax()[::-1]
    return table[table[x].isin(counts.index[counts >= later])]


def spread(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Mean, smallest and largest finite `y` at each `x`: columns x, mean, low, high; rows in order of `x`."""
    values = pd.to_numeric(table[y], errors="coerce").replace([np.inf, -np.inf], np.nan)
    kept = pd.DataFrame({"x": table[x].to_numpy(), "y": values.to_numpy()}).dropna()
    if kept["x"].dtype.kind == "f":
        kept["x"] = kept["x"].round(9)
    groups = kept.groupby("x", sort=True)["y"]
    return pd.DataFrame({"mean": groups.mean(), "low": groups.min(), "high": groups.max()}).reset_index()


def spread_by_name(table: pd.DataFrame, column: str, y: str, names: Sequence[str]) -> pd.DataFrame:
    """`spread` over the categories `names`, a row each in their order; NaN where there is no finite value."""
    spreads = spread(table, column, y).set_index("x")
    return spreads.reindex(list(names))


def in_order(values: Iterable[object]) -> list[str]:
    """Distinct values as text, in order of appearance."""
    distinct = values.unique() if isinstance(values, pd.Series) else values
    return list(dict.fromkeys(str(value) for value in distinct))
