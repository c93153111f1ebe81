"""Checks of networks before the first node runs: their parts, optimizers and layers, and the files with their weights.

Each check is a function that yields faults, one line each, so that all of them are listed at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from transferscope.experiment.options import ModelOptions
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.experiment.study import pictures_of
from transferscope.system.errors import UserError
from transferscope.system.near import near_matches

ClassNames = tuple[str, ...]


def networks_faults(plan: Plan, runs: Iterable[RunSpec], known: Mapping[str, ClassNames]) -> Iterator[str]:
    """Faults of networks and of the files with their weights, for the runs that are about to be trained or adopted.

    known: classes of tasks, where they are known.
    """
    networks: dict[str, str | None] = {}
    checked: dict[str, Any] = {}
    for run in runs:
        key = run.model.model_dump_json()
        if run.checkpoint is None and key not in networks:
            networks[key] = fault = _network_fault(run.model)
            if fault is not None:
                yield fault
        if networks.get(key) is None:
            yield from _file_faults(plan, run, known.get(run.task), checked)


def parts_faults(runs: Iterable[RunSpec]) -> Iterator[str]:
    """Modules that a run starts from, or does not train, and its network lacks."""
    from transferscope.models.frozen import frozen_keys
    from transferscope.models.transfer import up_to_module
    from transferscope.models.zoo import build_model

    naming = {
        (run.kind, run.transfer_until, run.training.frozen, run.model.model_dump_json()): run
        for run in runs
        if run.checkpoint is None and (run.transfer_until is not None or run.training.frozen)
    }
    for run in naming.values():
        try:
            network = build_model(run.model.name, 2, seed=0, **run.model.options)
        except UserError:
            continue  # a fault of its own
        key = "transfer_until"
        try:
            if run.transfer_until is not None:
                up_to_module({}, network, run.transfer_until)
            key = "training.frozen"
            frozen_keys(network, run.training.frozen)
        except UserError as error:
            yield f"runs.{run.kind}.{key}: {run.model.name}: {error}"


def optimizers_faults(runs: Iterable[RunSpec]) -> Iterator[str]:
    """Optimizers that torch lacks, and options that they refuse."""
    from torch import nn

    from transferscope.training.optim import make_optimizer

    named = {
        (run.kind, run.training.optimizer.model_dump_json()): run
        for run in runs
        if run.checkpoint is None and run.training.optimizer is not None
    }
    for run in named.values():
        try:
            make_optimizer(nn.Linear(2, 2), run.training)
        except UserError as error:
            yield f"runs.{run.kind}: {error}"


def together_faults(plan: Plan, runs: Iterable[RunSpec]) -> Iterator[str]:
    """Networks that cannot be trained as one with others, tried on blank images; each once for each size of images.

    runs: those that are about to be trained.
    """
    waiting, tried = {run.full_name for run in runs}, set()
    for group in plan.run_groups:
        run = group.runs[0]
        side = pictures_of(plan.study, run.task).seen_size
        network = run.model.model_dump_json(), side, run.training.frozen
        if network not in tried and waiting.intersection(one.full_name for one in group.runs):
            tried.add(network)
            why = _stacking_fault(run, side)
            if why is not None:
                yield (
                    f"runs.{run.kind}: training.together: {run.model.name} cannot be trained as one with others, since "
                    f"{why}: set it to false"
                )


def _stacking_fault(run: RunSpec, side: int) -> str | None:
    from transferscope.models.frozen import freeze
    from transferscope.models.zoo import build_model
    from transferscope.training.stack import stacking_fault

    try:
        network = build_model(run.model.name, 2, seed=0, **run.model.options)
    except UserError:
        return None  # a fault of its own
    try:
        freeze(network, run.training.frozen)
    except UserError:
        return None
    return stacking_fault(network, run.training, side)


def _network_fault(model: ModelOptions) -> str | None:
    from transferscope.models.zoo import build_model

    try:
        build_model(model.name, 2, seed=0, **model.options)
    except UserError as error:
        return f"model {model.name}: {error}"
    return None


def _file_faults(plan: Plan, run: RunSpec, classes: ClassNames | None, checked: dict[str, Any]) -> Iterator[str]:
    """Faults of the file that a run is, or starts from; each is read once for a network, without its weights."""
    pretrained = run.pretrained if run.pretrained not in plan.runs else None
    path = run.checkpoint or pretrained
    if path is None or run.split_from is not None:  # a copy reads what its parent reads
        return
    where = f"runs.{run.kind}.{'checkpoint' if run.checkpoint else 'pretrained'}"
    key = f"{path} {run.weights} {run.prefix} {run.model.model_dump_json()} {pretrained is None}"
    if key not in checked:
        checked[key] = _check_file(path, run)
    if isinstance(checked[key], UserError):
        yield f"{where}: {checked[key]}"
    elif run.checkpoint and classes is not None and checked[key] != len(classes):
        yield f"{where}: {_other_classes(plan, run, f'checkpoint {path}', checked[key], classes)}"


def _check_file(path: str, run: RunSpec) -> int | UserError | None:
    """The number of classes of a file that fits the run's network, or what is wrong with it."""
    from transferscope.models.checkpoint import check_checkpoint_file

    try:
        return check_checkpoint_file(
            path,
            architecture=run.model.name,
            model_options=run.model.options,
            any_classifier=run.checkpoint is None,
            weights=run.weights,
            prefix=run.prefix,
        ).num_classes
    except UserError as error:
        return error


