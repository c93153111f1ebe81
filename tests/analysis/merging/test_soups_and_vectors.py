"""Soups, task vectors and Fisher averages against their published formulas, written out for single numbers."""

from __future__ import annotations

import gc
import itertools
import math
import weakref
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transferscope.analysis.alignment import permutation_groups
from transferscope.analysis.merging import (
    align_to_first,
    aligned_average,
    check_parent,
    fisher_merge,
    greedy_soup,
    parent_correlation,
    regmean,
    rescaled_average,
    task_arithmetic,
    ties,
    uniform_soup,
    wise_ft,
)
from transferscope.system.errors import UserError

State = dict[str, Tensor]


def states(
    count: int, *, dtype: torch.dtype = torch.float32, spread: float = 0.3, seed: int = 0
) -> tuple[State, list[State]]:
    """A parent and `count` states near it: a matrix, a vector with a zero, a running variance and a counter."""
    generator = torch.Generator().manual_seed(seed)
    parent: State = {
        "conv.weight": torch.randn(4, 3, 2, 2, generator=generator).to(dtype),
        "bn.bias": torch.randn(5, generator=generator).to(dtype),
        "bn.running_var": torch.rand(5, generator=generator).to(dtype) + 0.5,
        "bn.num_batches_tracked": torch.tensor(3),
        "fc.weight": torch.randn(6, 4, generator=generator).to(dtype),
    }
    candidates = []
    for index in range(count):
        own = {}
        for key, tensor in parent.items():
            noise = spread * torch.randn(tensor.shape, generator=generator)
            own[key] = tensor + 10 * index if key.endswith("tracked") else (tensor.float() + noise).to(dtype)
        own["bn.running_var"] = own["bn.running_var"].abs() + 0.1
        candidates.append(own)
    return parent, candidates


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one
    )


PARENT, THREE = states(3)


def merges(candidates: list[State], parent: State = PARENT) -> dict[str, State]:
    """Every merge that only needs weights, with settings under which it should keep equal candidates."""
    same = [
        {key: torch.full_like(tensor, 2.0) for key, tensor in state.items() if tensor.is_floating_point()}
        for state in candidates
    ]
    scores = [0.5] * len(candidates)
    return {
        "uniform": uniform_soup(candidates),
        "greedy": greedy_soup(candidates, scores, lambda state: 0.5)[0],
        "wise_ft": wise_ft(parent, candidates, 1.0),
        "task_arithmetic": task_arithmetic(parent, candidates, 1 / len(candidates)),
        "ties": ties(parent, candidates, density=1.0),
        "fisher": fisher_merge(candidates, same),
    }


@pytest.mark.parametrize("name", merges(THREE))
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_equal_candidates_are_themselves(name: str, copies: int) -> None:
    """One candidate, and several equal ones, are merged into themselves, bit by bit, in float32."""
    assert equal(merges([THREE[0]] * copies)[name], THREE[0])


