"""Checks before the first node runs: images as distributed, packages, GPUs, and options that have no effect.

Each check is a function that yields faults, one line each, so that all of them are listed at once. No image is decoded.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferscope.experiment.gpu_support import gpu_fault
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.experiment.study import TaskOptions
from transferscope.images.example_columns import columns_faults
from transferscope.system.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def images_faults(
    tasks: Iterable[str],
    load: Callable[[str], Any],
    known: dict[str, tuple[str, ...]],
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


WRITTEN = ("05_model_input", "06_models", "07_model_output", "08_reporting")
"""Folders of the data folder to which results go."""


def places_faults(tasks: Mapping[str, TaskOptions], data: Path, models_folder: Path) -> Iterator[str]:
    """Image folders that hold a folder of results, which would be read as images, or that lie among results.

    tasks: with absolute roots.
    """
    data, models = data.resolve(), models_folder.resolve()
    written = {"data in globals.yml (or --output)": data, "models_folder": models}
    for task, options in tasks.items():
        if options.root is None:
            continue
        root = Path(options.root).resolve()
        for key, folder in written.items():
            if folder.is_relative_to(root):
                yield f"tasks.{task}.root: the images in {root} hold the folder of results {folder}: change {key}"
                break
        else:
            if any(root.is_relative_to(place) for place in (*(data / name for name in WRITTEN), models)):
                yield f"tasks.{task}.root: {root} lies among the results in {data}: put the images elsewhere"


def _unreadable(task: str, files: Sequence[str]) -> str:
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    return f"tasks.{task}: {files[0]}{more}: remove it or bring the file back, or set on_bad_image to drop"


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
