"""A planted permutation is found again, by weights and by activations, for one network and for several."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from transferscope.analysis.alignment import match_activations, match_many, match_weights, permutation_groups, permute
from transferscope.analysis.alignment.assignment import Gains, best_assignment
from transferscope.analysis.alignment.structure import Level
from transferscope.models import build_model
from transferscope.system.errors import UserError

IMAGES = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.zeros(24, dtype=torch.int64)


def net(seed: int = 0, width: int = 12) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, groups=3), nn.ReLU(),
        nn.Conv2d(width, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


def random_state(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights of unit gain, norms near 1, small biases: no channel is dead."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if not tensor.is_floating_point():
            state[key] = tensor
        elif tensor.dim() > 1:
            state[key] = noise / tensor[0].numel() ** 0.5
        else:
            state[key] = 0.2 * noise if "bias" in key or "mean" in key else 1 + 0.1 * noise.clamp(-3, 3)
    return state


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(IMAGES.split(list(sizes)), LABELS.split(list(sizes)), strict=True))


MODEL = net()
GROUPS = permutation_groups(MODEL, IMAGES)
A, B = random_state(MODEL, 1), random_state(MODEL, 2)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in other)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_planted_permutation_is_found_by_weights(seed: int) -> None:
    """Whatever permutation b is of a, matching undoes it: blocks, channels within them, and all tensors to the bit."""
    planted = GROUPS.random(seed)
    b = permute(GROUPS, planted, A, verify=False)
    permutation = match_weights(GROUPS, A, b)
    assert same(permute(GROUPS, permutation, b), A)
    assert same(permutation, planted.inverse())


@pytest.mark.parametrize("sizes", [(24,), (7, 1, 16)])
def test_a_planted_permutation_is_found_by_activations(sizes: tuple[int, ...]) -> None:
    """In one batch or several."""
    planted = GROUPS.random(3)
    b = permute(GROUPS, planted, A)
    permutation = match_activations(GROUPS, MODEL, A, b, batches(*sizes))
    assert same(permute(GROUPS, permutation, b), A)


def test_a_planted_permutation_is_found_in_noise() -> None:
    """Noise of a tenth of every tensor's norm moves at most one channel in twenty."""
    model = build_model("fixup_resnet_small", 10, seed=0)
    groups = permutation_groups(model, torch.randn(1, 3, 32, 32))
    a = random_state(model, 1)
    planted = groups.random(4)
    generator = torch.Generator().manual_seed(9)
    b = {}
    for key, tensor in permute(groups, planted, a).items():
        noise = torch.randn(tensor.shape, generator=generator)
        b[key] = tensor + 0.1 * tensor.norm() * noise / noise.norm()
    back = planted.then(match_weights(groups, a, b))
    right = sum(int((back[name] == torch.arange(len(back[name]))).sum()) for name in back)
    assert right >= 0.95 * sum(group.size for group in groups)


