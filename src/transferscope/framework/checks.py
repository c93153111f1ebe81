"""Checks before the first node runs: images as distributed, networks, checkpoint files, GPUs.

Each check is a function that yields faults, one line each, so that all of them are listed at once. No image is decoded.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferscope.experiment.gpu_support import gpu_fault
from transferscope.experiment.options import ModelOptions
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.experiment.study import pictures_of
from transferscope.images.example_columns import columns_faults
from transferscope.system.errors import UserError
from transferscope.system.near import near_matches
from transferscope.tables.formats import duration

if TYPE_CHECKING:
    import pandas as pd

ClassNames = tuple[str, ...]


def images_faults(
    tasks: Iterable[str],
    load: Callable[[str], Any],
    known: dict[str, ClassNames],
    sizes: dict[str, tuple[int, int]],
    dropping: Collection[str] = (),
) -> Iterator[str]:
    """Faults of the images as distributed: folders, lists, class lists, empty classes, links to nothing.

    tasks: those whose images are about to be packed. load: gives the `ImageSource` of a task. known, sizes: take their
    classes and how many are in train and test. dropping: tasks of which bad images are dropped.
    """
    for task in tasks:
        try:
            source = load(task)
            if source.unreadable and task not in dropping:
                yield _unreadable(task, source.unreadable)
            known[task], sizes[task] = tuple(source.class_names), (len(source.train), len(source.test))
        except UserError as error:
            message = str(error)
            yield message if message.startswith(f"tasks.{task}") else f"tasks.{task}: {message}"


def _unreadable(task: str, files: Sequence[str]) -> str:
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    return f"tasks.{task}: {files[0]}{more}: remove it or bring the file back, or set on_bad_image to drop"


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


def packages_faults(plan: Plan, runs: Iterable[RunSpec], *, analyses: bool) -> Iterator[str]:
    """Optional packages and programs that trainings and analyses ask for and that are not there."""
    trained = [run for run in runs if run.checkpoint is None]
    if any(run.training.tensorboard for run in trained) and importlib.util.find_spec("tensorboard") is None:
        yield (
            "training.tensorboard: the package tensorboard is not installed: "
            "`uv run --extra tensorboard kedro run`, or without uv: pip install -e '.[tensorboard]'"
        )
    if any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        return
    asked = {
        "training.compile": any(run.training.compile for run in trained),
        "analyses.compile": analyses and plan.study.analyses.compile,
    }
    for key in (key for key, compiles in asked.items() if compiles):
        yield f"{key}: torch compiles with a C++ compiler, and there is none: install g++, or write false"


def gpus_faults(plan: Plan, runs: Iterable[RunSpec], *, analyses: bool) -> Iterator[str]:
    """GPUs of this machine that lack kernels or bfloat16.

    runs: those that are about to be trained. analyses: whether networks are measured, too.
    """
    import torch

    if not torch.cuda.is_available():
        return
    precisions = {run.training.precision for run in runs if run.checkpoint is None}
    precisions |= {plan.study.analyses.precision} if analyses else set()
    for index in range(torch.cuda.device_count()):
        fault = gpu_fault(
            torch.cuda.get_device_name(index),
            torch.cuda.get_device_capability(index),
            torch.cuda.get_arch_list(),
            precisions,
        )
        if fault is not None:
            yield f"GPU {index}, {fault}"


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
    from transferscope.images.augment import check_channels
    from transferscope.models.image_input import common_side
    from transferscope.models.layers import image_channels
    from transferscope.models.layouts import check_outputs
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
        known = "" if other is None else f", but {other} px"
        return (
            f"{model.name} does not take images of this size{known} ({why}); choose another store_size (--size of "
            "kedro compare) or crop_size"
        )
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


def unused_keys(plan: Plan, runs: Iterable[RunSpec]) -> Iterator[str]:
    """A line for each option of a kind of run that decides nothing, because the run is read from a file.

    Not an error, for a run of another environment may have been replaced by a file.
    """
    for kind in dict.fromkeys(run.kind for run in runs):
        options = plan.study.runs[kind]
        keys = [key for key in ("training", "training_on") if options.is_file and getattr(options, key)]
        if options.pretrained_epoch != "final" and options.pretrained not in plan.runs:
            keys.append("pretrained_epoch")
        for key in keys:
            file = options.checkpoint or options.checkpoints or options.pretrained
            how = f"its weights are read from {file}" if file else "it starts from random weights"
            yield f"runs.{kind}.{key} has no effect: {how}"


def groups_faults(plan: Plan, columns: Callable[[str], pd.DataFrame | None]) -> Iterator[str]:
    """Columns of example lists by which mistakes are to be grouped and that a task lacks.

    columns: those of the test images of a task; None where they are not known yet.
    """
    mistakes = plan.study.analyses.mistakes
    if mistakes is None or mistakes.replace is None:
        return
    for task in plan.targets():
        asked = mistakes.replace.groups_of(task)
        there = columns(task) if asked and plan.pairs(task, mistakes.pairs) else None
        if there is not None:
            old = plan.is_multi_label(task) and there.empty and not len(there.columns)
            hint = "; splits of an earlier version have none, `kedro run --pipelines data_prep` packs them again"
            for fault in columns_faults(there, asked, task):
                yield f"analyses.mistakes.replace.groups: {fault}{hint if old else ''}"


NOTED_SECONDS = 120
TIMED_IMAGES = 4
TIMED_PASSES = 3


def cost_note(
    plan: Plan, runs: Iterable[RunSpec], nodes: Iterable[str], sizes: Mapping[str, tuple[int, int]]
) -> str | None:
    """The time that a comparison of checkpoint files will take on a CPU, from a few timed images.

    None where nothing is taken from files, where no image goes through a network, and on a GPU.

    runs: those that are adopted or trained. nodes: names of all nodes that will run. sizes: images in train and test.
    """
    import torch

    from transferscope.cost.node_costs import node_costs

    adopted = [run for run in runs if run.checkpoint is not None]
    if not adopted or torch.cuda.is_available():
        return None
    names = set(nodes)
    passes = sum(images for node, images in node_costs(plan, sizes).items() if node in names)
    side = pictures_of(plan.study, adopted[0].task).seen_size
    seconds = passes * _seconds_an_image(adopted[0].model, side)
    if not passes:
        return None
    less = "; pictures.store_size and analyses.landscape.max_examples make it less" if seconds >= NOTED_SECONDS else ""
    return (
        f"at least {passes:,.0f} passes of an image of {side} px through {adopted[0].model.name}: about "
        f"{duration(seconds)} on one core of this CPU{less}"
    )


def _seconds_an_image(model: ModelOptions, side: int) -> float:
    """The seconds of a forward pass of one image on one core, the shortest of some, as other programs may run, too."""
    import torch
    from threadpoolctl import threadpool_limits

    from transferscope.models.layers import image_channels
    from transferscope.models.zoo import build_model

    network = build_model(model.name, 2, seed=0, **model.options).eval()
    images = torch.zeros(TIMED_IMAGES, image_channels(network), side, side)
    shortest = math.inf
    with torch.inference_mode(), threadpool_limits(1):
        for _ in range(1 + TIMED_PASSES):  # the first one sets things up
            started = time.perf_counter()
            network(images)
            shortest = min(shortest, time.perf_counter() - started)
    return shortest / TIMED_IMAGES


def paths_faults(plan: Plan, runs: Iterable[RunSpec], models_folder: str) -> Iterator[str]:
    """Checkpoint files that lie where the run would write its own."""
    for run in (run for run in runs if run.checkpoint is not None):
        own = Path(models_folder) / run.task / run.name
        if Path(str(run.checkpoint)).resolve().parent == own.resolve():
            yield f"runs.{run.kind}.checkpoint: {run.checkpoint} lies in the folder that this run writes: copy it first"