@pytest.mark.parametrize("name", merges(THREE))
def test_order_does_not_matter(name: str) -> None:
    """Every merge is the same bits in every order of the candidates."""
    first = merges(THREE)[name]
    for order in itertools.permutations(THREE):
        assert equal(merges(list(order))[name], first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_float32_at_least(dtype: torch.dtype) -> None:
    """Half precision is merged in float32, float64 stays, and counters are integers and the largest."""
    parent, candidates = states(3, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for state in merges(candidates, parent).values():
        assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {wide}
        assert state["bn.num_batches_tracked"].item() == 23
    assert equal(
        uniform_soup([candidates[1]] * 3),
        {key: t.to(wide) if t.is_floating_point() else t for key, t in candidates[1].items()},
    )


def test_uniform_is_the_mean() -> None:
    """The uniform soup is NumPy's mean of every tensor."""
    soup = uniform_soup(THREE)
    for key in ("conv.weight", "bn.running_var"):
        expected = torch.stack([state[key] for state in THREE]).double().numpy().mean(axis=0)
        assert torch.allclose(soup[key].double(), torch.from_numpy(expected), atol=1e-7)


def test_greedy_keeps_what_helps() -> None:
    """The greedy soup is the one of a step-by-step search over subsets with the same rule, best candidate first."""
    _, candidates = states(6, spread=1.0, seed=3)
    target = uniform_soup(candidates[:3])["fc.weight"] + 0.2

    def score(state: Mapping[str, Tensor]) -> float:
        return -float((state["fc.weight"] - target).double().square().sum())

    scores = [score(state) for state in candidates]
    tried: list[float] = []

    def evaluate(state: State) -> float:
        tried.append(score(state))
        return tried[-1]

    soup, kept = greedy_soup(candidates, scores, evaluate)
    order = sorted(range(6), key=lambda place: scores[place], reverse=True)
    expected, best = [order[0]], scores[order[0]]
    for place in order[1:]:
        trial = sum(candidates[one]["fc.weight"].double() for one in [*expected, place]) / (len(expected) + 1)
        value = score({"fc.weight": torch.as_tensor(trial)})
        if value >= best:
            expected, best = [*expected, place], value
    assert kept == expected
    assert 1 < len(kept) < 6
    assert len(tried) == 5
    assert equal(soup, uniform_soup([candidates[place] for place in kept]))


def test_wise_ft_ends() -> None:
    """At 0 it is the parent, at 1 the soup of the candidates, bit by bit, and half-way the mean of both."""
    assert equal(wise_ft(PARENT, THREE[:1], 0.0), PARENT)
    assert equal(wise_ft(PARENT, THREE[:1], 1.0), THREE[0])
    soup = uniform_soup(THREE)
    assert equal(wise_ft(PARENT, THREE, 1.0), soup)
    middle = wise_ft(PARENT, THREE, 0.5)
    assert torch.allclose(middle["fc.weight"], (PARENT["fc.weight"] + soup["fc.weight"]) / 2, atol=1e-7)


def test_task_arithmetic_adds_vectors() -> None:
    """It is the parent plus the scaled sum of the differences, number by number; statistics are averaged."""
    merged = task_arithmetic(PARENT, THREE, 0.7)
    for key in ("conv.weight", "bn.bias", "fc.weight"):
        flat = [state[key].double().flatten().tolist() for state in THREE]
        start = PARENT[key].double().flatten().tolist()
        expected = [p + 0.7 * sum(one[i] - p for one in flat) for i, p in enumerate(start)]
        assert torch.allclose(merged[key].flatten().double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6)
    assert torch.equal(merged["bn.running_var"], uniform_soup(THREE)["bn.running_var"])
    assert torch.allclose(task_arithmetic(PARENT, THREE, 0.0)["fc.weight"], PARENT["fc.weight"])


def ties_by_steps(parent: State, candidates: list[State], density: float, scale: float) -> dict[str, list[float]]:
    """Algorithm 1 of the paper on plain lists."""
    keys = [key for key in parent if parent[key].is_floating_point() and "running" not in key]
    start = [value for key in keys for value in parent[key].double().flatten().tolist()]
    vectors = []
    for state in candidates:
        values = [value for key in keys for value in state[key].double().flatten().tolist()]
        vectors.append([value - p for value, p in zip(values, start, strict=True)])
    kept = math.ceil(density * len(start))
    for vector in vectors:
        bound = sorted((abs(value) for value in vector), reverse=True)[kept - 1]
        vector[:] = [value if abs(value) >= bound else 0.0 for value in vector]
    merged = []
    for place, p in enumerate(start):
        values = [vector[place] for vector in vectors]
        total = sum(values)
        chosen = [value for value in values if value * total > 0]
        merged.append(p + scale * (sum(chosen) / len(chosen) if chosen else 0.0))
    result, begin = {}, 0
    for key in keys:
        result[key] = merged[begin : begin + parent[key].numel()]
        begin += parent[key].numel()
    return result


@pytest.mark.parametrize(("density", "scale"), [(0.2, 1.0), (0.5, 0.6), (1.0, 1.0), (0.011, 2.0)])
def test_ties_is_its_algorithm(density: float, scale: float) -> None:
    """TIES is the paper's algorithm step by step: the largest part of each vector over all tensors, signs, means."""
    for count, seed in ((2, 0), (3, 1), (5, 2)):
        parent, candidates = states(count, seed=seed)
        merged = ties(parent, candidates, density, scale)
        for key, expected in ties_by_steps(parent, candidates, density, scale).items():
            assert torch.allclose(
                merged[key].flatten().double(), torch.tensor(expected, dtype=torch.float64), atol=2e-7
            ), key


def test_fisher_is_the_weighted_mean() -> None:
    """Every weight is the mean weighted by its information; where there is none, and with equal weights, the mean."""
    generator = torch.Generator().manual_seed(5)
    information = [
        {key: torch.rand(tensor.shape, generator=generator) for key, tensor in PARENT.items() if "running" not in key}
        for _ in THREE
    ]
    for one in information:
        one["fc.weight"][0, 0] = 0
    merged = fisher_merge(THREE, information)
    for key in ("conv.weight", "bn.bias", "fc.weight"):
        values = torch.stack([state[key] for state in THREE]).double().flatten(1)
        weights = torch.stack([one[key] for one in information]).double().flatten(1)
        for place in range(values.shape[1]):
            own, by = values[:, place].tolist(), weights[:, place].tolist()
            expected = sum(map(float.__mul__, own, by)) / sum(by) if sum(by) else sum(own) / len(own)
            assert merged[key].flatten()[place].item() == pytest.approx(expected, abs=1e-6)
    even = [{key: torch.full_like(tensor, 0.3) for key, tensor in one.items()} for one in information]
    assert all(
        torch.allclose(fisher_merge(THREE, even)[key], mean, atol=1e-7)
        for key, mean in uniform_soup(THREE).items()
        if mean.is_floating_point()
    )


def test_classifier_of_the_parent_is_left_out() -> None:
    """Where the parent has another classifier, or none, that of the merges is the candidates' mean."""
    mean = uniform_soup(THREE)["fc.weight"]
    for parent in (
        PARENT | {"fc.weight": torch.zeros(9, 4)},
        {key: t for key, t in PARENT.items() if key != "fc.weight"},
    ):
        for merged in (
            wise_ft(parent, THREE, 0.3, ["fc.weight"]),
            task_arithmetic(parent, THREE, 0.5, ["fc.weight"]),
            ties(parent, THREE, 0.5, 1.0, ["fc.weight"]),
        ):
            assert torch.equal(merged["fc.weight"], mean)
            assert not torch.equal(merged["conv.weight"], uniform_soup(THREE)["conv.weight"])
        with pytest.raises(UserError, match=r"fc\.weight"):
            wise_ft(parent, THREE, 0.3)


class Counted(Mapping[str, Tensor]):
    """A state whose tensors are made when they are asked for; counts how many bytes of them live at once."""

    live = 0
    peak = 0

    def __init__(self, state: State, seed: int) -> None:
        self.state, self.seed = state, seed

    def __getitem__(self, key: str) -> Tensor:
        made = self.state[key] + 0.01 * self.seed if self.state[key].is_floating_point() else self.state[key]
        values = made.numpy().copy()  # which all tensors that share them keep alive
        Counted.live += values.nbytes
        Counted.peak = max(Counted.peak, Counted.live)
        weakref.finalize(values, self._gone, values.nbytes)
        return torch.from_numpy(values)

    @staticmethod
    def _gone(size: int) -> None:
        Counted.live -= size

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


@pytest.mark.parametrize("count", [2, 12])
def test_candidates_are_read_a_tensor_at_a_time(count: int) -> None:
    """At no time do more than four tensors of candidates live, of twelve in each, however many candidates there are."""
    generator = torch.Generator().manual_seed(0)
    base = {f"layer{i}.weight": torch.randn(40, 30, generator=generator) for i in range(12)}
    lazy = [Counted(base, seed) for seed in range(count)]
    same = [{key: torch.ones_like(tensor) for key, tensor in base.items()}] * count
    for merge in (
        lambda: uniform_soup(lazy),
        lambda: greedy_soup(lazy, [0.0] * count, lambda state: 1.0),
        lambda: wise_ft(base, lazy, 0.5),
        lambda: task_arithmetic(base, lazy, 0.5),
        lambda: ties(base, lazy, 0.5),
        lambda: fisher_merge(lazy, same),
    ):
        gc.collect()
        Counted.live = Counted.peak = 0
        merge()
        assert Counted.peak <= 4 * 40 * 30 * 4


@pytest.mark.parametrize("count", [2, 6])
def test_methods_that_use_networks_read_a_tensor_at_a_time(count: int) -> None:
    """The same of matching channels, aligned averages, their correction, and RegMean, in a network of twelve layers."""
    layers = [layer for _ in range(12) for layer in (nn.Linear(30, 30), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(30, 4)).eval()
    images, labels = torch.randn(40, 30, generator=torch.Generator().manual_seed(1)), torch.zeros(40, dtype=torch.int64)
    groups = permutation_groups(model, images)
    lazy = [Counted({key: tensor.detach().clone() for key, tensor in model.state_dict().items()}, seed)
            for seed in range(count)]  # fmt: skip
    batches = [(images, labels)]
    orders = [groups.random(seed) for seed in range(count)]
    for merge in (
        lambda: align_to_first(groups, lazy),
        lambda: aligned_average(groups, lazy, orders),
        lambda: rescaled_average(model, groups, lazy, orders, batches),
        lambda: regmean(model, lazy, [batches] * count),
    ):
        gc.collect()
        Counted.live = Counted.peak = 0
        merge()
        assert Counted.peak <= 4 * 30 * 30 * 4


def test_faults_are_named() -> None:
    """No candidates, other architectures, NaN, settings out of range and a parent that is none are one clear line."""
    parent, candidates = states(2)
    other = {key: tensor for key, tensor in candidates[1].items() if key != "bn.bias"}
    wide = candidates[1] | {"fc.weight": torch.zeros(7, 4)}
    broken = candidates[1] | {"bn.bias": torch.full((5,), float("nan"))}
    stranger = {key: -tensor if tensor.is_floating_point() else tensor for key, tensor in parent.items()}
    for call, message in (
        (lambda: uniform_soup([]), "at least one"),
        (lambda: uniform_soup([candidates[0], other], ["a.pth", "b.pth"]), "bn.bias only in a.pth"),
        (
            lambda: uniform_soup([candidates[0], wide], ["a.pth", "b.pth"]),
            r"fc\.weight \(6, 4\) in a\.pth but \(7, 4\) in b\.pth",
        ),
        (
            lambda: uniform_soup([candidates[0], broken], ["a.pth", "b.pth"]),
            "b.pth has non-finite weights in bn.bias: leave",
        ),
        (lambda: greedy_soup(candidates, [1.0], lambda state: 1.0), "1 scores for 2 candidates"),
        (lambda: wise_ft(parent, candidates, 1.5), "alpha is 1.5: give a number from 0"),
        (lambda: task_arithmetic(parent, candidates, float("inf")), "scale is inf"),
        (lambda: ties(parent, candidates, 0.0), "density is 0.0"),
        (lambda: ties(stranger, candidates), "no parent of candidate 1: their weights correlate by"),
        (lambda: wise_ft(broken, candidates, 0.5), "the parent has non-finite weights"),
        (lambda: fisher_merge(candidates, [candidates[0]]), "1 networks for 2 candidates"),
        (lambda: fisher_merge(candidates, [candidates[0], candidates[0]]), "negative or not finite"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_parent_correlation() -> None:
    """It is NumPy's correlation for one tensor, 1 for the same weights, near 0 for others, near 1 for a fine-tuning."""
    parent, (near,) = states(1, spread=0.1)
    _, (far,) = states(1, seed=4)
    single = {"fc.weight": parent["fc.weight"]}, {"fc.weight": near["fc.weight"]}
    both = torch.stack([one["fc.weight"].flatten() for one in single])
    assert parent_correlation(*single) == pytest.approx(float(torch.corrcoef(both)[0, 1]), abs=1e-6)
    assert parent_correlation(parent, parent) == pytest.approx(1)
    assert parent_correlation(parent, near) > 0.95
    assert abs(parent_correlation(parent, far)) < 0.3
    check_parent(parent, [near])
    with pytest.raises(UserError, match="is no parent"):
        check_parent({key: tensor.flip(0) if tensor.dim() else tensor for key, tensor in parent.items()}, [near])


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.float32, torch.float32)])
def test_candidates_of_different_precision(dtypes: tuple[torch.dtype, ...]) -> None:
    """Float64 beside float32, in any order, is the mean in float64."""
    given = [
        {key: t.to(dtype) if t.is_floating_point() else t for key, t in state.items()}
        for state, dtype in zip(THREE, dtypes, strict=False)
    ]
    soup = uniform_soup(given)
    for key, tensor in soup.items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float64
            expected = np.mean([state[key].double().numpy() for state in given], axis=0)
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-15, atol=1e-15)
