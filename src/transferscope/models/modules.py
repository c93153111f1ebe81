"""Modules of analysis: the units whose weights are compared, rewound and perturbed together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from transferscope.models.fixup_resnet import FixupResNet
from transferscope.models.layers import is_resnet_like, units, weight_layers
from transferscope.system.errors import UserError

Modules = dict[str, tuple[str, ...]]
TOTALS = ("all", "sum")
"""Names of the rows of totals in tables of modules."""


def find_modules(
    model: nn.Module,
    *,
    granularity: Literal["blocks", "layers"] = "blocks",
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Modules:
    """Module of analysis -> its keys of the state_dict; every key belongs to exactly one module.

    `blocks`: for ResNet-like models `stem`, each residual block (`layer1.0`, ...) and `fc`, in order of the forward
    pass (the study's modules); for any other architecture `transferscope.models.layers.units` under their dotted
    paths, in order of registration. `layers`: every convolution and linear layer. Keys outside those units (norms,
    scalars, embeddings) join the unit they stand with: Fixup's scalars the convolution of their number, others the
    unit before them in the same submodule, or else the one after.

    `groups` names modules oneself: name -> patterns, each a key, the start of keys up to a dot, or a glob
    (`layer4.*.conv2.weight`). Raises UserError for a key in no group or in two, and for an unknown granularity.
    """
    modules = _find_modules(model, granularity, groups)
    if groups is not None and (taken := [name for name in TOTALS if name in groups]):
        raise UserError(f"group {taken[0]!r}: the rows of totals have this name; choose another")
    return {f"{name} (module)" if name in TOTALS else name: keys for name, keys in modules.items()}


def _find_modules(model: nn.Module, granularity: str, groups: Mapping[str, Sequence[str]] | None) -> Modules:
    keys = list(model.state_dict())
    if groups is not None:
        return _by_patterns(keys, groups)
    if granularity == "layers":
        return _by_units(keys, weight_layers(model), _fixup_layer if isinstance(model, FixupResNet) else _prefix)
    if granularity != "blocks":
        raise UserError(f"granularity of modules is {granularity!r}: must be 'blocks' or 'layers'")
    return _resnet_blocks(keys) if is_resnet_like(model) else _by_units(keys, units(model), _prefix)


def _resnet_blocks(keys: Iterable[str]) -> Modules:
    stem: list[str] = []
    blocks: dict[str, list[str]] = {}
    classifier: list[str] = []
    for key in keys:
        block = re.match(r"layer\d+\.\d+(?=\.)", key)
        if block:
            blocks.setdefault(block.group(), []).append(key)
        elif key.startswith("fc.") or key == "bias2":
            classifier.append(key)
        else:
            stem.append(key)
    return _present({"stem": stem, **blocks, "fc": classifier})


def _by_units(keys: Sequence[str], names: Sequence[str], find_unit: Callable[[str, set[str]], str | None]) -> Modules:
    """Give each key to the unit that `find_unit` names; the others to a neighbour."""
    if not names:
        return _present({"network": list(keys)})
    owners = {key: find_unit(key, set(names)) for key in keys}
    members: dict[str, list[str]] = {name: [] for name in names}
    for key in keys:
        members[owners[key] or _neighbour(key, keys, owners)].append(key)
    return _present(members)


def _prefix(key: str, names: set[str]) -> str | None:
    """The longest start of `key`, up to a dot, that is a unit."""
    while "." in key:
        key = key.rpartition(".")[0]
        if key in names:
            return key
    return None


def _fixup_layer(key: str, names: set[str]) -> str | None:
    """As `_prefix`; `bias2a` goes with `conv2`, `scale` with the last convolution, the network's `bias2` with `fc`."""
    layer = _prefix(key, names)
    if layer:
        return layer
    block, _, scalar = key.rpartition(".")
    if not block:
        return {"bias1": "conv1", "bias2": "fc"}[scalar]
    if scalar == "scale":
        return max(name for name in names if name.startswith(f"{block}.conv"))
    return f"{block}.conv{scalar.removeprefix('bias')[0]}"


def _neighbour(key: str, keys: Sequence[str], owners: Mapping[str, str | None]) -> str:
    """The unit before `key` (or else after it) in the innermost submodule that holds both."""
    place = keys.index(key)
    scope = key
    while scope:
        scope = scope.rpartition(".")[0]
        for direction in (reversed(keys[:place]), keys[place + 1 :]):
            for other in direction:
                if scope and not other.startswith(f"{scope}."):  # the keys of a submodule stand together
                    break
                owner = owners[other]
                if owner:
                    return owner
    raise AssertionError(f"no unit holds a key, so none can take {key}")


def _by_patterns(keys: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Modules:
    members: dict[str, list[str]] = {name: [] for name in groups}
    unassigned = []
    for key in keys:
        homes = [name for name, patterns in groups.items() if any(_matches(key, pattern) for pattern in patterns)]
        if len(homes) > 1:
            raise UserError(f"key {key!r} of the model belongs to the modules {' and '.join(homes)}: name it in one")
        if homes:
            members[homes[0]].append(key)
        else:
            unassigned.append(key)
    if unassigned:
        more = f" and {len(unassigned) - 5} more" if len(unassigned) > 5 else ""
        raise UserError(f"no configured module holds the keys {', '.join(unassigned[:5])}{more}: add a pattern")
    empty = [name for name, own in members.items() if not own]
    if empty:
        raise UserError(f"the patterns of module {empty[0]!r} match no key of the model: {list(groups[empty[0]])}")
    return _present(members)


def _matches(key: str, pattern: str) -> bool:
    return key == pattern or key.startswith(pattern + ".") or fnmatchcase(key, pattern)


def _present(members: Mapping[str, Sequence[str]]) -> Modules:
    return {name: tuple(keys) for name, keys in members.items() if keys}
