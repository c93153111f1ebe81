"""Weights go by a name that follows from where they lie, and never by that of others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transferscope.analysis import content
from transferscope.analysis.basin import estimate_basin
from transferscope.analysis.content import content_of, name_content
from transferscope.analysis.evaluator import Remembered
from transferscope.analysis.interpolation import walk
from transferscope.analysis.plane import Plane, evaluate_plane
from transferscope.analysis.states import State
from transferscope.models.state_dicts import state_digest

State_ = dict[str, Tensor]


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def state_of(seed: int) -> State_:
    return dict(network(seed).state_dict())


def first_weight(model: nn.Module) -> dict[str, float]:
    """A measurement that tells apart any two models of these tests."""
    return {"loss": float(sum(value.double().square().sum() for value in model.state_dict().values()))}


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each digest of all weights."""
    counted: list[int] = []

    def count(state: State) -> str:
        counted.append(1)
        return state_digest(state)

    monkeypatch.setattr(content, "state_digest", count)
    return counted


WRITES: dict[str, Callable[[nn.Module], object]] = {
    "added": lambda model: model[0].weight.add_(1),
    "copied": lambda model: model.load_state_dict(state_of(1)),
    "one value": lambda model: model[2].bias[0].fill_(7.0),
    "out": lambda model: torch.add(model[0].bias, 1, out=model[0].bias),
    "replaced": lambda model: setattr(model, "1", nn.BatchNorm1d(4)),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_name_is_gone_with_the_first_write(write: str) -> None:
    """In place, by `out=` and with another layer: what was named is then known by its digest."""
    model = network()
    name_content(model, "named")
    assert content_of(model) == "named"
    with torch.no_grad():
        WRITES[write](model)
    assert content_of(model) == state_digest(model.state_dict())


def test_points_of_a_line_are_named_without_digests(digested: list[int]) -> None:
    """Two digests for a line, however many points and parts; values and ends are those of measuring directly."""
    model, store = network(), {}
    parts = [Remembered(first_weight, store, part) for part in ("train", "test")]

    def evaluate(of: nn.Module) -> dict[str, float]:
        return {f"{index}/loss": part(of)["loss"] for index, part in enumerate(parts)}

    alphas = np.linspace(-1, 2, 31).round(12).tolist()
    table = walk(model, state_of(1), state_of(2), alphas, evaluate)
    assert len(digested) == 2
    assert len(store) == 62
    plain = walk(
        model, state_of(1), state_of(2), alphas, lambda of: {f"{i}/loss": first_weight(of)["loss"] for i in (0, 1)}
    )
    assert table.equals(plain)
    for seed in (1, 2):  # a model that is measured by itself is found
        model.load_state_dict(state_of(seed))
        assert store[f"test/{content_of(model)}"] == first_weight(model)


def test_a_second_walk_and_another_line_through_an_end_measure_what_is_new(digested: list[int]) -> None:
    """Nothing on the same line; of another line through an end all but that end."""
    measured: list[float] = []

    def measure(model: nn.Module) -> dict[str, float]:
        measured.append(1)
        return first_weight(model)

    remembered = Remembered(measure, {}, "test")
    for ends, new in (((1, 2), 3), ((1, 2), 0), ((1, 3), 2), ((3, 2), 1)):
        before = len(measured)
        walk(network(), state_of(ends[0]), state_of(ends[1]), [0, 0.5, 1], remembered)
        assert len(measured) - before == new


def test_each_place_has_a_name_of_its_own(digested: list[int]) -> None:
    """Lines, planes and basins through the same models remember beside each other what each gives alone."""

    def results(remember: bool) -> list[object]:
        store: dict[str, dict[str, float]] = {}
        evaluate = Remembered(first_weight, store, "test") if remember else first_weight
        line = walk(network(), state_of(1), state_of(2), [0, 0.3, 0.5, 1], evaluate)
        plane = Plane(state_of(1), state_of(2), state_of(3))
        grid = evaluate_plane(network(), plane, [0.0, plane.length / 2], [0.0, 0.1], evaluate)
        hull = estimate_basin(network(), [state_of(1), state_of(2)], evaluate, [0.1], num_points=3, num_rays=2)
        return [line.to_csv(), grid.to_csv(), hull.excess.to_csv(), hull.center]

    assert results(remember=True) == results(remember=False)
    assert len(digested) == 2 * (2 + 3 + 2)


def test_ends_of_another_type_go_by_what_the_model_holds() -> None:
    """A float64 end in a float32 model is named as its rounded values, and between the ends by the exact ones too."""
    store: dict[str, dict[str, float]] = {}
    wide = [{key: value.double() + 1e-12 * seed for key, value in state_of(1).items()} for seed in (1, 2)]
    for end in wide:
        walk(network(), end, state_of(2), [0, 0.5, 1], Remembered(first_weight, store, "test"))
    model = network()
    model.load_state_dict(state_of(1))
    assert f"test/{state_digest(model.state_dict())}" in store
    assert len(store) == 2 + 2
