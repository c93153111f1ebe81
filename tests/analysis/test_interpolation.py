from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.analysis.evaluator import Remembered
from transferscope.analysis.interpolation import (
    alpha_grid,
    barrier,
    coarse_first,
    interpolate,
    interpolate_into,
    trace,
    walk,
)
from transferscope.system.errors import UserError


def make_net(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.normal_(generator=generator)
    net[1].num_batches_tracked.fill_(seed)
    return net


STATE_A, STATE_B = make_net(10).state_dict(), make_net(20).state_dict()


def same_bits(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(
        bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy())
        == bytes(other[key].contiguous().view(-1).view(torch.uint8).numpy())
        for key, tensor in state.items()
    )


def norm_of_weights(model: nn.Module) -> dict[str, float]:
    return {"norm": sum(p.square().sum().item() for p in model.parameters()) ** 0.5}


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.3, 0.5, 1.0, 2.0])
def test_interpolate_is_the_affine_combination(alpha: float) -> None:
    """Every floating-point tensor is (1 - alpha) a + alpha b, also outside [0, 1]."""
    for key, tensor in interpolate(STATE_A, STATE_B, alpha).items():
        if tensor.is_floating_point():
            expected = (1 - alpha) * STATE_A[key].double() + alpha * STATE_B[key].double()
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-5)


def test_ends_are_exact() -> None:
    """alpha 0 and 1 give the very bits of a and b, -0.0 and infinities included."""
    state_a = {"w": torch.tensor([1e30, -0.0, 3.3, -2.0])}
    state_b = {"w": torch.tensor([-1e-30, 1.0, -0.0, math.inf])}
    assert same_bits(interpolate(state_a, state_b, 0), state_a)
    assert same_bits(interpolate(state_a, state_b, 1), state_b)
    assert same_bits(interpolate(STATE_A, STATE_B, 1.0), STATE_B)


def test_equal_states_stay_equal() -> None:
    """Between equal states every point is that state, bit for bit."""
    for alpha in (-0.7, 0.1, 1 / 3, 1.9):
        assert same_bits(interpolate(STATE_A, STATE_A, alpha), STATE_A)


def test_integer_buffers_come_from_the_nearer_end() -> None:
    """BatchNorm's counter is never averaged."""
    counters = [
        int(interpolate(STATE_A, STATE_B, alpha)["1.num_batches_tracked"]) for alpha in (-1, 0, 0.49, 0.51, 1, 2)
    ]
    assert counters == [10, 10, 10, 20, 20, 20]


def test_interpolate_leaves_its_arguments_alone() -> None:
    """Results share no storage with the ends, not even at alpha 0."""
    result = interpolate(STATE_A, STATE_B, 0)
    result["0.weight"].zero_()
    assert STATE_A["0.weight"].abs().sum() > 0


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0, -0.5])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_interpolate_into_writes_in_place(alpha: float, memory_format: torch.memory_format) -> None:
    """The model gets the interpolated weights in its own storage and memory format."""
    net = make_net(3).to(memory_format=memory_format)
    places = {key: (tensor.data_ptr(), tensor.stride()) for key, tensor in net.state_dict().items()}
    interpolate_into(net, STATE_A, STATE_B, alpha)
    assert {key: (tensor.data_ptr(), tensor.stride()) for key, tensor in net.state_dict().items()} == places
    for key, tensor in interpolate(STATE_A, STATE_B, alpha).items():
        torch.testing.assert_close(net.state_dict()[key], tensor, rtol=0, atol=0)


def test_interpolate_into_rounds_once_for_a_bfloat16_model() -> None:
    """A bfloat16 model gets the float32 interpolation, rounded at the end."""
    net = make_net(3).to(torch.bfloat16)
    interpolate_into(net, STATE_A, STATE_B, 0.3)
    expected = interpolate(STATE_A, STATE_B, 0.3)["0.weight"].bfloat16()
    assert torch.equal(net.state_dict()["0.weight"], expected)


def test_different_architectures_are_refused_by_tensor() -> None:
    """The error lists tensors that are missing or of another shape."""
    other = {**STATE_B, "3.weight": torch.zeros(5, 16)}
    del other["0.bias"]
    with pytest.raises(
        UserError, match=r"0\.bias only in checkpoint a.*3\.weight \(3, 16\) in checkpoint a but \(5, 16\)"
    ):
        interpolate(STATE_A, other, 0.5)
    with pytest.raises(UserError, match=r"0\.bias"):
        interpolate_into(make_net(1), other, other, 0.5)


