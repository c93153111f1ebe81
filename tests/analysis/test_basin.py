from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.analysis.basin import combine, estimate_basin, last_inside, line_boundary
from transferscope.system.errors import UserError


class Point(nn.Module):
    """A network that is nothing but its weights."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(values))


def states(*points: list[float]) -> list[dict[str, torch.Tensor]]:
    return [Point(point).state_dict() for point in points]


def loss_of(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module], dict[str, float]]:
    return lambda model: {"loss": function(model.weight.detach()).item()}


def test_a_flat_valley_with_walls_has_the_known_basin() -> None:
    """Loss 0 on the segment, rising with slope 1 beyond its ends and nothing across: epsilon 0, and any step leaves."""
    wall = loss_of(lambda w: (w[0] - 1).relu() + (-w[0]).relu())
    basin = estimate_basin(Point([0.0, 0.0]), states([0.0, 0.0], [1.0, 0.0]), wall, [0.5, 1.0], num_rays=400, seed=1)
    assert basin.epsilon.value == 0
    rays = basin.excess[basin.excess["condition"] == "ray"].set_index("delta")["excess"]
    # E|v| = delta sqrt(2/pi), all of it outward.
    assert rays[0.5] == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=0.1)
    assert rays[1.0] == pytest.approx(2 * rays[0.5], rel=1e-4)
    noise = basin.excess[basin.excess["condition"] == "noise"].set_index("delta")["excess"]
    # v ~ N(0, delta²/2) along the segment; outward half of the time, inward it falls off the other end now and then.
    assert noise[0.5] == pytest.approx(0.5 / math.sqrt(2) * math.sqrt(1 / (2 * math.pi)), rel=0.2)


def test_epsilon_of_a_linear_loss_on_a_segment() -> None:
    """Loss = alpha with alpha uniform on [0, 1]: mu is 1/2 and the mean absolute deviation 1/4."""
    basin = estimate_basin(Point([0.0]), states([0.0], [1.0]), loss_of(lambda w: w[0]), [], num_points=2000)
    assert basin.center.value == pytest.approx(0.5, abs=0.02)
    assert basin.epsilon.value == pytest.approx(0.25, abs=0.02)
    assert basin.epsilon.low < 0.25 < basin.epsilon.high
    assert basin.delta == math.inf


def test_points_are_uniform_on_a_triangle() -> None:
    """Moments of the uniform distribution on a simplex: mean 1/3, variance 1/18 for each coordinate."""
    seen: list[np.ndarray] = []

    def record(model: nn.Module) -> dict[str, float]:
        seen.append(model.weight.detach().numpy().copy())
        return {"loss": 0.0}

    corners = states([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    estimate_basin(Point([0.0] * 3), corners, record, [], num_points=4000)
    points = np.array(seen)
    np.testing.assert_allclose(points.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(points.mean(axis=0), 1 / 3, atol=0.015)
    np.testing.assert_allclose(points.var(axis=0), 1 / 18, rtol=0.1)


def test_delta_is_the_smallest_that_both_conditions_reach() -> None:
    """A bowl around the segment: 2 epsilon is reached by noise and step alike from some length on."""
    bowl = loss_of(lambda w: ((w - torch.tensor([0.5, 0.0])) ** 2).sum())
    deltas = [0.01, 0.1, 0.5, 1.0, 3.0]
    basin = estimate_basin(Point([0.0, 0.0]), states([0.0, 0.0], [1.0, 0.0]), bowl, deltas, num_rays=100)
    table = basin.excess.pivot(index="delta", columns="condition", values="excess")
    reached = (table >= 2 * basin.epsilon.value).all(axis=1)
    assert basin.delta == table.index[reached].min()
    assert list(basin.excess["num_samples"].unique()) == [100]
    assert (basin.excess["low"] <= basin.excess["excess"]).all()
    assert (basin.excess["excess"] <= basin.excess["high"]).all()


def test_the_same_seed_gives_the_same_basin() -> None:
    """Sampling is reproducible and another seed samples other points."""
    slope = loss_of(lambda w: w.sum())
    found = [estimate_basin(Point([0.0]), states([0.0], [1.0]), slope, [0.3], seed=seed) for seed in (4, 4, 5)]
    assert found[0].center == found[1].center
    assert found[0].excess.equals(found[1].excess)
    assert found[0].center != found[2].center


@pytest.mark.parametrize("size", [2, 3, 5])
def test_last_inside_is_on_the_border_of_the_simplex(size: int) -> None:
    """It lies on the ray, beyond the second point, with one coordinate 0 and none below."""
    generator = np.random.default_rng(size)
    for _ in range(50):
        start, through = generator.dirichlet(np.ones(size), 2)
        point = last_inside(start, through)
        assert point.min() == pytest.approx(0, abs=1e-12)
        assert point.sum() == pytest.approx(1)
        length = (point - start)[0] / (through - start)[0]
        assert length >= 1
        np.testing.assert_allclose(point, start + length * (through - start), atol=1e-9)


def test_combine_is_exact_at_the_corners() -> None:
    """A coefficient of 1 gives that tensor, even beside a non-finite one with coefficient 0."""
    tensors = [torch.tensor([0.1, math.inf]), torch.tensor([0.7, 0.3])]
    assert torch.equal(combine(tensors, np.array([0.0, 1.0])), tensors[1])


def test_noise_leaves_buffers_alone() -> None:
    """Only parameters are displaced; BatchNorm's statistics stay on the hull."""
    net = nn.BatchNorm1d(3)
    ends = [nn.BatchNorm1d(3).state_dict() for _ in range(2)]
    ends[1]["weight"] = torch.full((3,), 2.0)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(model: nn.Module) -> dict[str, float]:
        seen.append((model.running_var.clone(), model.weight.detach().clone()))
        return {"loss": 0.0}

    estimate_basin(net, ends, record, [10.0], num_points=2, num_rays=2)
    assert all(torch.equal(variance, torch.ones(3)) for variance, _ in seen)
    assert any((weight < 0.9).any() for _, weight in seen)


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        ([[0.0]], {}, "two or more"),
        ([[0.0], [1.0]], {"metric": "accuracy"}, "higher when better"),
        ([[0.0], [1.0]], {"metric": "val_loss"}, "no metric 'val_loss', only loss"),
        ([[0.0], [1.0]], {"num_points": 1}, "num_points 1"),
        ([[0.0], [1.0]], {"deltas": [0.0]}, "above 0"),
        ([[0.0], [math.nan]], {}, "checkpoint 1 has non-finite weights in weight"),
        ([[0.0], [0.0]], {}, "checkpoints are equal"),
        ([[0.0], [1.0, 2.0]], {}, r"weight \(1,\) in checkpoint 0"),
    ],
)
def test_bad_input_is_named(points: list[list[float]], options: dict, message: str) -> None:
    """Each mistake has its message."""
    arguments = {"deltas": [0.1], **options}
    with pytest.raises(UserError, match=message):
        estimate_basin(Point([0.0]), states(*points), loss_of(lambda w: w.sum()), arguments.pop("deltas"), **arguments)


