"""Recognise the architecture of weights by the names and shapes of their tensors.

`known_networks` compares the weights with every architecture that `build_model` knows. Weights alone do not decide
everything: two networks may have the same tensors and compute different things from them, as those of timm with another
padding. Such candidates are tried on one image, and the difference is reported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from transferscope.models.checkpoint import Checkpoint
from transferscope.models.hub_cache import local_path
from transferscope.models.image_input import fixed_side, own_side
from transferscope.models.known_networks import Candidate, candidates, nearest, providers_asked, same_tensors
from transferscope.models.layers import classifier_layers, image_channels
from transferscope.models.zoo import build_model, names_of
from transferscope.system.errors import UserError

_TRIED_SIDE = 224
_NEAREST = 3
_NEAR = 0.1
"""Share of tensors from which on an architecture is worth a word."""


@dataclass(frozen=True)
class Recognition:
    """The architecture of some weights, with the facts that follow from their tensors."""

    name: str
    """Name for `build_model`."""
    num_classes: int
    in_channels: int
    """Channels of the images."""
    image_side: int | None
    """Side in pixels of the only images that the network takes; None where it takes others, too."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options for `build_model`."""
    runners_up: tuple[str, ...] = ()
    """Architectures that come next, the nearest first, each with the way in which it differs."""
    rivals: tuple[str, ...] = ()
    """Networks of timm with the same tensors that compute other things from them than this one of torchvision."""
    evidence: str = ""
    """A sentence that says why it is this architecture, which rivals it has, and which library was not searched."""


def recognize(states: Sequence[Mapping[str, Tensor]], *, hints: Sequence[str] = ()) -> Recognition:
    """The architecture that some weights belong to, all of the same one.

    The project's own family goes first, then torchvision, then timm (where it is installed); the next is asked only
    where those before have no network with these tensors. Of a network of torchvision, timm is asked as well, because
    it has some with the same tensors that compute other things (`resnetblur50` beside `resnet50`): one that a hint
    names is taken, and without a hint that of torchvision, with the others as `rivals`. Prefixes, counters and names of
    older versions are allowed for, as in `Checkpoint.fitted`. The number of classes is the size of the classifier.

    Args:
        states: state_dicts; names, shapes and dtypes are read, no values, so they may be on the device meta.
        hints: Names of architectures that files give of themselves. They decide between networks that compute
            different things from the same tensors, and nothing else.

    Raises:
        UserError: If no network fits (with the nearest), if several fit that compute different things, and if the
            weights are of different architectures or numbers of classes.
    """
    if not states:
        raise UserError("no weights are given: give one state_dict at least")
    recognitions = [_recognize(signature, tuple(hints)) for signature in dict.fromkeys(map(_signature, states))]
    for other in recognitions[1:]:
        first = recognitions[0]
        if (other.name, other.options) != (first.name, first.options):
            raise UserError(f"the weights are of different architectures, {first.name} and {other.name}")
        if other.num_classes != first.num_classes:
            raise UserError(f"classifiers of {first.name} for {first.num_classes} and {other.num_classes} classes")
    return recognitions[0]


def hints_of(checkpoint: Checkpoint, path: str = "") -> list[str]:
    """Architectures that a file names itself: a key `arch` beside the weights, or a config.json in its folder.

    path: of the file or folder, or a name of the hub; empty for weights that come from no file.
    """
    arch = checkpoint.metadata.extra.get("arch")
    hints = [arch] if isinstance(arch, str) else []
    config = local_path(path) / "config.json"
    try:
        named = json.loads(config.read_bytes())["architecture"] if path and config.is_file() else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return hints
    return [*hints, named] if isinstance(named, str) else hints


Signature = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]


def _signature(state: Mapping[str, Tensor]) -> Signature:
    return tuple((key, tuple(tensor.shape), tensor.dtype) for key, tensor in state.items())


@lru_cache(maxsize=16)
def _recognize(signature: Signature, hints: tuple[str, ...]) -> Recognition:
    """The architecture of one file; files of one network are recognised once."""
    shapes = {key: torch.empty(shape, dtype=dtype, device="meta") for key, shape, dtype in signature}
    built: list[Candidate] = []
    for provider, options in providers_asked(shapes):
        built += candidates(provider, options, shapes)
        fitting = [candidate for candidate in built if candidate.fits]
        if fitting:
            beside = same_tensors(shapes) if provider == "torchvision" else []
            return _chosen(fitting, beside, built, provider, hints)
    raise UserError(f"no network that is known here has these {len(shapes)} tensors{nearest(shapes, built)}; {_HINT}")


