"""Locate a barrier in a network: modules brought half-way one at a time, and one after the other.

Layer-wise connectivity (Adilova et al., arXiv 2307.06966; Zhou et al., arXiv 2307.08286). A module alone says whether
it can be averaged. The cumulative profile ends in the average of the whole networks, so its differences say where their
barrier arises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from transferscope.analysis.interpolation import blend
from transferscope.analysis.states import State, check_modules, check_same_tensors
from transferscope.system.errors import UserError


@dataclass(frozen=True, eq=False)
class ModulePoint:
    """One network of a profile."""

    profile: Literal["alone", "cumulative"]
    """alone: one module is mixed; cumulative: that module and all before it."""
    module: str
    origin: Literal["a", "b"]
    """Whose weights all other modules have."""
    state: Mapping[str, Tensor]


def module_points(
    state_a: State, state_b: State, modules: Mapping[str, tuple[str, ...]], alpha: float = 0.5
) -> Iterator[ModulePoint]:
    """Networks in which some modules are mixed and all others are those of a, or those of b; one at a time.

    Args:
        modules: Module -> its keys of the state_dict, in order of the forward pass, each key in one of them.
        alpha: How far mixed modules are from a to b.

    Yields:
        For every module four points: alone and cumulative, of a and of b. The cumulative point of the last module is
        the interpolation of the whole networks, whichever the origin. Tensors that are not mixed are not copied.

    Raises:
        UserError: For states of two architectures, and where the modules do not hold each tensor once.
    """
    check_same_tensors(state_a, state_b, "checkpoint a", "checkpoint b")
    check_modules(modules, state_a)
    keys = [key for names in modules.values() for key in names]
    if sorted(keys) != sorted(state_a):
        raise UserError("a profile needs modules that hold every tensor of the network once")
    mixed: dict[str, Tensor] = {}
    origins: tuple[tuple[Literal["a", "b"], State], ...] = (("a", state_a), ("b", state_b))
    for module, names in modules.items():
        own = {key: blend(state_a[key], state_b[key], alpha) for key in names}
        mixed |= own
        for origin, state in origins:
            yield ModulePoint("alone", module, origin, {**state, **own})
            yield ModulePoint("cumulative", module, origin, {**state, **mixed})
