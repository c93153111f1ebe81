from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.analysis.basin import combine, estimate_basin
from transferscope.analysis.hull_samples import half_normal_quadrature, last_inside
from transferscope.analysis.line_boundary import line_boundary
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
    assert basin.delta.value == 0  # the rim is no lower than the mean, which is all that 2 epsilon = 0 asks for
    rays = basin.excess[basin.excess["condition"] == "ray"].set_index("delta")["excess"]
    # E|v| = delta sqrt(2/pi), all of it outward.
    assert rays[0.5] == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=0.1)
    assert rays[1.0] == pytest.approx(2 * rays[0.5], rel=1e-4)
    noise = basin.excess[basin.excess["condition"] == "noise"].set_index("delta")["excess"]
    # v ~ N(0, delta²/2) along the segment; outward half of the time, inward it falls off the other end now and then.
    assert noise[0.5] == pytest.approx(0.5 / math.sqrt(2) * math.sqrt(1 / (2 * math.pi)), rel=0.2)


def test_epsilon_of_a_linear_loss_on_a_segment() -> None:
    """Loss = alpha with alpha uniform on [0, 1]: mu is 1/2 and the mean absolute deviation 1/4, by an even grid."""
    basin = estimate_basin(Point([0.0]), states([0.0], [1.0]), loss_of(lambda w: w[0]), [], num_points=101)
    assert basin.center.value == pytest.approx(0.5)
    assert basin.epsilon.value == pytest.approx(0.25, abs=1e-3)
    assert (basin.epsilon.low, basin.epsilon.high) == pytest.approx((basin.epsilon.value,) * 2)  # nothing is drawn
    assert basin.num_states == 2