ALPHAS = np.linspace(-1, 2, 31)


def test_boundary_of_a_parabola() -> None:
    """Loss (alpha - 1/2)² with tolerance .24: it leaves at .5 ± .7, that is at -.2 and 1.2."""
    boundary = line_boundary(ALPHAS, (ALPHAS - 0.5) ** 2, 0.24, higher_is_better=False)
    assert boundary.low == pytest.approx(-0.2)
    assert boundary.high == pytest.approx(1.2)
    assert boundary.connected


def test_boundary_interpolates_between_points() -> None:
    """A loss that rises by 1 per unit beyond the ends leaves a tolerance of .25 a quarter outside."""
    values = np.maximum(ALPHAS - 1, 0) + np.maximum(-ALPHAS, 0)
    boundary = line_boundary(ALPHAS, values, 0.25, higher_is_better=False)
    assert (boundary.low, boundary.high) == (pytest.approx(-0.25), pytest.approx(1.25))


def test_a_barrier_disconnects() -> None:
    """Two RI-T's: sound at the ends, broken between them."""
    accuracy = np.where(np.abs(ALPHAS - 0.5) < 0.4, 0.0, 0.8)
    assert not line_boundary(ALPHAS, accuracy, 0.05, higher_is_better=True).connected


def test_an_unbounded_basin_is_infinite_and_nan_is_a_wall() -> None:
    """Never worse as far as measured: infinite. A NaN counts as worse, from the last good point on."""
    flat = np.full(31, 0.8)
    assert line_boundary(ALPHAS, flat, 0.01, higher_is_better=True).high == math.inf
    flat[25] = math.nan
    boundary = line_boundary(ALPHAS, flat, 0.01, higher_is_better=True)
    assert (boundary.low, boundary.high) == (-math.inf, pytest.approx(1.4))


def test_the_boundary_needs_the_ends() -> None:
    """Without 0 and 1 there is nothing to compare with; a negative tolerance makes no sense."""
    with pytest.raises(UserError, match="add 0 and 1"):
        line_boundary([0, 0.5], [1, 1], 0.1, higher_is_better=True)
    with pytest.raises(UserError, match="tolerance is -1"):
        line_boundary([0, 1], [1, 1], -1, higher_is_better=True)
