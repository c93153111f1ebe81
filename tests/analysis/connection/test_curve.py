"""A quadratic Bezier curve and the training of its bend."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from transferscope.analysis.batchnorm import recompute_statistics
from transferscope.analysis.connection import CurveTraining, bezier, train_curve
from transferscope.analysis.connection.curve import GOLDEN
from transferscope.analysis.interpolation import interpolate
from transferscope.system.errors import UserError

GENERATOR = torch.Generator().manual_seed(5)
INPUTS = torch.randn(256, 2, generator=GENERATOR)
LABELS = (INPUTS[:, 0] * INPUTS[:, 1] > 0).long()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 2))


def with_batchnorm() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 2))


def pairs(seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.randperm(256, generator=generator).split(64):
            yield INPUTS[rows], LABELS[rows]


def trained(seed: int, make=network) -> dict[str, Tensor]:
    """A network that solves the problem."""
    torch.manual_seed(seed)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(model(INPUTS), LABELS).backward()
        optimizer.step()
    return copy.deepcopy(model.state_dict())


A, B = trained(1), trained(2)


def losses(bend: dict[str, Tensor], a: dict[str, Tensor] = A, b: dict[str, Tensor] = B) -> list[float]:
    model = network()
    along = []
    for step in range(11):
        model.load_state_dict(bezier(a, bend, b, step / 10))
        along.append(F.cross_entropy(model(INPUTS), LABELS).item())
    return along


def test_points_of_the_curve() -> None:
    """The ends are a and b to the bit; a bend half-way makes it the straight line; the formula holds between."""
    bend = {key: torch.randn_like(tensor) for key, tensor in A.items()}
    for key in A:
        assert torch.equal(bezier(A, bend, B, 0)[key], A[key])
        assert torch.equal(bezier(A, bend, B, 1)[key], B[key])
        expected = 0.49 * A[key] + 0.42 * bend[key] + 0.09 * B[key]
        assert torch.allclose(bezier(A, bend, B, 0.3)[key], expected, atol=1e-6)
        straight = bezier(A, interpolate(A, B, 0.5), B, 0.3)[key]
        assert torch.allclose(straight, interpolate(A, B, 0.3)[key], atol=1e-6)


def test_curve_removes_the_barrier() -> None:
    """Between two solutions with a barrier the trained curve has hardly any."""
    straight = losses(interpolate(A, B, 0.5))
    curved = losses(train_curve(network(), A, B, pairs(), F.cross_entropy, CurveTraining(steps=400)))
    assert max(straight) > 0.3
    assert max(curved) < 0.25 * max(straight)


def test_training_is_that_of_autograd() -> None:
    """The bend equals one that autograd trains through the formula of the curve."""
    options = CurveTraining(steps=25, lr=0.3)
    ours = train_curve(network(), A, B, pairs(), F.cross_entropy, options)
    model = network()
    bend = {key: ((A[key] + B[key]) / 2).requires_grad_() for key in A}
    optimizer = torch.optim.SGD(list(bend.values()), lr=1.0, momentum=0.9)
    for step, (inputs, labels) in enumerate(itertools.islice(pairs(), 25)):
        t = math.modf(0.5 + step * GOLDEN)[0]
        point = {key: (1 - t) ** 2 * A[key] + 2 * t * (1 - t) * bend[key] + t**2 * B[key] for key in A}
        optimizer.zero_grad()
        F.cross_entropy(functional_call(model, point, (inputs,)), labels).backward()
        torch.nn.utils.clip_grad_norm_(list(bend.values()), 2.0)
        part = (step + 0.5) / 25
        optimizer.param_groups[0]["lr"] = 0.3 * (part / 0.1 if part < 0.1 else (1 - part) / 0.9)
        optimizer.step()
    for key, tensor in bend.items():
        assert torch.allclose(ours[key], tensor.detach(), atol=1e-5)


def test_same_arguments_same_bend() -> None:
    """Training is deterministic, takes a batch a step, one at a time, and leaves the model as it was."""
    model = network()
    before = copy.deepcopy(model.state_dict())
    stream = pairs()
    one = train_curve(model, A, B, stream, F.cross_entropy, CurveTraining(steps=5))
    assert torch.equal(next(stream)[0], next(itertools.islice(pairs(), 5, None))[0])
    other = train_curve(model, A, B, pairs(), F.cross_entropy, CurveTraining(steps=5))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_batchnorm() -> None:
    """With recomputed statistics the curve between BatchNorm networks is good; dropout plays no part."""
    a, b = trained(1, with_batchnorm), trained(2, with_batchnorm)
    bends = [train_curve(with_batchnorm(), a, b, pairs(), F.cross_entropy, CurveTraining(steps=300)) for _ in range(2)]
    assert all(torch.equal(bends[0][key], tensor) for key, tensor in bends[1].items())
    model = with_batchnorm()
    middle_losses = []
    for bend in (interpolate(a, b, 0.5), bends[0]):
        model.load_state_dict(bezier(a, bend, b, 0.5))
        recompute_statistics(model, [(INPUTS, LABELS)])
        middle_losses.append(F.cross_entropy(model(INPUTS), LABELS).item())
    assert middle_losses[1] < 0.7 * middle_losses[0]


def test_bad_input() -> None:
    """Too few batches, a loss that is no number, weights that are none, t outside: each is one line."""
    short = itertools.islice(pairs(), 3)
    with pytest.raises(UserError, match="4 steps got 3 batches"):
        train_curve(network(), A, B, short, F.cross_entropy, CurveTraining(steps=4))
    with pytest.raises(UserError, match="ceases to be finite"):
        train_curve(network(), A, B, pairs(), lambda logits, labels: logits.sum() * math.nan)
    broken = {**A, "0.bias": torch.full_like(A["0.bias"], math.nan)}
    with pytest.raises(UserError, match=r"checkpoint b has non-finite weights in 0\.bias"):
        train_curve(network(), A, broken, pairs(), F.cross_entropy)
    with pytest.raises(UserError, match=r"t is 1\.5"):
        bezier(A, A, B, 1.5)
    with pytest.raises(UserError, match="not weights of one architecture"):
        bezier(A, {"0.bias": A["0.bias"]}, B, 0.5)
    with pytest.raises(UserError, match="must be positive"):
        train_curve(network(), A, B, pairs(), F.cross_entropy, CurveTraining(steps=0))
