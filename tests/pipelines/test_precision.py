"""`analyses.precision: bfloat16` reaches every network of similarity and landscape, and stays close to float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from transferscope.analysis.learning import loss_without_knowledge
from transferscope.experiment.options import (
    BasinOptions,
    CriticalityOptions,
    ModelOptions,
    Precision,
    SimilarityOptions,
    TrainingOptions,
)
from transferscope.experiment.run import RunSpec
from transferscope.measure import Bench, basin, cka, criticality, line, plane, rewinding
from transferscope.models.modules import find_modules
from transferscope.models.series import Checkpoints, CheckpointSeries
from transferscope.training.evaluation import evaluate
from transferscope.training.loop import train_run


@pytest.fixture(scope="module")
def splits(project: Any) -> dict[str, Any]:
    return {part: project.load(f"clipart.{part}_split") for part in ("train", "test")}


@pytest.fixture(scope="module")
def series(project: Any) -> list[CheckpointSeries]:
    return [project.load(f"clipart.pt_{number}.checkpoints") for number in (1, 2)]


@pytest.fixture
def computed_in(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """Types in which convolutions have been computed."""
    dtypes: set[torch.dtype] = set()
    forward = nn.Conv2d.forward

    def watched(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        dtypes.add(images.dtype)
        return forward(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    return dtypes


def both(measure: Any, computed_in: set[torch.dtype]) -> tuple[Any, Any]:
    """What `measure(precision, store)` gives in each precision, with one store for both."""
    store: dict[str, Any] = {}
    exact = measure("float32", store)
    assert computed_in == {torch.float32}
    computed_in.clear()
    rounded = measure("bfloat16", store)
    assert torch.bfloat16 in computed_in
    return exact, rounded


def assert_close(exact: pd.DataFrame, rounded: pd.DataFrame, values: str, tolerance: float) -> None:
    """The same rows, other values, and those no further off than `tolerance`."""
    assert list(exact.columns) == list(rounded.columns)
    assert len(exact) == len(rounded)
    assert not np.array_equal(exact[values], rounded[values])
    np.testing.assert_allclose(rounded[values].astype(float), exact[values].astype(float), atol=tolerance)


def test_lines(splits: Any, series: Any, computed_in: set[torch.dtype]) -> None:
    ends = [one.load("final") for one in series]

    def measure(precision: Precision, store: Any) -> pd.DataFrame:
        points, _ = line(Bench(splits, store, precision), *ends, (0, 0.5, 1), outside=(2.0,))
        return points[points["metric"] == "loss"]

    assert_close(*both(measure, computed_in), "value", 0.1)


def test_planes(splits: Any, series: Any, computed_in: set[torch.dtype]) -> None:
    corners = {"a": series[0].load(0), "b": series[0].load("final"), "c": series[1].load("final")}

    def measure(precision: Precision, store: Any) -> pd.DataFrame:
        table = plane(Bench(splits, store, precision), corners, points=2)
        return table[table["metric"] == "loss"]

    assert_close(*both(measure, computed_in), "value", 0.1)


def test_basins(splits: Any, series: Any, computed_in: set[torch.dtype]) -> None:
    options = BasinOptions(points=3, rays=2, deltas=(0.5,))
    hull = [one.load("final") for one in series]

    def measure(precision: Precision, store: Any) -> pd.DataFrame:
        table = basin(Bench(splits, store, precision), hull, options, name="P-T")
        # The lengths to begin with: where they are narrowed down depends on the losses.
        first = table["length"].isin([0.0, 0.5 * table.loc[table["quantity"] == "distance", "value"].iloc[0]])
        return table[table["quantity"].isin(["mu", "epsilon"]) | first]

    assert_close(*both(measure, computed_in), "value", 0.1)


TINY = ModelOptions(options={"widths": [4, 8, 8]})


def test_modules(splits: Any, tmp_path: Path, computed_in: set[torch.dtype]) -> None:
    """Losses are off where mu's bound is far; those near it are settled in float32, and mu is that of float32."""
    grid = {"positions": {"points": 3}, "sigmas": (0.0, 0.1), "draws": 1, "max_draws": 1, "paths": ("direct",)}
    # A run that has learned: without that there is no bound.
    spec = RunSpec(task="clipart", name="rit_9", model=TINY, training=TrainingOptions(epochs=25, batch_size=16))
    run, _ = train_run(spec, splits["train"], splits["test"], initial=None, folder=tmp_path)
    modules = find_modules(run.load("final").build())
    store: dict[str, Any] = {}

    def measure(precision: Precision, share: float) -> Any:
        options = CriticalityOptions.model_validate(grid | {"epsilon_share": share})
        bench = Bench(splits, store, precision)
        noise, mu = criticality(bench.limited(options.max_examples), run, modules, options)
        return noise, mu, rewinding(bench, run, modules)

    losses = measure("float32", 1.0)[0]["loss"]
    bound = losses.quantile(0.8) / 0.9
    unperturbed = evaluate(run.load("final").build(), splits["train"])["loss"]
    share = (bound - unperturbed) / (loss_without_knowledge(np.asarray(splits["train"].labels)) - unperturbed)
    exact, mu, back = measure("float32", share)
    rounded, screened_mu, rounded_back = measure("bfloat16", share)
    assert_close(exact, rounded, "loss", 0.1)
    settled = exact["loss"] == rounded["loss"]
    assert settled.any()
    assert settled[(exact["loss"] / bound - 1).abs() < 0.05].all()
    pd.testing.assert_frame_equal(mu, screened_mu)
    assert_close(*(table[table["metric"] == "loss"] for table in (back, rounded_back)), "value", 0.1)
    assert computed_in == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize("features", ["pooled", "flattened"])
def test_features(splits: Any, series: Any, computed_in: set[torch.dtype], features: str) -> None:
    options = SimilarityOptions.model_validate({"features": [features], "heat_map_pairs": 1, "batch_size": 16})
    pairs = [("clipart.pt_1@final", "clipart.pt_2@final")]

    def measure(precision: Precision, _: Any) -> dict[str, pd.DataFrame]:
        return cka(Bench(splits, precision=precision), Checkpoints(series), pairs, options)

    exact, rounded = both(measure, computed_in)
    assert exact.keys() == rounded.keys()
    for name in ("cka", "cka_layers"):
        assert_close(exact[name], rounded[name], "cka", 0.02)
    assert computed_in == {torch.bfloat16}
