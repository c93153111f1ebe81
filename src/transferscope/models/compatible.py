"""Check whether weights fit a model, and explain where they do not."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.models.fit_to_model import AUXILIARY, WITH_AUXILIARY, fit_to_model, is_counter
from transferscope.models.layers import classifier_layers
from transferscope.models.zoo import tried_network
from transferscope.system.errors import UserError

MAX_LISTED = 10


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
    missing = [key for key in wanted if key not in given and not is_counter(key)]
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


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights that fit; some layers of torchvision load only what says its version, as the model's own does."""
    versioned = OrderedDict(state_dict)
    versioned._metadata = getattr(model.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    model.load_state_dict(versioned)


def classifier_keys(model: nn.Module) -> frozenset[str]:
    """Keys of the weights and biases of the layers that classify."""
    layers = classifier_layers(model)
    return frozenset(f"{layer}.{name}" for layer in layers for name in model.get_submodule(layer).state_dict())


NO_CLASSIFIER = "weights without a classifier can start a run (pretrained), or give the number of classes"
"""The usual remedy where weights lack the classifier of their network."""


def infer_num_classes(
    state_dict: Mapping[str, Tensor],
    architecture: str,
    options: Mapping[str, Any],
    *,
    source: str = "checkpoint",
    remedy: str = NO_CLASSIFIER,
) -> int:
    """Number of classes of weights of a known architecture: the length of its classifier's weight.

    remedy: Named in the UserError for weights without one.
    """
    model = tried_network(architecture, options)
    key = f"{classifier_layers(model)[0]}.weight"
    fitted, _ = fit_to_model(state_dict, model, ignore=classifier_keys(model))
    if key not in fitted or fitted[key].ndim == 0:
        why = _stored_otherwise(state_dict) or remedy
        raise UserError(f"{source} has no tensor {key}, the classifier of {architecture}: {why}")
    return fitted[key].shape[0]


def _auxiliary_hint(model: nn.Module, missing: Sequence[str]) -> str:
    if type(model).__name__ in WITH_AUXILIARY and any(key.startswith(AUXILIARY) for key in missing):
        return "model.options.aux_logits: false builds the model without auxiliary classifiers"
    return ""


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
