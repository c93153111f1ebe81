"""Check whether weights fit a model, and explain where they do not."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.models.duplicate import duplicate
from transferscope.models.layers import classifier_layers
from transferscope.models.state_dicts import WRAPPERS, is_averaged, listed
from transferscope.models.zoo import tried_network
from transferscope.system.errors import UserError

MAX_LISTED = 10
_WITH_AUXILIARY = ("GoogLeNet", "Inception3")
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""torchvision's first DenseNets called their layers `norm.1` instead of `norm1`."""


def check_compatible(
    state_dict: Mapping[str, Tensor],
    model: nn.Module,
    *,
    source: str = "checkpoint",
    expected: str | None = None,
    ignore: Collection[str] = (),
) -> None:
    """Raise UserError unless the weights have the names and shapes of the model's; keys in `ignore` do not count.

    Numbers may be of any precision, but integers do not stand for weights, nor complex numbers for real ones. The
    counters `num_batches_tracked` may be missing, as in files of old torch. The error names `source`, the model as
    `expected`, and the tensors that are missing, unexpected, of another shape or of another kind; where only the
    classifier differs it names the two numbers of classes.
    """
    wanted = {key: value for key, value in model.state_dict().items() if key not in ignore}
    given = {key: value for key, value in state_dict.items() if key not in ignore}
    missing = [key for key in wanted if key not in given and not _is_counter(key)]
    unexpected = [key for key in given if key not in wanted]
    both = [key for key in wanted if key in given]
    misshapen = [key for key in both if wanted[key].shape != given[key].shape]
    other_kind = [key for key in both if not _may_stand_for(given[key].dtype, wanted[key].dtype)]
    if not (missing or unexpected or misshapen or other_kind):
        return
    other_classes = _other_number_of_classes(given, wanted, classifier_keys(model), missing + unexpected + misshapen)
    details = [
        other_classes,
        _listed("missing", missing, str),
        _listed("unexpected", unexpected, str),
        _listed("of another shape", misshapen, lambda k: f"{k} ({_shape(given[k])} for {_shape(wanted[k])})"),
        _listed("of another kind", other_kind, lambda k: f"{k} ({_dtype(given[k])} for {_dtype(wanted[k])})"),
        _auxiliary_hint(model, missing),
        _stored_otherwise(unexpected),
    ]
    model_name = expected or type(model).__name__
    raise UserError(f"{source} does not fit {model_name}: " + "; ".join(detail for detail in details if detail))


_FORMS = (
    (
        re.compile(r"(^|\.)(lora_[ABE]|lora_embedding_[AB]|ia3_l|hada_w\d_[ab]|modules_to_save|base_layer)(\.|_|$)"),
        "it holds adapters (LoRA): merge them into the network, as PEFT's merge_and_unload does, and save that",
    ),
    (
        re.compile(r"\.parametrizations\."),
        "it is parametrised: call parametrize.remove_parametrizations and save again",
    ),
    (re.compile(r"\.weight_[gv]$"), "it has weight_norm: call torch.nn.utils.remove_weight_norm and save again"),
    (re.compile(r"\.(weight|bias)_(orig|mask)$"), "it is pruned: call torch.nn.utils.prune.remove and save again"),
    (
        re.compile(r"_packed_params|zero_point$|activation_post_process|fake_quant|qweight|quant_map|\.SCB$"),
        "it is quantised, or prepared for it: give the file of the float network",
    ),
    (
        re.compile(r"flat_param"),
        "it is FSDP's flat form: save it with a full state_dict (StateDictType.FULL_STATE_DICT)",
    ),
)
"""Names of tensors by which files are known that hold a network in another form, and what to do."""


