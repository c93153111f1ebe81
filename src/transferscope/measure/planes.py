"""Metrics on the plane through three models."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from transferscope.analysis.plane import Plane, evaluate_plane
from transferscope.analysis.states import TensorKinds
from transferscope.measure.bench import Bench, workspace
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.parametrised import analysed_state
from transferscope.system.progress import progress_bar

COLUMNS = ["task", "split", "x", "y", "checkpoint", "metric", "value", "num_examples"]


def plane(
    bench: Bench,
    checkpoints: Mapping[str, Checkpoint],
    *,
    points: int = 15,
    margin: float = 0.3,
    name: str = "plane",
) -> pd.DataFrame:
    """Measure test metrics on the plane through three checkpoints: a row per point and metric, the checkpoints first.

    Columns task, split, x, y, checkpoint, metric, value, num_examples. x and y are l2 distances; the first checkpoint
    is the origin, the second lies on the x axis. `checkpoint` is a key of `checkpoints`, and empty on the grid.

    Args:
        points: Points of the grid, a side.
        margin: Part of the extent of the three models by which the grid goes beyond them.
        name: Shown beside the progress.

    Raises:
        UserError: The three are no weights of one architecture, or lie on one line.
    """
    first = next(iter(checkpoints.values()))
    model = workspace(first)
    through = Plane(*map(analysed_state, checkpoints.values()), kinds=TensorKinds.of_model(model))
    x, y = through.grid(points, margin)
    evaluate = bench.along(first, model, ["test"])
    with progress_bar(f"{bench.task}: {name}", len(x) * len(y) + len(checkpoints)) as advance:
        table = evaluate_plane(model, through, x, y, evaluate, progress=advance)
    table["metric"] = table["metric"].str.removeprefix("test/")
    table["checkpoint"] = table.pop("point").map({"": "", **dict(zip("abc", checkpoints, strict=True))})
    return table.assign(task=bench.task, split="test", num_examples=len(bench.split("test")))[COLUMNS]
