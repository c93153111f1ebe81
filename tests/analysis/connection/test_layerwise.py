"""Profiles of modules: one mixed alone, and all up to it."""

from __future__ import annotations

import pytest
import torch

from transferscope.analysis.connection import module_points
from transferscope.analysis.interpolation import interpolate
from transferscope.models import build_model
from transferscope.models.modules import find_modules
from transferscope.system.errors import UserError

MODEL = build_model("fixup_resnet_small", 4, seed=0, widths=[4, 8, 8])
A, B = ({key: torch.randn_like(tensor) for key, tensor in MODEL.state_dict().items()} for _ in range(2))
MODULES = find_modules(MODEL)


def test_each_point_mixes_its_modules() -> None:
    """A point's tensors are those of its origin but for the modules that it mixes, which are interpolated."""
    points = list(module_points(A, B, MODULES, 0.3))
    assert len(points) == 4 * len(MODULES)
    middle, names = interpolate(A, B, 0.3), list(MODULES)
    for point in points:
        place = names.index(point.module)
        mixed = [point.module] if point.profile == "alone" else names[: place + 1]
        keys = {key for name in mixed for key in MODULES[name]}
        origin = {"a": A, "b": B}[point.origin]
        for key, tensor in point.state.items():
            assert torch.equal(tensor, middle[key] if key in keys else origin[key])


def test_last_cumulative_point_is_the_average() -> None:
    """Once all modules are mixed the network is the interpolated one, whichever network it came from."""
    last = [p for p in module_points(A, B, MODULES) if p.profile == "cumulative" and p.module == list(MODULES)[-1]]
    middle = interpolate(A, B, 0.5)
    assert [point.origin for point in last] == ["a", "b"]
    for point in last:
        assert all(torch.equal(point.state[key], middle[key]) for key in middle)


def test_bad_input() -> None:
    """Modules that leave a tensor out, or name one that is not there, are errors."""
    some = dict(list(MODULES.items())[1:])
    with pytest.raises(UserError, match="every tensor"):
        list(module_points(A, B, some))
    with pytest.raises(UserError, match="no tensor nowhere"):
        list(module_points(A, B, {**MODULES, "more": ("nowhere",)}))
