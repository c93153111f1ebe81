from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from transferscope.analysis.criticality import criticality
from transferscope.analysis.module_criticality import module_criticality
from transferscope.analysis.screening import cases_near, screened_criticality
from transferscope.models.modules import find_modules
from transferscope.models.parts import split_at_modules
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError


def make_net(seed: int) -> nn.Module:
    net = build_model("fixup_resnet_small", 3, seed=seed, blocks=[1, 1], widths=[4, 8]).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net


ENDS = make_net(1).state_dict(), make_net(2).state_dict()
GENERATOR = torch.Generator().manual_seed(0)
BATCHES: list[tuple[Tensor, Tensor]] = [
    (torch.randn(16, 3, 16, 16, generator=GENERATOR), torch.randint(0, 3, (16,), generator=GENERATOR))
]
GRID = {"alphas": [0.0, 0.5, 1.0], "sigmas": [0.0, 0.1, 0.3]}


def test_cases_near_a_threshold_are_float32_and_the_others_screened() -> None:
    """Within the margin the rows are those of float32, elsewhere of bfloat16, and mu comes out as in float32."""
    modules, examples = find_modules(make_net(0)), {"train": BATCHES}
    exact = criticality(make_net(0), *ENDS, modules, examples, **GRID)
    epsilon = float(exact["loss"].median())
    screened = screened_criticality(make_net(0), *ENDS, modules, examples, [epsilon], split=split_at_modules, **GRID)
    pd.testing.assert_frame_equal(screened.drop(columns=["error", "loss"]), exact.drop(columns=["error", "loss"]))
    same = (screened["loss"] - exact["loss"]).abs() < 1e-5
    assert same.any()
    assert not same.all()
    near = cases_near(exact, [epsilon], 0.05)
    cases = zip(screened["module"], screened["position"], screened["sigma"], strict=True)
    assert all(ok for ok, case in zip(same, cases, strict=True) if case in near)
    pd.testing.assert_frame_equal(module_criticality(screened, [epsilon]), module_criticality(exact, [epsilon]))


def test_far_from_every_threshold_nothing_is_settled() -> None:
    """With an epsilon that no loss comes near, one bfloat16 pass is all."""
    modules = {"fc": find_modules(make_net(0))["fc"]}
    net = make_net(0)
    calls: list[int] = []
    net.register_forward_hook(lambda *_: calls.append(1))
    screened = screened_criticality(net, *ENDS, modules, {"train": BATCHES}, [1e9], **GRID)
    # The hook is copied with the model, so only calls of the float32 network on top would exceed the cases.
    assert len(screened) == 3 * (1 + 2 * 2)
    assert len(calls) == len(screened)


def test_cases_near_is_relative_to_epsilon() -> None:
    """Mean over draws 1.05 is within 10 % of 1 and not within 1 %."""
    table = pd.DataFrame(
        {"module": "m", "split": "train", "position": 1.0, "sigma": 0.1, "draw": [0, 1], "loss": [1.0, 1.1]}
    )
    assert cases_near(table, [1.0], 0.1) == {("m", 1.0, 0.1)}
    assert cases_near(table, [1.0], 0.01) == set()


def test_screening_needs_an_epsilon() -> None:
    """Without a threshold there is nothing to settle."""
    with pytest.raises(UserError, match="at least one epsilon"):
        screened_criticality(make_net(0), *ENDS, {}, {}, [])
