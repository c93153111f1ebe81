"""Find the weights in what a training script saved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from transferscope.models.file_kind import Kind
from transferscope.models.pickle_data import Name, Opaque
from transferscope.models.pickled_tensors import ArrayRef, TensorRef
from transferscope.models.state_dicts import check_values, is_statistic, listed
from transferscope.models.torch_file import open_torch_file
from transferscope.system.errors import UserError
from transferscope.system.near import near_matches

USUAL = [
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "modelstate",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "model_weights",
    "net_state_dict",
    "network_state_dict",
    "params_state_dict",
    "student",
]
"""Keys under which scripts save the weights, the first one wins."""
_AVERAGED = re.compile(r"(^|[_.\-])(ema|averaged?|swa|shadow|teacher|target|polyak|slow)([_.\-]|$)|ema$", re.IGNORECASE)
_OTHER = re.compile(
    r"optim|sched|scaler|sampler|criterion|loss|metric|rng|random|callback|loops|hyper|args|config|history|buffer",
    re.IGNORECASE,
)

BY_OPTION = "the option weights"
"""In messages, how one chooses among several sets of weights."""

_MAX_DEPTH = 6

Refs = dict[str, TensorRef | ArrayRef]
Content = dict[Any, Any]


def is_averaged(name: str) -> bool:
    """True if a key or prefix names averaged weights (`model_ema`, `teacher.`)."""
    return _AVERAGED.search(name) is not None


def find_state_dicts(content: Any) -> dict[str, Content]:
    """Each mapping of names to tensors in `content`, by the keys that lead to it (`""`, `model`, `ema.state_dict`).

    Beside mappings with names of modules (`fc.weight`), others of tensors (`mean`, `std`) do not count.
    """
    by_path = dict(_by_path(content, "", set()))
    modules = {path: value for path, value in by_path.items() if any("." in str(name) for name in value)}
    return modules or by_path


def _by_path(content: Any, path: str, seen: set[int], depth: int = 0) -> Iterator[tuple[str, Content]]:
    content = content.mapping if isinstance(content, Opaque) else content
    if isinstance(content, (list, tuple)):
        content = dict(enumerate(content[:16])) if any(_is_mapping(item) for item in content[:16]) else {}
    if not isinstance(content, dict) or id(content) in seen or depth > _MAX_DEPTH:
        return
    seen.add(id(content))
    if _is_state_dict(content):
        yield path, content
        return
    if _is_optimizer(content):
        return
    below: dict[str, Content] = {}
    for key, value in content.items():
        if isinstance(key, (str, int)) and not (isinstance(key, str) and _OTHER.search(key)):
            below |= _by_path(value, f"{path}.{key}".lstrip("."), seen, depth + 1)
    # Weights that lie among other entries, as in {**state_dict, "optimizer": ...}, where only averages compete.
    plain = {key: value for key, value in content.items() if not _is_mapping(value)}
    copies = all(is_averaged(other) and len(value) <= len(plain) for other, value in below.items())
    if copies and any("." in str(key) for key in plain) and _is_state_dict(plain):
        yield path, content
    yield from below.items()


def _is_optimizer(content: Any) -> bool:
    """The state of an optimizer of torch."""
    return isinstance(content, dict) and {"state", "param_groups"} <= content.keys()


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, Opaque) and bool(value.mapping))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, TensorRef) or (isinstance(value, ArrayRef) and value.is_numeric)


def _is_state_dict(content: dict[Any, Any]) -> bool:
    """Names and tensors; a few plain values may stand between them, but no mapping that has tensors of its own."""
    tensors = sum(_is_tensor(value) for value in content.values())
    if tensors == len(content):
        return tensors > 0
    nested = any(_is_mapping(value) and not str(key).endswith("_extra_state") for key, value in content.items())
    return not nested and tensors > len(content) / 2 and any("." in str(key) for key in content)


def read_torch_file(
    path: Path, kind: Kind | None, *, weights: str | None = None, values: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """State dict of a pickle, the file's own description (`epoch`, `extra`), and sentences about what was chosen.

    Raises UserError, naming the file, where it is cut off, needs code, or holds no state dict.
    """
    with open_torch_file(path, kind) as file:
        refs, notes = choose_state_dict(file.content, weights, where=f"checkpoint {path}")
        if file.set_aside:
            notes.append(f"left out objects of classes that are not read: {listed(file.set_aside)}")
        tensors = file.tensors(refs, values=values)
        statistics = {} if values else {key: ref for key, ref in refs.items() if is_statistic(key)}
        check_values(tensors | file.tensors(statistics), where=f"checkpoint {path}")
        return tensors, _about(file.content), notes


def _about(content: Any) -> dict[str, Any]:
    about: dict[str, Any] = {}
    content = content if isinstance(content, dict) else {}
    if type(content.get("epoch")) is int and 0 <= content["epoch"] < 2**31:
        about["epoch"] = content["epoch"]
    if isinstance(content.get("arch"), str):
        # A hint only: `resnet50` means one thing in torchvision, another in timm, a third in a script of one's own.
        about["extra"] = {"arch": content["arch"][:200]}
    return about


def choose_state_dict(content: Any, weights: str | None, *, where: str) -> tuple[Refs, list[str]]:
    """The state dict under `weights`, or else under the first of the usual keys, and sentences that say so.

    Raises UserError, which begins with `where`, if there is none, or no telling which of several.
    """
    by_path = find_state_dicts(content)
    if not by_path and (whole := _whole_model(content)) is not None:
        raise UserError(
            f"{where} holds a whole model of the class {whole}, which needs code that is not run: "
            "save only model.state_dict()"
        )
    if not by_path and isinstance(content, dict) and any("_packed_params" in str(key) for key in content):
        raise UserError(f"{where} holds a quantised network: give the file of the float network that it was made from")
    if not by_path and _is_optimizer(content):
        raise UserError(f"{where} holds the state of an optimizer, and no weights: give the file of model.state_dict()")
    if not by_path:
        raise UserError(f"{where} holds no state_dict ({describe(content)}): save model.state_dict() in it")
    path = _named(by_path, weights, where) if weights is not None else _usual(by_path, where)
    others = [other for other in by_path if other != path]
    notes = [f"took the weights under {path!r}; {BY_OPTION} takes others: {listed(others)}"] if others else []
    if not others and is_averaged(path):
        notes = [f"took the averaged weights under {path!r}, for there are no others"]
    refs = {key: value for key, value in by_path[path].items() if _is_tensor(value)}
    plain = [key for key in by_path[path] if key not in refs]
    if plain:
        notes.append(f"left out values that are no tensors: {listed(plain)}")
    wrong = [key for key in refs if not isinstance(key, str)]
    if wrong:
        raise UserError(
            f"{where} has keys that are no names ({type(wrong[0]).__name__}: {str(wrong[0])[:40]!r}): "
            "save model.state_dict()"
        )
    return refs, notes


def _named(by_path: Mapping[str, Content], weights: str, where: str) -> str:
    inside = [path for path in by_path if path == weights or path.startswith(f"{weights}.")]
    if not inside:
        known = listed(by_path) if any(by_path) else "none under a key"
        raise UserError(f"{where} has no weights under {weights!r}{near_matches(weights, by_path, 3)}; it has {known}")
    return _usual({path: by_path[path] for path in inside}, where)


def _usual(by_path: Mapping[str, Content], where: str) -> str:
    if len(by_path) == 1:
        return next(iter(by_path))
    plain = [path for path in by_path if not is_averaged(path)] or list(by_path)
    for key in USUAL:
        for path in plain:
            if key in path.split("."):
                return path
    if len(plain) == 1:
        return plain[0]
    raise UserError(f"{where} holds weights under {listed(plain)}: choose by {BY_OPTION}")


def describe(content: Any) -> str:
    """The content of a file in a few words: its keys, or its type."""
    if isinstance(content, Opaque):
        return f"it is a {content.type}"
    if isinstance(content, dict):
        return "its keys are " + listed(content, 8) if content else "it is empty"
    if isinstance(content, Name):
        return f"it is the class or function {content.path}, without values"
    own = {"TensorRef": "a tensor", "ArrayRef": "an array of NumPy", "StorageRef": "a storage", "int": "a whole number"}
    name = type(content).__name__
    return f"it is {own.get(name, f'a {name}')}"


def _whole_model(content: Any) -> str | None:
    candidates = [content, *(list(content.values())[:100] if isinstance(content, dict) else ())]
    for value in candidates:
        if isinstance(value, Opaque) and isinstance(value.state, dict) and "_modules" in value.state:
            return value.type
    return None
