"""Drop what wrappers put before the names of a network's tensors."""

from __future__ import annotations

import re

from transferscope.models.state_dicts import listed
from transferscope.system.errors import UserError

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

_INSERTED = re.compile(r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_COUNTERS = frozenset(["n_averaged", "total_ops", "total_params", "num_updates", "initted", "_extra_state"])


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