def _other_classes(plan: Plan, run: RunSpec, source: str, number: int, classes: ClassNames) -> str:
    some = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    fault = f"{source}: its classifier has {number} classes, the images of {run.task} have {len(classes)} ({some})"
    if not hasattr(plan.study.tasks[run.task].layout, "class_list"):
        return fault
    return (
        f"{fault}; name all classes of the classifier in a text file, a class per line in the order of its outputs, "
        f"and give that as tasks.{run.task}.class_list: the folders may be some of them"
    )


def sizes_faults(plan: Plan, runs: Iterable[RunSpec]) -> Iterator[str]:
    """Networks that refuse images as they will see them: other channels than 1 or 3, or a size that they do not take.

    Also those that put out anything but logits, or other values each time. Each is tried on one image of each size.
    """
    tried: set[tuple[str, int]] = set()
    refused: set[str] = set()
    for run in runs:
        side = pictures_of(plan.study, run.task).seen_size
        network = run.model.model_dump_json()
        if (network, side) in tried or network in refused:
            continue
        tried.add((network, side))
        try:
            fault = _size_fault(run.model, side)
        except UserError as error:
            refused.add(network)
            yield f"model {run.model.name}: {error}"
        else:
            if fault is not None:
                yield f"tasks.{run.task}.pictures: {side} pixels: {fault}"


def _size_fault(model: ModelOptions, side: int) -> str | None:
    """The reason why a network takes no images of a size; UserError where it takes none of 1 or 3 channels."""
    from transferscope.images.seen_images import check_channels
    from transferscope.models.image_input import common_side
    from transferscope.models.layers import image_channels
    from transferscope.models.logits import check_outputs
    from transferscope.models.zoo import build_model

    try:
        network = build_model(model.name, 2, seed=0, **model.options).eval()
    except UserError:
        return None  # a fault of its own
    check_channels(image_channels(network))
    try:
        check_outputs(network, side)
    except UserError:
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        why = error or type(error).__name__
        other = common_side([network])
        choose = "choose another store_size (--size of kedro compare) or crop_size"
        if other is None:
            return (
                f"{model.name} takes images neither of this nor of usual sizes ({why}); correct its code, or {choose}"
            )
        return f"{model.name} does not take images of this size, but {other} px ({why}); {choose}"
    return None


def layers_faults(plan: Plan, runs: Iterable[RunSpec], pipelines: Collection[str]) -> Iterator[str]:
    """Layers and groups of parameters that the options of analyses name and a network lacks.

    pipelines: the analyses that will run.
    """
    from transferscope.models.modules import find_modules
    from transferscope.models.zoo import build_model

    similarity, modules = plan.study.analyses.similarity, plan.study.analyses.modules
    spectrum = plan.study.analyses.spectrum
    layers = {
        "similarity.layers": similarity.layers if similarity is not None and "similarity" in pipelines else None,
        "spectrum.vector_layers": spectrum.vector_layers if spectrum is not None and "spectrum" in pipelines else None,
    }
    groups = modules.groups if {"similarity", "landscape"} & set(pipelines) else None
    if not any(layers.values()) and groups is None:
        return
    for model in {run.model.model_dump_json(): run.model for run in runs}.values():
        try:
            network = build_model(model.name, 2, seed=0, **model.options)
        except UserError:
            continue  # a fault of its own
        known = {name for name, _ in network.named_modules() if name}
        for key, names in layers.items():
            for layer in [layer for layer in names or () if layer not in known]:
                yield f"analyses.{key}: {model.name} has no layer {layer!r}{near_matches(layer, sorted(known))}"
        try:
            find_modules(network, groups=groups)
        except UserError as error:
            yield f"analyses.modules.groups: {model.name}: {error}"


def paths_faults(plan: Plan, runs: Iterable[RunSpec], models_folder: str) -> Iterator[str]:
    """Checkpoint files that lie where the run would write its own."""
    for run in (run for run in runs if run.checkpoint is not None):
        own = Path(models_folder) / run.task / run.name
        if Path(str(run.checkpoint)).resolve().parent == own.resolve():
            yield f"runs.{run.kind}.checkpoint: {run.checkpoint} lies in the folder that this run writes: copy it first"
