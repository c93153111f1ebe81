"""The basin around several models of one task."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd
from torch import nn

from transferscope.analysis.basin import Basin, estimate_basin
from transferscope.analysis.distance import l2_distance
from transferscope.analysis.evaluator import Metrics
from transferscope.analysis.states import TensorKinds
from transferscope.experiment.options import BasinOptions
from transferscope.experiment.seeds import derive_seed
from transferscope.measure.bench import Bench, workspace
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.parametrised import analysed_state
from transferscope.system.progress import progress_bar

REFINEMENTS = 3
"""Halvings between the last length that is not enough and the first that is."""


def basin(
    bench: Bench, checkpoints: Sequence[Checkpoint], options: BasinOptions | None = None, *, name: str = "hull"
) -> pd.DataFrame:
    """Estimate (epsilon, delta) of the test loss over the convex hull of some models, in one long table.

    Columns num_examples, num_models, quantity, length, value, low, high, threshold, num_samples. Rows by quantity:
    `distance` (l2, the largest between two of the models), `mu`, `epsilon`, `delta`, and for every length that was
    tried, 0 (the rim itself) included, the mean excess loss over mu of `noise` and of a step along the `ray`, with the
    2 epsilon that it must reach. Intervals hold the draws and, with resamples on the bench, the examples.

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

    per_length = (2 if len(states) == 2 else 4) * chosen.rays
    passes = chosen.points + per_length * (len(chosen.deltas) + REFINEMENTS)
    with progress_bar(f"{bench.task}: basin of {name}", passes) as advance:
        estimated = estimate_basin(
            model,
            states,
            loss,
            [delta * distance for delta in chosen.deltas],
            num_points=chosen.points,
            num_rays=chosen.rays,
            seed=derive_seed(bench.task, name, "basin"),
            num_refinements=REFINEMENTS,
            progress=advance,
        )
    names = {"num_examples": len(bench.split("test")), "num_models": estimated.num_states}
    return pd.DataFrame([{**names, **row} for row in _rows(estimated, distance)])


Row = dict[str, str | float | int | None]


def _rows(estimated: Basin, distance: float) -> list[Row]:
    estimates: list[Row] = [
        {"quantity": name, "value": value.value, "low": value.low, "high": value.high, "num_samples": value.num}
        for name, value in (("delta", estimated.delta), ("mu", estimated.center), ("epsilon", estimated.epsilon))
    ]
    excess = estimated.excess.rename(columns={"condition": "quantity", "delta": "length", "excess": "value"})
    return [
        {"quantity": "distance", "length": None, "value": distance},
        *estimates,
        *({str(key): value for key, value in row.items()} for row in excess.to_dict("records")),
    ]