_NAMING = "--model; model= in Python"
_HINT = "name the architecture, or a function that makes it (--model file.py:function; model= in Python)"


def _chosen(
    fitting: Sequence[Candidate],
    beside: Sequence[Candidate],
    built: Sequence[Candidate],
    provider: str,
    hints: Sequence[str],
) -> Recognition:
    """The network of a provider, or of those beside it in timm the one that a hint names."""
    groups = _by_function([*fitting, *beside])
    named = [group for group in groups if any(_bare(one.name) in map(_bare, hints) for one in group)]
    own = named if len(named) == 1 else [group for group in groups if group[0] in fitting]
    if len(own) > 1:
        names = [group[0].name for group in own]
        raise UserError(
            f"the weights fit {', '.join(names[:-1])} and {names[-1]}, which compute different things from them: "
            f"name the one that it is ({_NAMING})"
        )
    group = own[0]
    best = group[0]
    others = [f"{one.name} (the same function)" for one in group[1:] if one not in beside]
    others += [f"{one.name} (other function)" for one in fitting if one not in group]
    near = sorted((one for one in built if _NEAR <= one.share < 1), key=lambda one: -one.share)
    others += [f"{one.name} ({one.share:.0%} of the tensors)" for one in near]
    is_named = len(groups) > 1 and len(named) == 1
    rivals = () if is_named else tuple(one.name for one in beside if one not in group)
    return Recognition(
        name=best.name,
        num_classes=_num_classes(best),
        in_channels=image_channels(best.model),
        image_side=fixed_side(best.model),
        options=best.options,
        runners_up=tuple(others[:_NEAREST]),
        rivals=rivals,
        evidence=_evidence(best, "timm" if best in beside else provider, provider, rivals, is_named=is_named),
    )


def _evidence(best: Candidate, owner: str, provider: str, rivals: Sequence[str], *, is_named: bool) -> str:
    """A sentence that says why it is this architecture; owner: its provider, provider: the one that was asked."""
    where = {"transferscope": "the Fixup family"}.get(owner, owner)
    count = len(best.model.state_dict())
    evidence = f"all {count} tensors have the names and shapes of {best.name} of {where}"
    evidence += ", and the file names it" if is_named else ""
    if rivals:
        evidence += (
            f"; {' and '.join(rivals)} of timm {'has' if len(rivals) == 1 else 'have'} the same tensors and compute"
            f"{'s' if len(rivals) == 1 else ''} other things: name the network if it is another one ({_NAMING})"
        )
    if provider == "torchvision" and not names_of("timm"):
        evidence += "; timm, which is not installed, was not searched for networks with the same tensors"
    return evidence


def _bare(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def _num_classes(candidate: Candidate) -> int:
    key = f"{classifier_layers(candidate.model)[0]}.weight"
    if key not in candidate.fitted:
        raise UserError(
            f"the weights are those of {candidate.name} without its classifier {key}: give a file that has one"
        )
    return candidate.fitted[key].shape[0]


def _by_function(fitting: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates that compute the same thing from the same weights, tried on one image of noise."""
    groups: list[tuple[Tensor | None, list[Candidate]]] = []
    for candidate in fitting:
        output = _output(candidate) if len(fitting) > 1 else None
        for known, group in groups:
            if known is not None and output is not None and torch.allclose(known, output, rtol=1e-3, atol=1e-4):
                group.append(candidate)
                break
        else:
            groups.append((output, [candidate]))
    return [group for _, group in groups]


@torch.no_grad()
def _output(candidate: Candidate) -> Tensor | None:
    """Scaled logits of the network with weights that follow from their names; None where it does not run."""
    model = build_model(candidate.name, 7, seed=0, **candidate.options).eval()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in sorted(model.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            tensor.copy_(noise / max(tensor[0].numel(), 1) ** 0.5)
        else:
            tensor.copy_(0.1 * noise + (0.0 if key.endswith(("bias", "mean")) else 1.0))
            if key.endswith("var"):
                tensor.abs_()
    side = own_side(model) or _TRIED_SIDE
    image = torch.randn(1, image_channels(candidate.model), side, side, generator=generator)
    try:
        logits = model(image)
    except Exception:  # a network of a package may raise anything
        return None
    scale = logits.abs().max()
    return logits / scale if bool(torch.isfinite(scale)) and float(scale) > 0 else None
