"""Refuse to use what was made from images that have changed since.

Checkpoints of another plan are refused by their fingerprint in `framework.input_checks`, and `framework.staleness`
names other results of another plan.
"""

from __future__ import annotations

import logging
from typing import Any

from kedro.framework.project import pipelines
from kedro.io import CatalogProtocol, DatasetError
from kedro.pipeline import Pipeline

from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.experiment.study import pictures_of
from transferscope.framework.command_line import CommandLineError
from transferscope.framework.config import active_plan
from transferscope.framework.runners.failures import run_command

logger = logging.getLogger("transferscope")

KEPT = "; --only-missing-outputs would keep them, so leave it out"


def check_images(pipeline: Pipeline, catalog: CatalogProtocol, *, only_missing: bool) -> None:
    """Compare splits that are read, or kept, with the files they were packed from, and weights with those splits.

    Files are recognised by name, size and time, as in packing, else by content. Images that are missing are not
    compared, nor are generated ones, which follow from parameters. Raises CommandLineError with the command that makes
    it anew. Of tables and figures that are read and follow from such splits, a warning says so.
    """
    used = pipeline.inputs() | (pipeline.all_outputs() if only_missing else set())
    plan, kept = active_plan(), KEPT if only_missing else ""
    before = _made_before(pipeline)
    for task in plan.study.tasks:
        if any(f"{whole}.{part}_split" in used for whole in _with(plan, task) for part in _parts(plan, task)):
            _check_splits(plan, task, catalog, kept)
        elif any(f"{whole}.{part}_split" in before for whole in _with(plan, task) for part in _parts(plan, task)):
            try:
                _check_splits(plan, task, catalog, "")
            except CommandLineError as error:
                logger.warning("what is read was made before this: %s", error)
    for run in plan.runs.values():
        if f"{run.full_name}.checkpoints" in used:
            _check_run(plan, run, catalog, kept)


def _made_before(pipeline: Pipeline) -> set[str]:
    """Results that the inputs of the pipeline follow from, less those that it makes itself."""
    whole = pipelines.get("__default__", Pipeline([]))
    read = pipeline.inputs() & whole.all_outputs()
    return whole.to_outputs(*read).datasets() - pipeline.all_outputs() if read else set()


def _with(plan: Plan, task: str) -> list[str]:
    """The task, and the unions that it is a part of."""
    return [task, *(name for name, options in plan.study.tasks.items() if task in (options.union or ()))]


def _parts(plan: Plan, task: str) -> tuple[str, ...]:
    return tuple(plan.study.tasks[task].parts)


def _check_splits(plan: Plan, task: str, catalog: CatalogProtocol, kept: str) -> None:
    from transferscope.images.pack import is_packed_from

    source_entry = catalog.get(f"{task}.source")
    if plan.study.tasks[task].union or plan.is_generated(task) or source_entry is None or not source_entry.exists():
        return
    source, options = source_entry.load(), plan.study.tasks[task]
    for part in _parts(plan, task):
        name = f"{task}.{part}_split"
        split = _loaded(catalog, name)
        if split is None:
            continue
        if not is_packed_from(split, source, part, pictures_of(plan.study, task), options.value_range):
            raise CommandLineError(
                f"{name}: its images, labels or settings have changed since they were packed; "
                f"`{run_command('--pipelines', 'data_prep')}` packs them again{kept}"
            )


def _check_run(plan: Plan, run: RunSpec, catalog: CatalogProtocol, kept: str) -> None:
    series = _loaded(catalog, f"{run.full_name}.checkpoints")
    if series is None or series.fingerprint != run.fingerprint:
        return
    for part in _parts(plan, run.task):
        name = f"{run.task}.{part}_split"
        split = _loaded(catalog, name)
        if split is not None and series.inputs.get(part, split.digest) != split.digest:
            raise CommandLineError(
                f"{run.full_name}.checkpoints: trained on other images than {name} holds now; "
                f"train again with `{run_command('--nodes', str(plan.node_of(run)))}`{kept}"
            )


def _loaded(catalog: CatalogProtocol, name: str) -> Any:
    """An entry; None where it is missing or damaged, which is reported elsewhere."""
    dataset = catalog.get(name)
    try:
        return None if dataset is None else dataset.load()
    except DatasetError:
        return None