def test_alpha_must_be_finite() -> None:
    """NaN is no place on a line."""
    with pytest.raises(UserError, match="alpha is nan"):
        interpolate(STATE_A, STATE_B, math.nan)


def test_walk_measures_in_the_order_asked() -> None:
    """One row per alpha and metric, in the given order, with the metrics of the interpolated weights."""
    alphas = [1.0, 0.0, 0.25, -1.0]
    table = walk(make_net(1), STATE_A, STATE_B, alphas, norm_of_weights)
    assert list(table.columns) == ["alpha", "metric", "value"]
    assert table["alpha"].tolist() == alphas
    for alpha, value in zip(alphas, table["value"], strict=True):
        net = make_net(1)
        net.load_state_dict(interpolate(STATE_A, STATE_B, alpha))
        assert value == pytest.approx(norm_of_weights(net)["norm"], rel=1e-6)


def test_walk_ends_equal_the_checkpoints_own_metrics() -> None:
    """At 0 and 1 the table holds exactly what the checkpoints give by themselves."""
    table = walk(make_net(1), STATE_A, STATE_B, [0, 0.5, 1], norm_of_weights)
    assert table["value"].iloc[0] == norm_of_weights(make_net(10))["norm"]
    assert table["value"].iloc[2] == norm_of_weights(make_net(20))["norm"]


def test_walk_refuses_no_alphas() -> None:
    """An empty list is a mistake, not an empty table."""
    with pytest.raises(UserError, match="alphas is empty"):
        walk(make_net(1), STATE_A, STATE_B, [], norm_of_weights)


def test_walk_keeps_nan_and_names_the_tensor(caplog: pytest.LogCaptureFixture) -> None:
    """A diverged end gives NaN wherever it takes part, the sound end keeps its value, and the log names the tensor."""
    broken = {**STATE_B, "3.bias": torch.full((3,), math.nan)}
    with caplog.at_level(logging.WARNING):
        table = walk(make_net(1), STATE_A, broken, [0, 0.5, 1], lambda model: {"accuracy": 0.1})
    assert table["value"].isna().tolist() == [False, True, True]
    assert "checkpoint b has non-finite weights in 3.bias" in caplog.text


def test_walk_keeps_a_nan_metric() -> None:
    """A metric that is NaN at one point stays in the table."""
    values = iter([0.9, math.nan, 0.8])
    table = walk(make_net(1), STATE_A, STATE_B, [0, 0.5, 1], lambda model: {"loss": next(values)})
    assert table["value"].isna().sum() == 1


def test_a_walk_that_remembers_computes_only_new_alphas() -> None:
    """A rerun on a finer grid measures the points that were not there; other data measures all."""
    calls: list[int] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        calls.append(1)
        return norm_of_weights(model)

    store: dict[str, dict[str, float]] = {}
    data_1, data_2 = (Remembered(evaluate, store, f"data {number}") for number in (1, 2))
    first = walk(make_net(1), STATE_A, STATE_B, [0, 0.5, 1], data_1)
    again = walk(make_net(1), STATE_A, STATE_B, alpha_grid(0, 1, 5), data_1)
    assert len(calls) == 5
    assert again["value"].iloc[::2].tolist() == first["value"].tolist()
    walk(make_net(1), STATE_A, STATE_B, [0, 1], data_2)
    assert len(calls) == 7
    # The ends are known from the other direction; what lies between them is other weights.
    other = walk(make_net(1), STATE_B, STATE_A, [0, 0.3, 1], data_1)
    assert len(calls) == 8
    assert other["value"].iloc[[0, 2]].tolist() == first["value"].iloc[[2, 0]].tolist()


def test_trace_measures_coarse_first() -> None:
    """`seen` hears the ends first, then the middle."""
    order: list[float] = []
    trace(
        make_net(1), STATE_A, STATE_B, [-1, 0, 0.5, 1, 2], norm_of_weights,
        seen=lambda alpha, metrics: order.append(alpha),
    )  # fmt: skip
    assert order[:3] == [-1, 2, 0.5]


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype_a", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype_b", [*HALVES, torch.float32, torch.float64])
def test_files_of_any_precision_are_interpolated_in_float32_at_least(
    dtype_a: torch.dtype, dtype_b: torch.dtype
) -> None:
    """Points between two half-precision files, or of mixed precision, are those of the same values in float64."""
    state_a = {"w": STATE_A["0.weight"].to(dtype_a)}
    state_b = {"w": STATE_B["0.weight"].to(dtype_b)}
    for alpha in (0.0, 0.1, 0.5, 0.7, 1.0, 1.5):
        weight = interpolate(state_a, state_b, alpha)["w"]
        assert weight.dtype in (torch.float32, torch.float64)
        expected = (1 - alpha) * state_a["w"].double() + alpha * state_b["w"].double()
        torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=1e-6)
        net = nn.Conv2d(2, 4, 3, bias=False)
        interpolate_into(net, {"weight": state_a["w"]}, {"weight": state_b["w"]}, alpha)
        assert torch.equal(net.weight.detach(), weight.float())


