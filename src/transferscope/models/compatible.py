"""Whether weights fit a model, and what to tell the user where they do not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from transferscope.models.layers import classifier_layers
from transferscope.models.zoo import build_model
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

    The error names `source`, the model as `expected`, and the tensors that are missing, unexpected or of another
    shape; where only the classifier differs it names the two numbers of classes.
    """
    wanted = {key: value for key, value in model.state_dict().items() if key not in ignore}
    given = {key: value for key, value in state_dict.items() if key not in ignore}
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    misshapen = [key for key in wanted if key in given and wanted[key].shape != given[key].shape]
    if not (missing or unexpected or misshapen):
        return
    other_classes = _other_number_of_classes(given, wanted, classifier_keys(model), missing + unexpected + misshapen)
    details = [
        other_classes,
        _listed("missing", missing, str),
        _listed("unexpected", unexpected, str),
        _listed("of another shape", misshapen, lambda k: f"{k} ({_shape(given[k])} for {_shape(wanted[k])})"),
    ]
    model_name = expected or type(model).__name__
    raise UserError(f"{source} does not fit {model_name}: " + "; ".join(detail for detail in details if detail))


def classifier_keys(model: nn.Module) -> frozenset[str]:
    """Keys of the weights and biases of the layers that classify."""
    layers = classifier_layers(model)
    return frozenset(f"{layer}.{name}" for layer in layers for name in model.get_submodule(layer).state_dict())


def infer_num_classes(
    state_dict: Mapping[str, Tensor], architecture: str, options: Mapping[str, Any], *, source: str = "checkpoint"
) -> int:
    """Number of classes of weights of a known architecture: the length of its classifier's weight."""
    key = f"{classifier_layers(build_model(architecture, 2, seed=0, **options))[0]}.weight"
    if key not in state_dict:
        raise UserError(f"{source} has no tensor {key}, the classifier of {architecture}: give its number of classes")
    return state_dict[key].shape[0]


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
