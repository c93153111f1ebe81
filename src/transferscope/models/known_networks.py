"""Build the networks that are known by name and compare their tensors with weights of an unknown one.

Each is built on the device meta, parameter by parameter, and given up at the first one whose shape the weights lack.
So a thousand candidates take seconds, and those that are left are compared in full.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from transferscope.models.compatible import classifier_keys
from transferscope.models.fit_to_model import fit_to_model
from transferscope.models.image_input import is_position, own_side
from transferscope.models.zoo import PROVIDERS, build_skeleton, names_of

_CLASSES = 509
"""Classes of candidates; a prime, so that hardly any other size is equal to it."""
_IN_CHANNELS = "in_chans"
"""Option of timm's networks for images of other than 3 channels."""
_SIDES = ("image_size", "img_size")
"""Options of vision transformers for the side of images, by which they have a position for each patch."""

_ONLY_TRIED = 8
"""Parameters of other shapes that a network may make while it is built: timm makes some layers only to try them."""

Shapes = Mapping[str, Tensor]


@dataclass(frozen=True)
class Candidate:
    """An architecture that has been built as a whole."""

    name: str
    options: dict[str, Any]
    model: nn.Module
    share: float
    """Tensors of the network, less its classifier, that the weights have under its names and in its shapes."""
    fitted: Mapping[str, Tensor]

    @property
    def fits(self) -> bool:
        """True if the weights have all tensors of the network, and no others."""
        return self.share == 1.0


def providers_asked(shapes: Shapes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Providers in their order; timm's networks also for images of 1 channel, where no convolution takes 3."""
    yield from ((provider, {}) for provider in PROVIDERS)
    inputs = {tensor.shape[1] for tensor in shapes.values() if tensor.ndim == 4}
    if 1 in inputs and 3 not in inputs:
        yield "timm", {_IN_CHANNELS: 1}


def candidates(provider: str, options: dict[str, Any], shapes: Shapes) -> Iterator[Candidate]:
    """The architectures of a provider all of whose parameters have shapes that occur in the weights."""
    wanted, most = _wanted(shapes)
    for name in names_of(provider):
        with _only_with(wanted, most):
            model = _built(name, options)
        if model is not None:
            candidate = _compared(name, options, model, shapes)
            yield candidate if candidate.fits else _resized(candidate, shapes) or candidate


def same_tensors(shapes: Shapes) -> list[Candidate]:
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


def _compared(name: str, options: dict[str, Any], model: nn.Module, shapes: Shapes) -> Candidate:
    ignored = classifier_keys(model)
    fitted, _ = fit_to_model(shapes, model, ignore=ignored)
    wanted = {key: tensor for key, tensor in model.state_dict().items() if key not in ignored}
    same = sum(key in fitted and fitted[key].shape == tensor.shape for key, tensor in wanted.items())
    every = len(wanted) + sum(key not in wanted and key not in ignored for key in fitted)
    return Candidate(name, options, model, same / every if every else 0.0, fitted)


def _resized(candidate: Candidate, shapes: Shapes) -> Candidate | None:
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


def nearest(shapes: Shapes, built: Sequence[Candidate]) -> str:
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
