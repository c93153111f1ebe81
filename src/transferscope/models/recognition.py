"""Recognise the architecture of weights by the names and shapes of their tensors.

Every architecture that `build_model` knows is built on the device meta, parameter by parameter, and given up at the
first one whose shape the weights lack. So a thousand candidates take seconds, and those that are left are compared in
full. Weights alone do not decide everything: two networks may have the same tensors and compute different things from
them, as those of timm with another padding. Such candidates are tried on one image, and the difference is reported.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from transferscope.models.checkpoint import Checkpoint
from transferscope.models.compatible import classifier_keys
from transferscope.models.fit_to_model import fit_to_model
from transferscope.models.hub_cache import local_path
from transferscope.models.image_input import fixed_side, is_position, own_side
from transferscope.models.layers import classifier_layers, image_channels
from transferscope.models.zoo import PROVIDERS, build_model, build_skeleton, names_of
from transferscope.system.errors import UserError

_CLASSES = 509
"""Classes of candidates; a prime, so that hardly any other size is equal to it."""
_IN_CHANNELS = "in_chans"
"""Option of timm's networks for images of other than 3 channels."""
_SIDES = ("image_size", "img_size")
"""Options of vision transformers for the side of images, by which they have a position for each patch."""
_TRIED_SIDE = 224
_ONLY_TRIED = 8
"""Parameters of other shapes that a network may make while it is built: timm makes some layers only to try them."""
_NEAREST = 3
_NEAR = 0.1
"""Share of tensors from which on an architecture is worth a word."""

Shapes = Mapping[str, Tensor]


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


@dataclass(frozen=True)
class _Candidate:
    """An architecture that has been built as a whole."""

    name: str
    options: dict[str, Any]
    model: nn.Module
    share: float
    """Tensors of the network, less its classifier, that the weights have under its names and in its shapes."""
    fitted: Mapping[str, Tensor]

    @property
    def fits(self) -> bool:
        return self.share == 1.0


@lru_cache(maxsize=16)
def _recognize(signature: Signature, hints: tuple[str, ...]) -> Recognition:
    """The architecture of one file; files of one network are recognised once."""
    shapes = {key: torch.empty(shape, dtype=dtype, device="meta") for key, shape, dtype in signature}
    built: list[_Candidate] = []
    for provider, options in _asked(shapes):
        built += _candidates(provider, options, shapes)
        fitting = [candidate for candidate in built if candidate.fits]
        if fitting:
            beside = _same_tensors(shapes) if provider == "torchvision" else []
            return _chosen(fitting, beside, built, provider, hints)
    raise UserError(f"no network that is known here has these {len(shapes)} tensors{_nearest(shapes, built)}; {_HINT}")


_NAMING = "--model; model= in Python"
_HINT = "name the architecture, or a function that makes it (--model file.py:function; model= in Python)"


