"""Any architecture by name: the Fixup family, torchvision's classification models, timm's models."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from transferscope.models.classifier_size import with_classes
from transferscope.models.fixup_resnet import FIXUP_LAYOUTS, fixup_resnet
from transferscope.models.hub_cache import cached_architecture, cached_folder, is_hub_name, repository_of
from transferscope.models.image_input import mark_classifier
from transferscope.models.layers import CLASSIFIER, classifier_layers, num_outputs_of, weight_layers
from transferscope.system.errors import UserError
from transferscope.system.near import near_matches
from transferscope.system.references import allow, is_reference, resolve

PROVIDERS = ("transferscope", "torchvision", "timm")
"""Sources of architectures; a name that several have is that of the first."""
_WEIGHT_OPTIONS = ("weights", "weights_backbone", "pretrained", "checkpoint_path")
# Auxiliary classifiers would make the model return tuples while it trains.
_TORCHVISION_DEFAULTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
_build_lock = threading.RLock()


def build_model(name: str, num_classes: int, *, seed: int | None = None, **options: Any) -> nn.Module:
    """A model with fresh weights that maps images (B, 3, H, W) to logits (B, num_classes), in training mode.

    `name` is one of `FIXUP_LAYOUTS`, a classification model of torchvision, or a model of timm (optional package);
    where both have the name it is torchvision's, and `timm/resnet50` or `torchvision/resnet50` says which. Names of the
    hub, `hf_hub:timm/resnet50.a1_in1k`, are those of timm, of other owners by the config.json in the local cache. A
    name with a colon is else a function of one's own, `mypackage.nets:build` or `nets.py:build`, that takes
    `num_classes` and the options and returns a module; of one without `num_classes` the classifier is replaced where it
    has others.
    `options` are keyword arguments of the architecture. `seed` draws the weights from a generator of their own and
    leaves torch's global one as it was; None draws from the global one. Weights are always drawn on the CPU: no
    option loads pre-trained ones, which come from a checkpoint (`transferscope.models.initialise`).

    Raises UserError for an unknown name (with near matches) or option, and for a model without a classifier.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise UserError(f"num_classes is {num_classes!r}: must be a positive whole number")
    for option in _WEIGHT_OPTIONS:
        if option in options:
            raise UserError(f"model option {option!r} is not taken: give pre-trained weights as a checkpoint file")
    construct = _constructor(name)
    with private_random_state(seed), torch.device("cpu"):
        model = construct(num_classes, options)
        _check_sizes(name, model)
        if is_reference(name):
            _mark_classifier(model, num_classes, lambda other: construct(other, options))
    _check_classifier(name, model, num_classes)
    return model