def _stored_otherwise(names: Collection[str]) -> str:
    """The form in which a file holds its network, if it is none of plain weights, and how to get those."""
    return next((what for pattern, what in _FORMS if any(map(pattern.search, names))), "")


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
    absent = [key for key in needed if key not in fitted and _is_counter(key)]
    if absent and all(key in fitted or _is_counter(key) for key in needed):
        notes.append(f"set {len(absent)} counters num_batches_tracked, which the file lacks, to 0")
        fitted |= {key: _zero(wanted[key], fitted) for key in absent}
    ordered = {key: fitted[key] for key in wanted if key in fitted}
    return ordered | {key: value for key, value in fitted.items() if key not in ordered}, notes


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights that fit; some layers of torchvision load only what says its version, as the model's own does."""
    versioned = OrderedDict(state_dict)
    versioned._metadata = getattr(model.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    model.load_state_dict(versioned)


def classifier_keys(model: nn.Module) -> frozenset[str]:
    """Keys of the weights and biases of the layers that classify."""
    layers = classifier_layers(model)
    return frozenset(f"{layer}.{name}" for layer in layers for name in model.get_submodule(layer).state_dict())


def infer_num_classes(
    state_dict: Mapping[str, Tensor], architecture: str, options: Mapping[str, Any], *, source: str = "checkpoint"
) -> int:
    """Number of classes of weights of a known architecture: the length of its classifier's weight."""
    model = tried_network(architecture, options)
    key = f"{classifier_layers(model)[0]}.weight"
    fitted, _ = fit_to_model(state_dict, model, ignore=classifier_keys(model))
    if key not in fitted or fitted[key].ndim == 0:
        why = _stored_otherwise(state_dict) or (
            "weights without a classifier can start a run (pretrained), or give the number of classes"
        )
        raise UserError(f"{source} has no tensor {key}, the classifier of {architecture}: {why}")
    return fitted[key].shape[0]


Fit = tuple[dict[str, Tensor], list[str]]


def _with_the_models_names(given: dict[str, Tensor], needed: Sequence[str], wanted: Collection[str]) -> Fit:
    """Drop the prefix below which most of the needed names are found, or put one before all names."""
    needed = [key for key in needed if not _is_counter(key)]
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
    if not strange or all(key in given or key in ignore or _is_counter(key) for key in wanted):
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
        if _is_counter(key):
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
    surplus = [key for key in given if key not in wanted and key.startswith(_AUXILIARY)]
    if type(model).__name__ not in _WITH_AUXILIARY or not surplus:
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
        if _is_counter(key) and key in wanted and value.shape != wanted[key].shape and value.numel() == 1
    ]


def _without_surplus_counters(given: dict[str, Tensor], model: nn.Module, ignore: Collection[str]) -> Fit:
    wanted = model.state_dict()
    surplus = {key for key in given if key not in wanted and _is_counter(key)}
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


def _auxiliary_hint(model: nn.Module, missing: Sequence[str]) -> str:
    if type(model).__name__ in _WITH_AUXILIARY and any(key.startswith(_AUXILIARY) for key in missing):
        return "model.options.aux_logits: false builds the model without auxiliary classifiers"
    return ""


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == "num_batches_tracked"


def _may_stand_for(given: torch.dtype, wanted: torch.dtype) -> bool:
    if given.is_complex or wanted.is_complex:
        return given.is_complex and wanted.is_complex
    return given.is_floating_point or not wanted.is_floating_point


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _other_number_of_classes(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], classifier: frozenset[str], wrong: Sequence[str]
) -> str:
    if not classifier.issuperset(wrong):
        return ""
    for key in wrong:
        if key in given and key in wanted and given[key].shape[1:] == wanted[key].shape[1:]:
            return f"its classifier has {given[key].shape[0]} classes, {wanted[key].shape[0]} are expected"
    return ""


def _listed(what: str, keys: Sequence[str], describe: Callable[[str], str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - MAX_LISTED} more" if len(keys) > MAX_LISTED else ""
    return f"{what}: {', '.join(describe(key) for key in keys[:MAX_LISTED])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