def _asked(shapes: Shapes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Providers in their order; timm's networks also for images of 1 channel, where no convolution takes 3."""
    yield from ((provider, {}) for provider in PROVIDERS)
    inputs = {tensor.shape[1] for tensor in shapes.values() if tensor.ndim == 4}
    if 1 in inputs and 3 not in inputs:
        yield "timm", {_IN_CHANNELS: 1}


def _candidates(provider: str, options: dict[str, Any], shapes: Shapes) -> Iterator[_Candidate]:
    """The architectures of a provider all of whose parameters have shapes that occur in the weights."""
    wanted, most = _wanted(shapes)
    for name in names_of(provider):
        with _only_with(wanted, most):
            model = _built(name, options)
        if model is not None:
            candidate = _compared(name, options, model, shapes)
            yield candidate if candidate.fits else _resized(candidate, shapes) or candidate


def _same_tensors(shapes: Shapes) -> list[_Candidate]:
    """The networks of timm with exactly the tensors of the weights, classifier aside.

    A candidate is given up at its first parameter that the weights lack, which takes a second for all. So one that
    makes layers only to try them, as some of timm do, is not among them.
    """
    wanted, most = _wanted(shapes)
    candidates = []
    for name in names_of("timm"):
        with _only_with(wanted, most, foreign=0, each_once=True):
            model = _built(name, {})
        if model is not None:
            candidates.append(_compared(name, {}, model, shapes))
    return [candidate for candidate in candidates if candidate.fits]


_Wanted = Counter[tuple[str, tuple[int, ...]]]


def _wanted(shapes: Shapes) -> tuple[_Wanted, int]:
    """Counts of last parts of names with their shapes, and the number of parameters that no candidate may exceed."""
    return Counter((key.rpartition(".")[2], tuple(one.shape)) for key, one in shapes.items()), 2 * len(shapes) + 64


class _ForeignError(Exception):
    """A candidate has a parameter that the weights lack."""


@contextmanager
def _only_with(wanted: _Wanted, most: int, foreign: int = _ONLY_TRIED, *, each_once: bool = False) -> Iterator[None]:
    """Inside, this thread can build no network with more than `foreign` parameters of other names and shapes.

    Nor one with more than `most` parameters. Classifiers and positions of patches, whose sizes follow from the classes
    and the images, may have any size. each_once: a parameter beyond as many as the weights have is another one, too.
    """
    thread, count, strange, left = threading.get_ident(), 0, 0, wanted.copy()

    def check(module: nn.Module, name: str, parameter: Tensor) -> None:
        nonlocal count, strange
        if threading.get_ident() != thread or isinstance(parameter, nn.UninitializedParameter):
            return
        count += 1
        kind = name, tuple(parameter.shape)
        known = left[kind] > 0 or _CLASSES in parameter.shape or is_position(name)
        left[kind] -= each_once
        strange += not known
        if count > most or strange > foreign:
            raise _ForeignError

    handle = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _built(name: str, options: Mapping[str, Any]) -> nn.Module | None:
    """The candidate without values; None where the weights lack one of its parameters, or it cannot be built so."""
    try:
        return build_skeleton(name, _CLASSES, **options)
    except Exception:  # constructors of packages may raise anything where an option or the device does not suit them
        return None


def _compared(name: str, options: dict[str, Any], model: nn.Module, shapes: Shapes) -> _Candidate:
    ignored = classifier_keys(model)
    fitted, _ = fit_to_model(shapes, model, ignore=ignored)
    wanted = {key: tensor for key, tensor in model.state_dict().items() if key not in ignored}
    same = sum(key in fitted and fitted[key].shape == tensor.shape for key, tensor in wanted.items())
    every = len(wanted) + sum(key not in wanted and key not in ignored for key in fitted)
    return _Candidate(name, options, model, same / every if every else 0.0, fitted)


def _resized(candidate: _Candidate, shapes: Shapes) -> _Candidate | None:
    """The candidate for images of the size that the weights have positions for; None where that makes it fit no more.

    The number of positions is that of patches, a square, and a few tokens that stand for the whole image.
    """
    own = candidate.model.state_dict()
    wrong = [key for key in own if key in candidate.fitted and own[key].shape != candidate.fitted[key].shape]
    positions = [key for key in wrong if is_position(key.rpartition(".")[2])]
    classifier = classifier_keys(candidate.model)
    if len(positions) != 1 or any(key not in classifier for key in set(wrong) - set(positions)):
        return None
    side = own_side(candidate.model)
    before, after = (max(tensors[positions[0]].shape[:-1]) for tensors in (own, candidate.fitted))
    for tokens in range(3):
        grids = [math.isqrt(max(number - tokens, 0)) for number in (before, after)]
        if side is None or [grid**2 + tokens for grid in grids] != [before, after] or side % grids[0]:
            continue
        for option in _SIDES:
            options = candidate.options | {option: side // grids[0] * grids[1]}
            model = _built(candidate.name, options)
            other = None if model is None else _compared(candidate.name, options, model, shapes)
            if other is not None and other.fits:
                return other
    return None


def _chosen(
    fitting: Sequence[_Candidate],
    beside: Sequence[_Candidate],
    built: Sequence[_Candidate],
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
    where = "timm" if best in beside else {"transferscope": "the Fixup family"}.get(provider, provider)
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
    return Recognition(
        name=best.name,
        num_classes=_num_classes(best),
        in_channels=image_channels(best.model),
        image_side=fixed_side(best.model),
        options=best.options,
        runners_up=tuple(others[:_NEAREST]),
        rivals=rivals,
        evidence=evidence,
    )


def _bare(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def _num_classes(candidate: _Candidate) -> int:
    key = f"{classifier_layers(candidate.model)[0]}.weight"
    if key not in candidate.fitted:
        raise UserError(
            f"the weights are those of {candidate.name} without its classifier {key}: give a file that has one"
        )
    return candidate.fitted[key].shape[0]


def _by_function(fitting: Sequence[_Candidate]) -> list[list[_Candidate]]:
    """Candidates that compute the same thing from the same weights, tried on one image of noise."""
    groups: list[tuple[Tensor | None, list[_Candidate]]] = []
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
def _output(candidate: _Candidate) -> Tensor | None:
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
    except Exception:  # as `_built`
        return None
    scale = logits.abs().max()
    return logits / scale if bool(torch.isfinite(scale)) and float(scale) > 0 else None


def _nearest(shapes: Shapes, built: Sequence[_Candidate]) -> str:
    """The network that shares most tensors with weights that fit none, and the first tensor in which they differ.

    built: those that have been built as a whole before. Of timm only these are looked at, which have few other tensors.
    """
    wanted, most = _wanted(shapes)
    others = (*names_of("transferscope"), *names_of("torchvision"))
    models: list[tuple[str, nn.Module, Shapes]] = []
    for name in others:
        with _only_with(wanted, most, foreign=len(shapes) // 5 + 1):
            model = _built(name, {})
        if model is not None:
            models.append((name, model, shapes))
    models += [(one.name, one.model, one.fitted) for one in built if one.name not in others]
    best = (0.0, "")
    for name, model, given in models:
        ignored = classifier_keys(model)
        needed = {key: tensor for key, tensor in model.state_dict().items() if key not in ignored}
        wrong = [key for key, tensor in needed.items() if key not in given or given[key].shape != tensor.shape]
        share = 1 - len(wrong) / max(len(needed), 1)
        if share > best[0] and wrong:
            shape = "x".join(map(str, given[wrong[0]].shape)) if wrong[0] in given else "missing"
            best = share, f"; the nearest is {name}, with {share:.0%} of the tensors ({wrong[0]} is {shape})"
    return best[1]