def test_itself_gives_the_identity() -> None:
    """By weights and by activations; also where channels are dead or equal, which are counted."""
    state = {key: tensor.clone() for key, tensor in A.items()}
    for key in ("5.weight", "5.bias", "6.weight", "6.bias"):
        state[key][:2] = 0
        state[key][2] = state[key][3]
    state["9.weight"].view(5, 8, 4)[:, :2] = 0
    state["9.weight"].view(5, 8, 4)[:, 2] = state["9.weight"].view(5, 8, 4)[:, 3]
    assert match_weights(GROUPS, A, A).moved == 0
    assert match_weights(GROUPS, A, A).tied == match_weights(GROUPS, A, A).dead == 0
    permutation = match_weights(GROUPS, state, state)
    assert (permutation.moved, permutation.dead, permutation.tied) == (0, 2, 4)
    permutation = match_activations(GROUPS, MODEL, state, state, batches(24))
    assert (permutation.moved, permutation.dead) == (0, 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_objective_is_never_below_that_of_the_identity(seed: int) -> None:
    """And it is the sum of products of the parameters on permuted axes, minus nothing: computed anew here."""
    b = random_state(MODEL, seed)
    permutation = match_weights(GROUPS, A, b, seed=seed, restarts=2)
    permuted = permute(GROUPS, permutation, b)
    keys = [key for key, _ in MODEL.named_parameters() if key != "9.bias"]
    value = sum(float((A[key].double() * permuted[key].double()).sum()) for key in keys)
    assert permutation.objective >= permutation.objective_of_identity
    assert permutation.objective == pytest.approx(value, rel=1e-5, abs=1e-5)


def test_more_restarts_are_never_worse_and_the_seed_decides() -> None:
    """The best of several descents is kept; the same seed gives the same permutation."""
    values = [match_weights(GROUPS, A, B, seed=1, restarts=restarts).objective for restarts in (1, 2, 6)]
    assert values == sorted(values)
    assert same(match_weights(GROUPS, A, B, seed=1), match_weights(GROUPS, A, B, seed=1))


def test_one_hidden_layer_is_matched_optimally() -> None:
    """With a single group the assignment is the optimum, found here by trying all permutations."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 4))
    groups = permutation_groups(model, IMAGES)
    a, b = random_state(model, 1), random_state(model, 2)
    permutation = match_weights(groups, a, b)
    gain = a["1.weight"] @ b["1.weight"].T + a["3.weight"].T @ b["3.weight"] + a["1.bias"][:, None] * b["1.bias"]
    best = max(itertools.permutations(range(5)), key=lambda order: sum(gain[i, j] for i, j in enumerate(order)))
    assert permutation["1.weight[0]"].tolist() == list(best)


def test_activations_are_matched_as_correlations_say() -> None:
    """Against correlations computed at once with NumPy, on activations taken by hand."""
    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 4, 3), nn.Flatten(), nn.Linear(64, 5))
    groups = permutation_groups(model, IMAGES)
    a, b = random_state(model, 1), random_state(model, 2)
    permutation = match_activations(groups, model, a, b, batches(10, 14))
    seen = []
    for state in (a, b):
        model.load_state_dict(state)
        seen.append(model[:2](IMAGES).detach().movedim(1, 0).reshape(7, -1).double().numpy())
    correlation = np.corrcoef(*seen)[:7, 7:]
    _, columns = linear_sum_assignment(correlation, maximize=True)
    assert permutation["0.weight[0]"].tolist() == columns.tolist()


def test_blocks_are_assigned_optimally() -> None:
    """Bounds only save work: the result is the best over all orders of blocks and of channels within them."""
    generator = np.random.default_rng(0)
    cells = [np.arange(2 * block, 2 * block + 2) for block in range(4)]
    level = Level(1, np.array([10, 11, 12, 13]), (tuple(Level(0, cell) for cell in cells),))
    for _ in range(20):
        values = generator.normal(size=(8, 8))
        assignment = best_assignment(level, {0: Gains(np.arange(8), values)})
        best = max(
            sum(
                max(
                    values[2 * i, 2 * j] + values[2 * i + 1, 2 * j + 1],
                    values[2 * i, 2 * j + 1] + values[2 * i + 1, 2 * j],
                )
                for i, j in enumerate(order)
            )
            for order in itertools.permutations(range(4))
        )
        assert assignment.gain == pytest.approx(best)


def test_many_are_matched_without_contradiction() -> None:
    """Three permuted copies come back to one network, and any way round gives the same permutation."""
    planted = [GROUPS.random(seed) for seed in (1, 2, 3)]
    states = [permute(GROUPS, each, A) for each in planted]
    permutations = match_many(GROUPS, states)
    aligned = [permute(GROUPS, each, state) for each, state in zip(permutations, states, strict=True)]
    assert same(aligned[0], aligned[1])
    assert same(aligned[0], aligned[2])
    onto = {(i, j): permutations[i].then(permutations[j].inverse()) for i in range(3) for j in range(3)}
    assert same(onto[0, 1].then(onto[1, 2]).then(onto[2, 0]), GROUPS.identity())


def test_many_are_not_worse_than_matching_with_the_first() -> None:
    """The sum over all pairs of their products does not fall."""
    states = [random_state(MODEL, seed) for seed in (4, 5, 6)]
    keys = [key for key, _ in MODEL.named_parameters()]

    def agreement(permutations) -> float:
        aligned = [permute(GROUPS, each, state) for each, state in zip(permutations, states, strict=True)]
        return sum(
            float((one[key] * other[key]).sum()) for one, other in itertools.combinations(aligned, 2) for key in keys
        )

    first = [GROUPS.identity(), *(match_weights(GROUPS, states[0], state) for state in states[1:])]
    assert agreement(match_many(GROUPS, states)) >= agreement(first) - 1e-4


def test_wrong_arguments_are_one_line() -> None:
    """Non-finite weights, other shapes, no restarts, one network, one value a channel, no batches."""
    broken = {**A, "5.weight": A["5.weight"] * torch.nan}
    with pytest.raises(UserError, match=r"checkpoint b has non-finite weights in 5\.weight"):
        match_weights(GROUPS, A, broken)
    with pytest.raises(UserError, match=r"checkpoint a has non-finite weights in 5\.weight"):
        match_activations(GROUPS, MODEL, broken, A, batches(24))
    with pytest.raises(UserError, match=r"9\.bias \(5,\) in the network but \(6,\) in checkpoint b"):
        match_weights(GROUPS, A, {**A, "9.bias": torch.zeros(6)})
    with pytest.raises(UserError, match="restarts is 0"):
        match_weights(GROUPS, A, B, restarts=0)
    with pytest.raises(UserError, match="at least two networks, not 1"):
        match_many(GROUPS, [A])
    with pytest.raises(UserError, match="at least two values"):
        match_activations(GROUPS, MODEL, A, B, [])


@pytest.mark.parametrize("wide", ["a", "b", "both"])
def test_float64_is_matched_as_the_network_computes(wide: str) -> None:
    """One or both in float64: the permutation of float32, and it may be applied to the float64 weights."""
    a, b = (
        {key: t.double() if wide in (name, "both") and t.is_floating_point() else t for key, t in state.items()}
        for name, state in (("a", A), ("b", B))
    )
    expected = match_weights(GROUPS, A, B)
    assert same(match_weights(GROUPS, a, b), expected)
    assert same(match_many(GROUPS, [a, b])[0], match_many(GROUPS, [A, B])[0])
    assert same(
        match_activations(GROUPS, MODEL, a, b, batches(24)), match_activations(GROUPS, MODEL, A, B, batches(24))
    )
    permuted = permute(GROUPS, expected, b)
    assert same(
        {key: t.float() for key, t in permuted.items()}, {k: t.float() for k, t in permute(GROUPS, expected, B).items()}
    )
