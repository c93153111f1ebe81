"""Find the weights in what a training script saved, and drop what wrappers put before their names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transferscope.models.file_kind import Kind
from transferscope.models.pickle_data import Name, Opaque
from transferscope.models.torch_file import ArrayRef, TensorRef, open_torch_file
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
WRAPPERS = [
    "module",
    "model",
    "net",
    "network",
    "backbone",
    "encoder",
    "student",
    "ema",
    "ema_model",
    "averaged_model",
    "base_model",
    "base_encoder",
    "encoder_q",
    "online_encoder",
    "online_model",
    "wrapped_model",
    "inner_model",
    "feature_extractor",
    "classifier_model",
]
"""First parts of names that belong to what holds the network: DataParallel, Lightning, averages, self-supervision."""
BY_OPTION = "the option weights"
"""In messages, how one chooses among several sets of weights."""

_INSERTED = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_COUNTERS = frozenset(["n_averaged", "total_ops", "total_params", "num_updates", "initted", "_extra_state"])
_MAX_DEPTH = 6

Refs = dict[str, TensorRef | ArrayRef]
Content = dict[Any, Any]


def is_averaged(name: str) -> bool:
    """True if a key or prefix speaks of averaged weights (`model_ema`, `teacher.`)."""
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
    """State dict of a pickle, what the file says of itself (`epoch`, `extra`), and sentences about what was chosen.

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


_STATISTICS = ("running_mean", "running_var")
_LEARNED = ("weight", "bias")


def is_statistic(name: str) -> bool:
    """True if a tensor holds statistics of BatchNorm, by its name."""
    return name.endswith(_STATISTICS)


def check_values(state_dict: Mapping[str, Tensor], *, where: str) -> None:
    """Raise a UserError, which begins with `where`, for weights, biases or statistics that no network computes with.

    These are values that are infinite or not a number, negative variances, and tensors without any value. Other
    tensors, such as masks, may hold infinities.
    """
    for key, tensor in state_dict.items():
        if not (key.endswith(_LEARNED + _STATISTICS) and tensor.is_floating_point()):
            continue
        if tensor.numel() == 0:
            raise UserError(
                f"{where}: {key!r} is empty, shape {tuple(tensor.shape)}, as DeepSpeed ZeRO-3 leaves what lies on "
                "several devices: put the weights together by its zero_to_fp32.py and give that file"
            )
        if tensor.is_meta:
            continue
        tensor = tensor.float() if tensor.itemsize == 1 else tensor  # torch compares no float8
        finite = torch.isfinite(tensor)
        if not bool(finite.all()):
            wrong, what = int((~finite).sum()), "infinite or not a number"
        elif key.endswith("running_var") and bool((tensor < 0).any()):
            wrong, what = int((tensor < 0).sum()), "negative, which no variance is"
        else:
            continue
        raise UserError(
            f"{where}: {wrong:,} of {tensor.numel():,} values of {key!r} are {what}: the training has diverged or the "
            "file is damaged; give another epoch or copy it again"
        )


class ComputedState(Mapping[str, Tensor]):
    """A mapping of names to what `compute` gives for them, so that many networks take the memory of a tensor each."""

    def __init__(self, keys: Iterable[str], compute: Callable[[str], Tensor]) -> None:
        self._keys, self._compute = dict.fromkeys(keys), compute

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return self._compute(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def without(state: Mapping[str, Tensor], keys: Collection[str]) -> ComputedState:
    """A state without some of its tensors, which are not read for that."""
    return ComputedState([key for key in state if key not in keys], state.__getitem__)


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes; independent of device, memory format and order of the keys."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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


def rename(names: list[str], prefix: str | None, *, where: str) -> tuple[dict[str, str], list[str]]:
    """Each name that stays -> the name in the network, and sentences that say what was removed."""
    if prefix is None:
        return strip_wrappers(names)
    prefix = prefix if prefix.endswith(".") or not prefix else prefix + "."
    if any(name.startswith(prefix) for name in names):
        return _below(names, prefix)
    stripped, notes = strip_wrappers(names)
    if not any(name.startswith(prefix) for name in stripped.values()):
        firsts = dict.fromkeys(name.partition(".")[0] + "." for name in names)
        raise UserError(f"{where} has no tensor whose name begins with {prefix!r}; names begin with {listed(firsts)}")
    back = {new: old for old, new in stripped.items()}
    renamed, more = _below(list(back), prefix)
    return {back[new]: name for new, name in renamed.items()}, [*notes, *more]


def _below(names: list[str], prefix: str) -> tuple[dict[str, str], list[str]]:
    renamed = {name: name.removeprefix(prefix) for name in names if name.startswith(prefix) and name != prefix}
    left = [name for name in names if name not in renamed]
    return renamed, [f"left out {len(left)} tensors without the prefix {prefix!r}: {listed(left)}"] if left else []


def strip_wrappers(names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Each name that stays -> the name in the network, and sentences that say what was removed.

    Counters of averages and profilers go; what torch.compile and FSDP insert goes wherever it stands; the first parts
    in `WRAPPERS` go, again and again, where every name has them.
    """
    counters = [name for name in names if name.rpartition(".")[2] in _COUNTERS]
    kept = names if len(counters) == len(names) else [name for name in names if name not in set(counters)]
    renamed = {name: _without_inserted(name) for name in kept}
    if len(set(renamed.values())) < len(kept):
        renamed = {name: name for name in kept}
    prefix = ""
    while renamed:
        first = next(iter(renamed.values())).partition(".")[0] + "."
        if first[:-1] not in WRAPPERS or not all(name.startswith(first) for name in renamed.values()):
            break
        if any(name == first for name in renamed.values()):
            break
        prefix += first
        renamed = {old: new.removeprefix(first) for old, new in renamed.items()}
    notes = []
    if any(_without_inserted(name) != name for name in kept):
        notes.append("removed what torch.compile or FSDP inserted into the names")
    if prefix:
        notes.append(f"removed the prefix {prefix!r} from all names")
    if len(kept) < len(names):
        notes.append(f"left out counters, which are no weights: {listed(counters)}")
    return renamed, notes


def _without_inserted(name: str) -> str:
    while True:
        shorter = _INSERTED.sub(r"\1", name)
        if shorter == name:
            return name
        name = shorter


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


def listed(names: Any, limit: int = 5) -> str:
    """The first names, without escape codes, and how many more there are."""
    shown = [_printable(str(name)) for name in list(names)[:limit]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:80]


def widened(tensor: Tensor) -> Tensor:
    """A floating-point tensor in float32 at least, which holds every value of 16 and 8 bits exactly.

    torch promotes no float8.
    """
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
