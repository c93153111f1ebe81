from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from transferscope.analysis.plane import Plane, evaluate_plane
from transferscope.system.errors import UserError


def make_state(seed: int) -> dict[str, torch.Tensor]:
    net = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    net[1].num_batches_tracked.fill_(seed)
    return net.state_dict()


STATES = [make_state(seed) for seed in (1, 2, 3)]


def distance(state_a: dict[str, torch.Tensor], state_b: dict[str, torch.Tensor]) -> float:
    keys = [key for key, tensor in state_a.items() if tensor.is_floating_point()]
    return math.sqrt(sum((state_a[key].double() - state_b[key].double()).square().sum().item() for key in keys))


def test_coordinates_keep_the_distances() -> None:
    """Distances between the three points in the plane are those between the weights."""
    points = Plane(*STATES).points
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert math.dist(points[i], points[j]) == pytest.approx(distance(STATES[i], STATES[j]), rel=1e-6)
    assert points[0] == (0, 0)
    assert points[1][1] == 0
    assert points[2][1] > 0


def test_the_checkpoints_are_exact() -> None:
    """At its coordinates each checkpoint comes back bit for bit, integers included."""
    plane = Plane(*STATES)
    for place, state in zip(plane.points, STATES, strict=True):
        mixed = plane.state(*place)
        assert all(torch.equal(mixed[key], tensor) for key, tensor in state.items())


def test_any_point_lies_where_it_says() -> None:
    """Weights at (x, y) project back to (x, y) with no distance from the plane; others have one."""
    plane = Plane(*STATES)
    x, y, off = plane.project(plane.state(1.5, -2.5))
    assert (x, y) == (pytest.approx(1.5, rel=1e-4), pytest.approx(-2.5, rel=1e-4))
    assert off < 1e-2
    other = make_state(9)
    x, y, off = plane.project(other)
    assert math.hypot(x, y, off) == pytest.approx(distance(other, STATES[0]), rel=1e-6)
    assert off > 1


def test_collinear_checkpoints_span_no_plane() -> None:
    """Equal, collinear and non-finite checkpoints are refused."""
    middle = {key: (STATES[0][key] + STATES[1][key]) / 2 for key in STATES[0]}
    broken = {**STATES[2], "0.bias": torch.full((7,), math.nan)}
    for states in ((STATES[0], STATES[1], middle), (STATES[0], STATES[0], STATES[2]), (*STATES[:2], broken)):
        with pytest.raises(UserError, match="span no plane"):
            Plane(*states)
    with pytest.raises(UserError, match=r"0\.bias only in the first checkpoint"):
        Plane(STATES[0], STATES[1], {key: tensor for key, tensor in STATES[2].items() if key != "0.bias"})


def test_the_grid_covers_the_points_and_a_margin() -> None:
    """Every checkpoint lies within, a margin away from the border."""
    plane = Plane(*STATES)
    x_values, y_values = plane.grid(7, margin=0.5)
    assert len(x_values) == len(y_values) == 7
    width = max(x for x, _ in plane.points) - min(x for x, _ in plane.points)
    assert x_values[0] == pytest.approx(min(x for x, _ in plane.points) - width / 2)
    assert x_values[-1] == pytest.approx(max(x for x, _ in plane.points) + width / 2)
    with pytest.raises(UserError, match="at least 2"):
        plane.grid(1)


def test_evaluation_on_a_grid() -> None:
    """Each row is the metric of the weights at its place; the checkpoints are marked and come first."""
    plane, steps = Plane(*STATES), []

    def evaluate(model: nn.Module) -> dict[str, float]:
        return {"loss": distance(model.state_dict(), STATES[0])}

    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    table = evaluate_plane(model, plane, [-1.0, 0.0, 2.0], [0.5, 4.0], evaluate, progress=steps.append)
    assert list(table.columns) == ["x", "y", "point", "metric", "value"]
    assert table["point"].tolist() == ["a", "b", "c"] + [""] * 6
    for row in table.itertuples():
        assert row.value == pytest.approx(math.hypot(row.x, row.y), rel=1e-4, abs=1e-4)
    assert len(steps) == 9
    with pytest.raises(UserError, match="grid is empty"):
        evaluate_plane(model, plane, [], [1.0], evaluate)
