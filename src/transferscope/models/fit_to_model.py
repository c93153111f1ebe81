"""Bring weights under the names that a model gives its tensors: prefixes, counters, names of older versions."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from transferscope.models.duplicate import duplicate
from transferscope.models.layers import classifier_layers
from transferscope.models.saved_weights import is_averaged
from transferscope.models.state_dicts import listed
from transferscope.models.tensor_names import WRAPPERS

WITH_AUXILIARY = ("GoogLeNet", "Inception3")
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""torchvision's first DenseNets called their layers `norm.1` instead of `norm1`."""


def fit_to_model(
    state_dict: Mapping[str, Tensor], model: nn.Module, *, ignore: Collection[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under the names of the model, and sentences that say what was removed, renamed or filled in.

    Weights that have the model's names are returned as they are. Otherwise a prefix is looked for that all of the
    model's names have in the file, or that the file lacks; counters of BatchNorm that are missing become 0, those of
    shape (1,) become numbers, those that the model does not keep are left out, and names of older versions are brought
    up to date by the model's own rules.
    Names in `ignore` (a classifier that will be replaced) need not be there. Tensors that do not fit stay, so
    that `check_compatible` names them.
    """
    wanted = model.state_dict()
    needed = [key for key in wanted if key not in ignore]
    if set(needed) <= state_dict.keys() <= wanted.keys() and not _misshapen_counters(state_dict, wanted):
        return dict(state_dict), []
    fitted, notes = _with_the_models_names(dict(state_dict), needed, wanted)
    fits = (
        _with_the_models_counters,
        _by_the_models_rules,
        _without_auxiliary,
        _without_surplus_counters,
        _without_other_head,
    )
    for fit in fits:
        fitted, more = fit(fitted, model, ignore)
        notes += more
    absent = [key for key in needed if key not in fitted and is_counter(key)]
    if absent and all(key in fitted or is_counter(key) for key in needed):
        notes.append(f"set {len(absent)} counters num_batches_tracked, which the file lacks, to 0")
        fitted |= {key: _zero(wanted[key], fitted) for key in absent}
    ordered = {key: fitted[key] for key in wanted if key in fitted}
    return ordered | {key: value for key, value in fitted.items() if key not in ordered}, notes


Fit = tuple[dict[str, Tensor], list[str]]


def _with_the_models_names(given: dict[str, Tensor], needed: Sequence[str], wanted: Collection[str]) -> Fit:
    """Drop the prefix below which most of the needed names are found, or put one before all names."""
    needed = [key for key in needed if not is_counter(key)]
    if not needed or all(key in given for key in needed):
        return _without_copies(given, "", needed)
    added = _missing_prefix(given, needed)
    if added:
        renamed = {added + key: value for key, value in given.items()}
        return renamed, [f"put the prefix {added!r}, which the model's names have, before all names"]
    counts = {prefix: sum(prefix + key in given for key in needed) for prefix in _prefixes(given, needed)}
    if not counts:
        return given, []
    most = max(counts.values())
    best = [prefix for prefix, count in counts.items() if count == most]
    prefix = next((prefix for prefix in best if not is_averaged(prefix)), best[0])
    if prefix == "" or most < len(needed) / 2:
        return _by_parts(given, needed, wanted)
    fitted = {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}
    left = [key for key in given if not key.startswith(prefix)]
    others = [other for other in best if other != prefix and most == len(needed)]
    notes = [f"took the tensors below {prefix!r}" + (f" and left out {len(left)}: {listed(left)}" if left else "")]
    if others:
        notes.append(f"the option prefix takes other weights that fit: {listed(others)}")
    return fitted, notes


def _without_copies(given: dict[str, Tensor], prefix: str, needed: Sequence[str]) -> Fit:
    """Leave out averages that lie below a prefix of their own beside weights that fit as they are."""
    counts = {other: sum(other + key in given for key in needed) for other in _prefixes(given, needed) if other}
    copies = [other for other, count in counts.items() if needed and count == len(needed)]
    left = [key for key in given if key.startswith(tuple(copies))]
    if not left:
        return given, []
    kept = {key: value for key, value in given.items() if key not in set(left)}
    return kept, [f"left out other weights that fit; the option prefix takes them: {listed(copies)}"]


def _prefixes(given: Mapping[str, Tensor], needed: Sequence[str]) -> list[str]:
    """Prefixes that the file has before some of the needed names, in the file's order."""
    anchors = [*needed[:3], needed[len(needed) // 2], *needed[-3:]] if needed else []
    prefixes = (
        name.removesuffix(anchor)
        for name in given
        for anchor in anchors
        if name == anchor or name.endswith(f".{anchor}")
    )
    return list(dict.fromkeys(prefixes))


def _missing_prefix(given: Mapping[str, Tensor], needed: Sequence[str]) -> str:
    """The first part of all needed names, if the file has all of them without it."""
    prefix = needed[0].partition(".")[0] + "."
    while all(key.startswith(prefix) for key in needed):
        if all(key.removeprefix(prefix) in given for key in needed):
            return prefix
        part = needed[0].removeprefix(prefix).partition(".")[0]
        prefix += part + "."
    return ""


def _by_parts(given: dict[str, Tensor], needed: Sequence[str], wanted: Collection[str]) -> Fit:
    """Drop wrappers' parts from each name by itself, where that gives the needed names without a doubt."""
    renamed = {key: _nearest(key, wanted) for key in given}
    names = set(renamed.values())
    if len(names) < len(renamed) or not names.issuperset(needed):
        return given, []
    changed = [key for key, new in renamed.items() if key != new]
    fitted = {renamed[key]: value for key, value in given.items()}
    return fitted, [f"renamed {len(changed)} tensors, as {changed[0]} to {renamed[changed[0]]}"] if changed else []


def _nearest(name: str, wanted: Collection[str]) -> str:
    """The model's name that is left when wrappers' parts are removed, or the name itself."""
    parts = name.split(".")
    leading = next((at for at, part in enumerate(parts) if part not in WRAPPERS), 0)
    inner = [part for part in parts if part != "module"]
    shorter = (".".join(parts[start:]) for start in range(1, leading + 1))
    candidates = (name, _OLD_DENSENET.sub(r"\1\2", name), ".".join(inner), *shorter)
    return next((candidate for candidate in candidates if candidate in wanted), name)


def _by_the_models_rules(given: dict[str, Tensor], model: nn.Module, ignore: Collection[str]) -> Fit:
    """Rename as the model's own code does for files of older versions (`_load_from_state_dict`)."""
    wanted = model.state_dict()
    strange = [key for key in given if key not in wanted]
    if not strange or all(key in given or key in ignore or is_counter(key) for key in wanted):
        return given, []
    trial = duplicate(model)
    is_meta = any(value.is_meta for value in given.values())
    if is_meta:
        trial = trial.to("meta")
    without_values = is_meta or any(parameter.is_meta for parameter in model.parameters())
    try:
        result = trial.load_state_dict(OrderedDict(given), strict=False, assign=without_values)
    except (RuntimeError, ValueError, KeyError):
        return given, []
    if any(key not in ignore for key in result.missing_keys) or result.unexpected_keys:
        return given, []
    loaded, dtype = trial.state_dict(), _common_dtype(given)
    fitted = {key: given.get(key, loaded[key]) for key in wanted if key in given or key not in ignore}
    for key in fitted.keys() - given.keys():
        if is_counter(key):
            fitted[key] = _zero(wanted[key], given)
        fitted[key] = fitted[key].to(dtype) if fitted[key].is_floating_point() else fitted[key]
    if not is_meta and any(value.is_meta for value in fitted.values()):
        return given, []
    return fitted, [f"brought names of an older version up to date: {listed(strange)}"]


def _zero(counter: Tensor, given: Mapping[str, Tensor]) -> Tensor:
    """A counter at 0 on the device of the given tensors; that of the model may be meta, without values."""
    device = next((value.device for value in given.values()), counter.device)
    return torch.zeros(counter.shape, dtype=counter.dtype, device=device)


def _common_dtype(given: Mapping[str, Tensor]) -> torch.dtype:
    return next((value.dtype for value in given.values() if value.is_floating_point()), torch.float32)


def _without_auxiliary(given: dict[str, Tensor], model: nn.Module, ignore: Collection[str]) -> Fit:
    """Leave out the auxiliary classifiers of GoogLeNet and Inception, which act in training only."""
    wanted = model.state_dict()
    surplus = [key for key in given if key not in wanted and key.startswith(AUXILIARY)]
    if type(model).__name__ not in WITH_AUXILIARY or not surplus:
        return given, []
    notes = [
        "left out the auxiliary classifiers, which act in training only; model.options.aux_logits: true keeps them"
    ]
    if not getattr(model, "transform_input", True):
        notes.append(
            "if this is torchvision's official file, give model.options.transform_input: true, as torchvision does"
        )
    return {key: value for key, value in given.items() if key not in set(surplus)}, notes


def _with_the_models_counters(given: dict[str, Tensor], model: nn.Module, ignore: Collection[str]) -> Fit:
    """Counters of one number in the model's shape, which is () in torch; other programs save (1,)."""
    wanted = model.state_dict()
    misshapen = _misshapen_counters(given, wanted)
    if not misshapen:
        return given, []
    note = f"took {len(misshapen)} counters num_batches_tracked of another shape, which hold one number each"
    return given | {key: given[key].reshape(wanted[key].shape) for key in misshapen}, [note]


def _misshapen_counters(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    return [
        key
        for key, value in given.items()
        if is_counter(key) and key in wanted and value.shape != wanted[key].shape and value.numel() == 1
    ]


def _without_surplus_counters(given: dict[str, Tensor], model: nn.Module, ignore: Collection[str]) -> Fit:
    wanted = model.state_dict()
    surplus = {key for key in given if key not in wanted and is_counter(key)}
    if not surplus:
        return given, []
    kept = {key: value for key, value in given.items() if key not in surplus}
    return kept, [f"left out {len(surplus)} counters num_batches_tracked, which the model does not keep"]


def _without_other_head(given: dict[str, Tensor], model: nn.Module, ignore: Collection[str]) -> Fit:
    """Leave out another kind of classifier where the model's will be replaced anyway."""
    if not ignore:
        return given, []
    wanted = model.state_dict()
    layers = tuple(f"{layer}." for layer in classifier_layers(model))
    surplus = [key for key in given if key not in wanted and key.startswith(layers)]
    kept = {key: value for key, value in given.items() if key not in set(surplus)}
    return kept, [f"left out the classifier of another kind: {listed(surplus)}"] if surplus else []


def is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == "num_batches_tracked"
