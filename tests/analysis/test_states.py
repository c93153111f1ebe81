from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from transferscope.analysis.merging.candidates import mean_of
from transferscope.analysis.states import (
    ComputedState,
    check_same_tensors,
    find_module,
    nonfinite_tensors,
    stored_like,
    widened,
    write_state,
)
from transferscope.models.state_dicts import state_digest
from transferscope.system.errors import UserError


def test_long_lists_of_differences_are_cut() -> None:
    """A message stays one readable line."""
    state = {f"layer{index}.weight": torch.zeros(1) for index in range(20)}
    with pytest.raises(UserError, match="and 12 more") as raised:
        check_same_tensors(state, {})
    assert "\n" not in str(raised.value)


def test_nonfinite_tensors_are_named() -> None:
    """NaN and infinity count, integers cannot be either."""
    state = {"a": torch.ones(2), "b": torch.tensor([math.inf]), "c": torch.tensor([math.nan]), "d": torch.tensor([1])}
    assert nonfinite_tensors(state) == ["b", "c"]


def test_digest_is_of_the_content() -> None:
    """Memory format, order of keys and sharing change nothing; one bit, a name or a shape does."""
    weight = torch.arange(16.0).reshape(2, 2, 2, 2)
    digest = state_digest({"w": weight, "n": torch.tensor(3)})
    assert digest == state_digest({"n": torch.tensor(3), "w": weight.to(memory_format=torch.channels_last)})
    others = [{"w": weight + 1e-6}, {"v": weight}, {"w": weight.reshape(16)}, {"w": weight.double()}]
    assert len({state_digest(other) for other in others} | {state_digest({"w": weight})}) == 5


def test_write_state_asks_for_each_tensor_once() -> None:
    """Of an average, which is computed from all candidates, and also where one does not fit."""
    net, asked = nn.Linear(3, 2), list[str]()

    def compute(key: str) -> Tensor:
        asked.append(key)
        return torch.ones(net.state_dict()[key].shape)

    write_state(net, ComputedState(["weight", "bias"], compute))
    assert sorted(asked) == ["bias", "weight"]
    assert all(tensor.eq(1).all() for tensor in net.state_dict().values())
    with pytest.raises(UserError, match=r"more only in the state, bias \(2,\) in the model but \(3,\)"):
        write_state(net, {"weight": torch.ones(2, 3), "bias": torch.ones(3), "more": torch.ones(1)})


def test_write_state_keeps_storage() -> None:
    """Values change, places do not."""
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    place = net.weight.data_ptr()
    write_state(net, other.state_dict())
    assert net.weight.data_ptr() == place
    assert torch.equal(net.weight, other.weight)


def test_stored_like_takes_the_models_memory_format() -> None:
    """Convolution weights of a channels_last model come back channels_last, with the same values and dtype."""
    net = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    state = nn.Conv2d(4, 4, 3).state_dict()
    stored = stored_like(state, net)
    assert stored["weight"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(stored["weight"], state["weight"])


def test_find_module_suggests() -> None:
    """A misspelt module is answered with its neighbours."""
    assert find_module("stem", {"stem": ("a",)}) == ("a",)
    with pytest.raises(UserError, match=r"did you mean layer1\.0"):
        find_module("layer1.O", {"layer1.0": ("a",), "fc": ("b",)})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
def test_narrow_floats_are_widened_and_averaged_exactly(dtype: torch.dtype) -> None:
    """torch promotes and adds no eight bits; the mean of two values of any narrow format has a place in float32."""
    one, other = torch.tensor([1.5, -0.25]).to(dtype), torch.tensor([0.5, 2.0]).to(dtype)
    assert widened(one).equal(torch.tensor([1.5, -0.25]))
    assert mean_of(lambda: [one, other]).equal(torch.tensor([1.0, 0.875]))
    assert widened(torch.tensor([3])).dtype == torch.int64