def build_skeleton(name: str, num_classes: int, **options: Any) -> nn.Module:
    """The network of `build_model` on the device meta: layers, names and shapes without values, within milliseconds.

    Buffers that are not saved have no values either, so it computes nothing; torch's generator stays as it was. Numbers
    that a constructor computes with tensors are computed, so parameters alone become meta, as soon as they are made.
    """
    thread = threading.get_ident()

    def without_values(module: nn.Module, key: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if threading.get_ident() != thread or parameter.is_meta or isinstance(parameter, nn.UninitializedParameter):
            return None
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    with _build_lock:
        hook = register_module_parameter_registration_hook(without_values)  # type: ignore[arg-type]  # may give another
        try:
            return build_model(name, num_classes, seed=0, **options).to("meta")
        finally:
            hook.remove()


def tried_network(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A network of two classes to look at or to try images on.

    It is without values where the architecture is known to run so, which costs little.
    """
    return build_model(name, 2, seed=0, **options) if is_reference(name) else build_skeleton(name, 2, **options)


def model_names() -> list[str]:
    """Every name `build_model` takes here, those of timm where it is installed."""
    return [name for provider in PROVIDERS for name in names_of(provider)]


def names_of(provider: str) -> list[str]:
    """The architectures of one of `PROVIDERS` by the names that `build_model` takes.

    Those of timm have the prefix `timm/` where torchvision has the name, too; none where timm is not installed.
    """
    if provider == "transferscope":
        return list(FIXUP_LAYOUTS)
    if provider == "torchvision":
        return _torchvision_names()
    known = set(_torchvision_names())
    names = importlib.import_module("timm").list_models() if _has_timm() else []
    return [f"timm/{name}" if name in known else name for name in names]


@contextmanager
def private_random_state(seed: int | None) -> Iterator[None]:
    """Inside, torch's CPU generator starts from `seed`; afterwards it is as before. One thread at a time."""
    with _build_lock:
        if seed is None:
            yield
            return
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.default_generator.set_state(before)


def _constructor(name: str) -> Callable[[int, dict[str, Any]], nn.Module]:
    if is_reference(name):
        return _own(name)
    if name in FIXUP_LAYOUTS:
        return lambda num_classes, options: _build_fixup(name, num_classes, options)
    if is_hub_name(name):
        return _of_hub(name)
    provider, _, bare_name = name.rpartition("/")
    if provider in ("", "torchvision") and bare_name in _torchvision_names():
        return lambda num_classes, options: _build_torchvision(bare_name, num_classes, options)
    if provider in ("", "timm") and _has_timm() and importlib.import_module("timm").is_model(bare_name):
        return lambda num_classes, options: _build_timm(bare_name, num_classes, options)
    raise _unknown_name(name, provider, bare_name)


def _own(name: str) -> Callable[[int, dict[str, Any]], nn.Module]:
    """The user's own function as the constructor of a network."""
    allow(name)
    function = resolve(name, "model.name")
    if not callable(function):
        raise UserError(f"model.name: {name} is {_kind(function)}, not a function that returns a network")

    sized = _takes(function, "num_classes")

    def construct(num_classes: int, options: dict[str, Any]) -> nn.Module:
        arguments = options | ({"num_classes": num_classes} if sized else {})
        try:
            with _option_errors(name, function, options):
                model = function(**arguments)
        except UserError:
            raise
        except SystemExit as error:
            raise UserError(f"model.name: {name} ends the program (sys.exit): let it return the network") from error
        except Exception as error:  # of the user's code
            raise UserError(f"model.name: {name} failed: {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise UserError(
                f"model.name: {name} returned {_kind(model)}, not a torch.nn.Module: let it return the network"
            )
        if sized:
            return model.train()
        return _of_classes(name, model, partial(function, **arguments), num_classes, options)

    return construct


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _of_classes(
    name: str, model: nn.Module, build: Callable[[], nn.Module], num_classes: int, options: dict[str, Any]
) -> nn.Module:
    """A network whose function knows its number of classes itself; where others are asked for, its classifier is fresh.

    The layer that classifies is found by an image, once for each function and its options, in a network with memory:
    `build` makes one where `model` has none.
    """
    key = f"{name} {sorted(options.items())}"
    if key not in _classifiers:
        with torch.random.fork_rng(devices=[]):
            tried = _with_values(build) if any(parameter.is_meta for parameter in model.parameters()) else model
            mark_classifier(tried)
        _classifiers[key] = classifier_layers(tried)
    setattr(model, CLASSIFIER, _classifiers[key])
    return with_classes(model, num_classes).train()


def _with_values(build: Callable[[], nn.Module]) -> nn.Module:
    """The network that `build` makes in another thread, where `build_skeleton` takes no values away."""
    with ThreadPoolExecutor(max_workers=1) as other:
        return other.submit(build).result()


_classifiers: dict[str, tuple[str, ...]] = {}


def _takes(function: Callable[..., Any], argument: str) -> bool:
    """True if a function takes an argument by this name, or does not say what it takes."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return argument in known or any(one.kind is one.VAR_KEYWORD for one in known.values())


def _of_hub(name: str) -> Callable[[int, dict[str, Any]], nn.Module]:
    """A name of the hub: the architecture that its config.json in the local cache names, or timm's own of that name."""
    cached = cached_architecture(name)
    owner, _, bare_name = repository_of(name).rpartition("/")
    architecture, arguments = (bare_name if owner == "timm" else "", {}) if cached is None else cached
    if not _has_timm():
        raise _unknown_name(name, "timm", bare_name)
    if not architecture:
        cached_folder(name)  # which says how to fetch it
    if not importlib.import_module("timm").is_model(architecture):
        raise _unknown_name(name, "timm", architecture)
    return lambda num_classes, options: _build_timm(architecture, num_classes, arguments | options)


def _unknown_name(name: str, provider: str, bare_name: str) -> UserError:
    if name.endswith(".py"):
        return UserError(
            f"model {name!r} is a file: name the function or class in it that makes the network, as in {name}:function"
        )
    missing = "" if _has_timm() else "; timm's models need the package timm: pip install -e '.[timm]'"
    if provider and provider not in PROVIDERS[1:]:
        return UserError(f"unknown model {name!r}: before '/' stands torchvision or timm")
    if provider == "timm" and missing:
        return UserError(f"unknown model {name!r}{missing}")
    return UserError(f"unknown model {name!r}{near_matches(bare_name, model_names())}{missing}")


def _build_fixup(name: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    with _option_errors(name, fixup_resnet, options):
        return fixup_resnet(name, num_classes, **options)


def _build_torchvision(name: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    models = importlib.import_module("torchvision.models")
    arguments = _TORCHVISION_DEFAULTS.get(name, {}) | options
    with _option_errors(name, models.get_model_builder(name), options):
        return models.get_model(name, weights=None, num_classes=num_classes, **arguments)


def _build_timm(name: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    timm = importlib.import_module("timm")
    with _option_errors(name, timm.model_entrypoint(name.split(".")[0]), options):
        return timm.create_model(name, pretrained=False, num_classes=num_classes, **options)


@contextmanager
def _option_errors(name: str, builder: Callable[..., nn.Module], options: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError, AssertionError, RuntimeError, MemoryError) as error:
        if not options:
            raise
        known = _option_names(builder)
        for option in options:
            if f"multiple values for keyword argument '{option}'" in str(error):
                raise UserError(f"model {name!r} sets option {option!r} itself: leave it out") from error
            if f"argument '{option}'" in str(error):
                raise UserError(f"model {name!r} has no option {option!r}{near_matches(option, known)}") from error
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"model {name!r} refuses its options {options}: {message}") from error


def _option_names(builder: Callable[..., nn.Module]) -> list[str]:
    """Arguments of the class that `builder` says it returns."""
    result = inspect.signature(builder).return_annotation
    names = inspect.signature(result).parameters if inspect.isclass(result) else ()
    return [name for name in names if name not in ("args", "kwargs", "num_classes")]


def _check_sizes(name: str, model: nn.Module) -> None:
    """Refuse layers such as LazyConv2d, whose weights have no shape before an image has passed."""
    for path, layer in model.named_modules():
        tensors = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        if any(is_lazy(tensor) for tensor in tensors):
            raise UserError(
                f"model {name!r} has a layer of unknown size, {path} ({type(layer).__name__}): put a blank image "
                "through the network before it is returned, or write the size"
            )


def _mark_classifier(model: nn.Module, num_classes: int, construct: Callable[[int], nn.Module]) -> None:
    """Note the classifier of a user's network where another layer is registered after it.

    Such layers are those that are of another size in a network of one class more. It is built, from random numbers that
    come after those of the model, only where the last layer is not the only one with as many outputs as classes.
    """
    layers = weight_layers(model)
    sized = [layer for layer in layers if num_outputs_of(model, layer) == num_classes]
    if not sized or sized == layers[-1:]:
        return
    larger = construct(num_classes + 1)
    of_classes = [layer for layer in sized if num_outputs_of(larger, layer) == num_classes + 1]
    if of_classes:
        setattr(model, CLASSIFIER, tuple(of_classes))


def _check_classifier(name: str, model: nn.Module, num_classes: int) -> None:
    for layer in classifier_layers(model):
        size = num_outputs_of(model, layer)
        if size != num_classes:
            raise UserError(f"model {name!r} has no classifier for {num_classes} classes: its last layer has {size}")


def _torchvision_names() -> list[str]:
    models = importlib.import_module("torchvision.models")
    return models.list_models(module=models)


def _has_timm() -> bool:
    return importlib.util.find_spec("timm") is not None