@pytest.mark.parametrize("dtypes", [(torch.float32,) * 2, (torch.bfloat16, torch.float32), (torch.float16,) * 2])
def test_swapped_ends_give_the_mirrored_curve_to_the_last_bit(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    """From b to a at 1 - alpha are the weights from a to b at alpha, on any grid and beyond the ends."""
    state_a, state_b = (
        {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
        for state, dtype in zip((STATE_A, STATE_B), dtypes, strict=True)
    )
    grid = alpha_grid(-1, 2, 31)
    there = walk(make_net(1), state_a, state_b, grid, norm_of_weights)
    back = walk(make_net(1), state_b, state_a, grid, norm_of_weights)
    assert there["value"].tolist() == back["value"].tolist()[::-1]


def test_trace_keeps_arrays_and_makes_them_nan_at_a_diverged_end() -> None:
    """Metrics may be arrays (resamples); a non-finite end makes all of their values NaN."""
    broken = {key: tensor * math.nan if tensor.is_floating_point() else tensor for key, tensor in STATE_B.items()}
    traced = trace(make_net(1), STATE_A, broken, [0, 1], lambda model: {"x": np.arange(3.0)})
    np.testing.assert_array_equal(traced[0]["x"], [0, 1, 2])
    assert np.isnan(traced[1]["x"]).tolist() == [True] * 3


def test_walk_reports_progress() -> None:
    """One step per point."""
    steps: list[int] = []
    walk(make_net(1), STATE_A, STATE_B, [0, 0.5, 1], norm_of_weights, progress=steps.append)
    assert steps == [1, 1, 1]


def test_alpha_grid_meets_the_ends_exactly() -> None:
    """A grid over [-1, 2] contains 0 and 1 as such, for any number of points that should."""
    for num in (4, 7, 31, 61, 301):
        grid = alpha_grid(-1, 2, num)
        assert len(grid) == num
        assert {-1.0, 0.0, 1.0, 2.0} <= set(grid)
    with pytest.raises(UserError, match="low < high"):
        alpha_grid(1, 0, 5)


def test_coarse_first_is_a_permutation_that_starts_with_the_ends() -> None:
    """Every index once; the ends, then the middle, come first."""
    for count in (1, 2, 5, 11, 50):
        assert sorted(coarse_first(count)) == list(range(count))
    assert coarse_first(0) == []
    assert coarse_first(9) == [0, 8, 4, 2, 6, 1, 3, 5, 7]


def test_a_convex_loss_has_no_barrier_along_a_walk() -> None:
    """Least squares of a linear model: the loss along any line is convex, so it stays below the chord."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(40, 6, generator=generator), torch.randn(40, 2, generator=generator)
    nets = [nn.Linear(6, 2) for _ in range(2)]
    for net in nets:
        nn.init.normal_(net.weight, generator=generator)

    def squared_error(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"loss": (model(inputs) - targets).square().mean().item()}

    table = walk(nn.Linear(6, 2), nets[0].state_dict(), nets[1].state_dict(), alpha_grid(0, 1, 21), squared_error)
    assert barrier(table["alpha"], table["value"], higher_is_better=False) == pytest.approx(0, abs=1e-6)


def test_permuted_hidden_units_make_the_known_barrier() -> None:
    """Two networks that compute relu(x) + relu(-x) = |x| with swapped units: half-way both weights vanish.

    There the output is 0, the mean squared error is the mean of x² and the barrier exactly that.
    """
    inputs = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])

    class Absolute(nn.Module):
        def __init__(self, order: list[float]) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([order]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x * self.weight).sum(dim=1, keepdim=True)

    def squared_error(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"loss": (model(inputs) - inputs.abs()).square().mean().item()}

    ends = Absolute([1.0, -1.0]).state_dict(), Absolute([-1.0, 1.0]).state_dict()
    table = walk(Absolute([0.0, 0.0]), *ends, np.linspace(0, 1, 5), squared_error)
    assert barrier(table["alpha"], table["value"], higher_is_better=False) == pytest.approx(2.5)
