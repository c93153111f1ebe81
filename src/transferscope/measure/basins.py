"""The basin around several models of one task."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd
from torch import nn

from transferscope.analysis.basin import Basin, estimate_basin
from transferscope.analysis.distance import l2_distance
from transferscope.analysis.evaluation import Metrics
from transferscope.analysis.states import TensorKinds
from transferscope.experiment.options import BasinOptions
from transferscope.experiment.plan import derive_seed
from transferscope.measure.bench import Bench, workspace
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.parametrised import analysed_state
from transferscope.system.progress import progress_bar


def basin(
    bench: Bench, checkpoints: Sequence[Checkpoint], options: BasinOptions | None = None, *, name: str = "hull"
) -> pd.DataFrame:
    """Estimate (epsilon, delta) of the test loss over the convex hull of some models, in one long table.

    Columns num_examples, quantity, length, value, low, high, threshold, num_samples. Rows by quantity: `distance` (l2,
    the largest between two of the models), `mu`, `epsilon`, `delta`, and for every length that was tried the mean
    excess loss over mu of `noise` and of a step along the `ray`, with the 2 epsilon that it must reach.

    Args:
        options: How many points, rays and lengths; `epoch` and `max_examples` of them are the caller's.
        name: Decides the random points, with the name of the task.
    """
    chosen = options or BasinOptions()
    states = [analysed_state(checkpoint) for checkpoint in checkpoints]
    model = workspace(checkpoints[0])
    kinds = TensorKinds.of_model(model)
    distance = max(l2_distance(a, b, kinds=kinds) for a, b in itertools.combinations(states, 2))
    measure = bench.along(checkpoints[0], model, ["test"])

    def loss(model: nn.Module) -> Metrics:
        return {"loss": measure(model)["test/loss"]}

    passes = chosen.points + 2 * chosen.rays * len(chosen.deltas)
    with progress_bar(f"{bench.task}: basin of {name}", passes) as advance:
        found = estimate_basin(
            model,
            states,
            loss,
            [delta * distance for delta in chosen.deltas],
            num_points=chosen.points,
            num_rays=chosen.rays,
            seed=derive_seed(bench.task, name, "basin"),
            progress=advance,
        )
    num_examples = len(bench.split("test"))
    return pd.DataFrame([{"num_examples": num_examples, **row} for row in _rows(found, distance)])


Row = dict[str, str | float | int | None]


def _rows(found: Basin, distance: float) -> list[Row]:
    points: list[Row] = [
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
