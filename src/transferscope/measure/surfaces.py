"""What is measured around several models of one task: planes through three, and the basin of a hull."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pandas as pd

from transferscope.analysis.basin import Basin, estimate_basin
from transferscope.analysis.distance import l2_distance
from transferscope.analysis.evaluation import Metrics, Store
from transferscope.analysis.plane import Plane, evaluate_plane
from transferscope.analysis.states import TensorKinds
from transferscope.experiment.options import BasinOptions, PlaneOptions, Precision
from transferscope.experiment.plan import derive_seed
from transferscope.measure.bench import Engine, subset, workspace
from transferscope.models.parametrised import analysed_state
from transferscope.models.series import CheckpointSeries, Epoch
from transferscope.system.errors import UserError
from transferscope.system.progress import progress_bar

logger = logging.getLogger(__name__)

PLANE_COLUMNS = ["task", "plane", "split", "x", "y", "checkpoint", "metric", "value", "num_examples"]


def plane(
    options: PlaneOptions,
    series: list[CheckpointSeries],
    train_split: Any,
    test_split: Any,
    store: Store,
    precision: Precision = "float32",
) -> pd.DataFrame:
    """Test metrics on the plane through three checkpoints: a row per point and metric, the checkpoints first.

    x and y are l2 distances; the first checkpoint is the origin, the second lies on the x axis. `checkpoint` is empty
    on the grid. No rows where a run diverged so early that no plane is left.
    """
    names = [_full_name(options.task, name) for name in options.checkpoints]
    try:
        loaded = [found.load(_epoch(name)) for found, name in zip(series, names, strict=True)]
        model = workspace(loaded[0])
        states = [analysed_state(checkpoint) for checkpoint in loaded]
        found = Plane(*states, kinds=TensorKinds.of_model(model))
    except UserError as error:
        diverged = [run.name for run in series if run.status == "diverged"]
        if not diverged:
            raise
        logger.warning("%s: no plane %s, for %s diverged: %s", options.task, options.name, ", ".join(diverged), error)
        return pd.DataFrame(columns=PLANE_COLUMNS)
    chosen = subset(test_split, options.max_examples, "test")
    engine = Engine(
        loaded[0],
        {"test": chosen},
        store,
        precision=precision,
        recompute_on=subset(train_split, options.max_examples, "train"),
    )
    x, y = found.grid(options.points, options.margin)
    with progress_bar(f"{options.task}: plane {options.name}", len(x) * len(y) + len(names)) as advance:
        table = evaluate_plane(model, found, x, y, engine.along(model), progress=advance)
    table["metric"] = table["metric"].str.removeprefix("test/")
    table.insert(2, "checkpoint", table.pop("point").map({"": "", **dict(zip("abc", names, strict=True))}))
    table = table.assign(task=options.task, plane=options.name, split="test", num_examples=len(chosen))
    return table[PLANE_COLUMNS]


def _full_name(task: str, checkpoint: str) -> str:
    """`pt_1` is `clipart.pt_1@final`."""
    run, _, epoch = checkpoint.partition("@")
    return f"{task}.{run}@{epoch or 'final'}"


def _epoch(name: str) -> Epoch:
    epoch = name.rpartition("@")[2]
    return int(epoch) if epoch.isdigit() else epoch  # type: ignore[return-value]


def basin(
    label: str,
    series: list[CheckpointSeries],
    train_split: Any,
    test_split: Any,
    options: BasinOptions,
    store: Store,
    precision: Precision = "float32",
) -> pd.DataFrame:
    """(epsilon, delta) of the test loss over the convex hull of some runs, in one long table.

    Columns task, hull, checkpoints, num_examples, quantity, length, value, low, high, threshold, num_samples. Rows by
    quantity: `distance` (l2, the largest between two of the models), `mu`, `epsilon`, `delta`, and for every length
    that was tried the mean excess loss over mu of `noise` and of a step along the `ray`, with the 2 epsilon that it
    must reach.
    """
    loaded = [found.load(options.epoch) for found in series]
    states = [analysed_state(checkpoint) for checkpoint in loaded]
    model = workspace(loaded[0])
    kinds = TensorKinds.of_model(model)
    distance = max(l2_distance(a, b, kinds=kinds) for a, b in itertools.combinations(states, 2))
    split = subset(test_split, options.max_examples, "test")
    recompute_on = subset(train_split, options.max_examples, "train")
    measure = Engine(loaded[0], {"test": split}, store, precision=precision, recompute_on=recompute_on).along(model)

    def loss(model: Any) -> Metrics:
        return {"loss": measure(model)["test/loss"]}

    passes = options.points + 2 * options.rays * len(options.deltas)
    with progress_bar(f"{split.name}: basin of {label}", passes) as advance:
        found = estimate_basin(
            model,
            states,
            loss,
            [delta * distance for delta in options.deltas],
            num_points=options.points,
            num_rays=options.rays,
            seed=derive_seed(split.name, label, "basin"),
            progress=advance,
        )
    names = {
        "task": split.name,
        "hull": label,
        "checkpoints": ", ".join(f"{item.name}@{options.epoch}" for item in series),
        "num_examples": len(split),
    }
    return pd.DataFrame([{**names, **row} for row in _basin_rows(found, distance)])


def _basin_rows(found: Basin, distance: float) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = [
        {"quantity": name, "value": value.value, "low": value.low, "high": value.high, "num_samples": value.num}
        for name, value in (("mu", found.center), ("epsilon", found.epsilon))
    ]
    excess = found.excess.rename(columns={"condition": "quantity", "delta": "length", "excess": "value"})
    lengths = {"distance": distance, "delta": found.delta}
    return [
        *({"quantity": name, "length": None, "value": value} for name, value in lengths.items()),
        *points,
        *({str(key): value for key, value in row.items()} for row in excess.to_dict("records")),
    ]
