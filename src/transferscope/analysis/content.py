"""Names for the weights that a model holds, by which measurements of them are remembered.

The digest of all tensors names them, but takes a copy of a GPU's weights to the CPU and SHA-256 over it: for ResNet-50
some 100 MB a point. Whoever writes a point of a line or a plane knows where it lies, and names it by the digests of the
ends and its coordinates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import chain
from weakref import WeakKeyDictionary

from torch import nn

from transferscope.analysis.states import State
from transferscope.models.state_dicts import state_digest

_Versions = tuple[tuple[int, int], ...]

_named: WeakKeyDictionary[nn.Module, tuple[_Versions, str]] = WeakKeyDictionary()
"""Names of what models hold, and the versions of their tensors at that time."""


def name_content(model: nn.Module, name: str) -> None:
    """Name the weights that the model holds now; the name is theirs until a tensor is written to again.

    Whatever has the same name must hold the same values.
    """
    _named[model] = (_versions(model), name)


def content_of(model: nn.Module) -> str:
    """The name of the weights that the model holds: the one given to them, else their digest."""
    known = _named.get(model)
    if known is None or known[0] != _versions(model):
        name_content(model, state_digest(model.state_dict()))
        known = _named[model]
    return known[1]


class Combinations:
    """Names the combinations of some states that are written into a model; a single state goes by its digest."""

    def __init__(self, way: str, model: nn.Module, states: Sequence[State]) -> None:
        """way: how values are computed and rounded between the states, for not all ways give the same bits."""
        self.way, self.model = way, model
        own = model.state_dict()
        self._exact = [state_digest(state) for state in states]
        self._alone = [
            digest
            if all(tensor.dtype == own[key].dtype for key, tensor in state.items())
            else state_digest({key: tensor.to(own[key].dtype) for key, tensor in state.items()})
            for state, digest in zip(states, self._exact, strict=True)
        ]

    def name(self, coefficients: Sequence[float]) -> None:
        """Name what the model holds now, the sum of the states with these coefficients."""
        used = [index for index, coefficient in enumerate(coefficients) if coefficient != 0]
        if len(used) == 1 and coefficients[used[0]] == 1:
            name_content(self.model, self._alone[used[0]])
        else:
            places = [float(coefficient) for coefficient in coefficients]
            name_content(self.model, derived(self.way, self._exact, self._alone, places))


def derived(*parts: object) -> str:
    """Name what follows from some parts alone, texts and numbers."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _versions(model: nn.Module) -> _Versions:
    """Counted by torch at every write in place."""
    return tuple((id(tensor), tensor._version) for tensor in chain(model.parameters(), model.buffers()))