def test_epsilon_on_a_triangle_is_covered() -> None:
    """Loss = a coordinate of a triangle: mu 1/3, and the mean deviation of 2 (1 - x) is 16/81; 20 seeds of 20 hold both."""
    corners = states([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    for seed in range(20):
        basin = estimate_basin(Point([0.0] * 3), corners, loss_of(lambda w: w[0]), [], num_points=100, seed=seed)
        assert basin.center.low < 1 / 3 < basin.center.high
        assert basin.epsilon.low < 16 / 81 < basin.epsilon.high


def test_points_are_uniform_on_a_triangle() -> None:
    """Moments of the uniform distribution on a simplex: mean 1/3, variance 1/18 for each coordinate."""
    seen: list[np.ndarray] = []

    def record(model: nn.Module) -> dict[str, float]:
        seen.append(model.weight.detach().numpy().copy())
        return {"loss": 0.0}

    corners = states([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    estimate_basin(Point([0.0] * 3), corners, record, [], num_points=1000)
    points = np.array(seen)
    np.testing.assert_allclose(points.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(points.mean(axis=0), 1 / 3, atol=0.015)
    np.testing.assert_allclose(points.var(axis=0), 1 / 18, rtol=0.1)


def wall(width: float, noise_cost: float) -> Callable[[nn.Module], dict[str, float]]:
    """Loss over [0, 1] x R^n: a bowl along the segment of depth `width` below the ends, and slopes outside."""

    def loss(w: torch.Tensor) -> torch.Tensor:
        outward = (w[0] - 1).relu() + (-w[0]).relu()
        return width * (4 * w[0] * (w[0] - 1)).clamp(max=0).abs() + outward + noise_cost * w[1:].square().sum()

    return loss_of(loss)


SEGMENT = [0.0] * 51, [1.0] + [0.0] * 50


def test_delta_is_where_both_conditions_reach_two_epsilon() -> None:
    """Along a line of known loss, delta is where the slower of the two excesses meets 2 epsilon, found by halving.

    Loss 4a (1 - a) within: mu 2/3, epsilon .2566. The ends lie 2/3 below mu, so the excess must rise by 2/3 + .5132.
    A step outward costs delta sqrt(2/pi), noise of length delta across and along at least .2 delta².
    """
    basin = estimate_basin(
        Point([0.0] * 51), states(*SEGMENT), wall(1.0, 1.0), [0.1, 0.5], num_points=101, num_rays=40, num_refinements=8
    )
    assert basin.center.value == pytest.approx(2 / 3, abs=1e-3)
    assert basin.epsilon.value == pytest.approx(0.2566, abs=1e-3)
    needed = 2 / 3 + 2 * basin.epsilon.value
    across = basin.excess.query("condition == 'noise'").set_index("delta")["excess"]
    along = basin.excess.query("condition == 'ray'").set_index("delta")["excess"]
    assert across[0.0] == along[0.0] == pytest.approx(-2 / 3, abs=1e-3)
    assert basin.delta.value == pytest.approx(needed / math.sqrt(2 / math.pi), rel=0.02)
    assert basin.delta.low <= basin.delta.value <= basin.delta.high
    assert list(basin.excess["num_samples"].unique()) == [40]


def test_longer_lengths_are_tried_until_one_is_enough() -> None:
    """With a first length far too small, doubling finds the same delta; a bounded loss has none, and says how far."""
    loss = wall(1.0, 1.0)
    near, far = (
        estimate_basin(Point([0.0] * 51), states(*SEGMENT), loss, [first], num_rays=40, num_refinements=8).delta.value
        for first in (1.0, 0.05)
    )
    assert far == pytest.approx(near, rel=0.02)
    bounded = loss_of(lambda w: (4 * w[0] * (1 - w[0])).clamp(0, 1))
    none = estimate_basin(Point([0.0] * 51), states(*SEGMENT), bounded, [0.5])
    assert none.delta.value == math.inf
    assert none.excess["delta"].max() == pytest.approx(0.5 * 2**6)


def test_delta_is_zero_where_the_rim_is_high_enough() -> None:
    """A valley between two checkpoints on its slopes: they lie above mu by more than 2 epsilon before any noise."""
    basin = estimate_basin(Point([0.0]), states([0.0], [1.0]), loss_of(lambda w: (2 * w[0] - 1) ** 8), [0.5])
    assert basin.delta.value == 0


@pytest.mark.parametrize("num_states", [2, 3])
def test_over_seeds_delta_stays_within_its_interval(num_states: int) -> None:
    """In 95 or more of 100 seeds the interval holds the delta that 40 times as many draws give.

    A bump between the checkpoints, so that delta is not 0, and a loss that rises as a fourth power.
    """
    corners = torch.eye(num_states, 200)
    middle = corners.mean(dim=0)

    def loss(w: torch.Tensor) -> torch.Tensor:
        distance = (w - middle).square().sum()
        return 0.5 * (-4 * distance).exp() + distance.square()

    points = states(*corners.tolist())
    true = estimate_basin(
        Point([0.0] * 200), points, loss_of(loss), [0.2, 0.4, 0.8], num_points=400, num_rays=800, num_refinements=8
    ).delta.value
    assert 0 < true < math.inf
    held = 0
    for seed in range(100):
        delta = estimate_basin(
            Point([0.0] * 200), points, loss_of(loss), [0.2, 0.4, 0.8], num_points=24, num_rays=20, seed=seed
        ).delta
        held += delta.low <= true <= delta.high
    assert held >= 95


def test_intervals_hold_over_samples_of_examples() -> None:
    """Of 300 samples of 200 examples 93 to 98 % of the intervals of mu and epsilon hold those of all examples."""
    generator = np.random.default_rng(0)
    true = estimate_basin(Point([0.0]), states([0.0], [1.0]), loss_of(lambda w: 0.3 * (2 * w[0] - 1) ** 2), [])
    held = []
    for _ in range(300):
        offsets, depths = generator.exponential(1.0, 200), generator.exponential(0.3, 200)
        counts = np.vstack([np.ones(200), generator.multinomial(200, np.full(200, 1 / 200), 300)]) / 200
        level, depth = counts @ offsets - 1, counts @ depths

        def evaluate(model: nn.Module, level: np.ndarray = level, depth: np.ndarray = depth) -> dict[str, np.ndarray]:
            return {"loss": level + depth * (2 * model.weight.detach().item() - 1) ** 2}

        basin = estimate_basin(Point([0.0]), states([0.0], [1.0]), evaluate, [])
        held.append([
            basin.center.low <= true.center.value <= basin.center.high,
            basin.epsilon.low <= true.epsilon.value <= basin.epsilon.high,
        ])  # fmt: skip
    assert (np.mean(held, axis=0) >= 0.92).all()
    assert (np.mean(held, axis=0) <= 0.98).all()


def test_the_same_seed_gives_the_same_basin() -> None:
    """Sampling is reproducible and another seed samples other points."""
    slope = loss_of(lambda w: w.sum())
    basins = [estimate_basin(Point([0.0]), states([0.0], [1.0]), slope, [0.3], seed=seed) for seed in (4, 4, 5)]
    assert basins[0].center == basins[1].center
    assert basins[0].excess.equals(basins[1].excess)
    assert not basins[0].excess.equals(basins[2].excess)


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


def test_steps_along_a_ray_have_the_moments_of_the_half_normal() -> None:
    """The first six moments E|v|^k = 2^(k/2) G((k + 1)/2) / sqrt(pi), from three nodes up to the fifth."""
    for num, exact in ((3, 5), (8, 15)):
        for power in range(exact + 1):
            moment = sum(weight * node**power for node, weight in half_normal_quadrature(num))
            assert moment == pytest.approx(2 ** (power / 2) * math.gamma((power + 1) / 2) / math.sqrt(math.pi))


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
