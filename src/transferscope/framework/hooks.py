"""Hooks around a run: checks before it, its failures, and the place of the report after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import AbstractVersionedDataset, CatalogProtocol
from kedro.pipeline import Pipeline

from transferscope.experiment.names import EntryName
from transferscope.framework import checks
from transferscope.framework.before_run import Before, of_other_networks, trains_on_several_machines, without_images
from transferscope.framework.command_line import CommandLineError
from transferscope.framework.config import active_place, active_plan
from transferscope.framework.input_checks import check_fingerprint, shown_place
from transferscope.framework.kedro_private import place_of
from transferscope.framework.runners.failures import NodesFailed, repeat_command, users_mistake
from transferscope.framework.runners.run_tables import failures_table
from transferscope.system.errors import one_message
from transferscope.system.folder_lock import FolderLock
from transferscope.tables.formats import duration
from transferscope.tables.terminal import print_tables

logger = logging.getLogger("transferscope")


class StudyHooks:
    """Hooks of every `kedro run`."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._context: KedroContext | None = None
        self._lock: FolderLock | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._context = context

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Refuse before any work what would fail later: a second run on the same data, inputs that do not exist."""
        self._begin = time.perf_counter()
        self.let_go()
        if self._context is not None:
            folder = Path(self._context.project_path) / self._context.config_loader["globals"].get("data", "data")
            with _one_line(""):
                refuse(_places_faults(folder))
                self._lock = FolderLock(folder, shared=trains_on_several_machines(pipeline, catalog))
        try:
            with _one_line(""):
                refuse(_without_versions(run_params.get("load_versions") or (), catalog))
                before = Before(pipeline, catalog, only_missing=bool(run_params.get("only_missing_outputs")))
                refuse(before.faults())
                for line in before.unused_keys():
                    logger.warning("%s", line)
                note = before.note()
        except BaseException:
            self.let_go()
            raise
        for line in (*without_images(before.plan), *of_other_networks(before.plan)):
            logger.warning("%s", line)
        if note is not None:
            logger.info("%s", note)
        missing = "those whose outputs are there are left out"
        finished = missing if run_params.get("only_missing_outputs") else "what is already finished is recognised"
        logger.info("%d nodes; %s", len(pipeline.nodes), finished)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Refuse, by name, a checkpoint that the present plan would have made differently."""
        if dataset_name.endswith(".checkpoints"):
            check_fingerprint(dataset_name, data.fingerprint)

    @hook_impl(trylast=True)  # it raises, and no hook is called after that
    def on_pipeline_error(self, error: Exception, run_params: dict[str, Any]) -> None:
        """Print the failures and the command that repeats them; a user's mistake is one line, not a traceback."""
        self.let_go()
        if isinstance(error, NodesFailed):
            print_tables({"What failed": failures_table(error.progress)})
            click.echo("To repeat what failed, and what was not run for it:")
            click.echo(repeat_command(error.progress, run_params | _options_of_command()))
            raise CommandLineError(str(error)) from error
        mistake = users_mistake(error)
        if mistake is not None:
            raise CommandLineError(str(mistake)) from error

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        self.let_go()
        logger.info("done in %s", duration(time.perf_counter() - self._begin))
        if "report" in pipeline.all_outputs():
            logger.info("the report: %s", shown_place(catalog, "report"))
        elif places := _folders(pipeline, catalog):
            logger.info("the results: %s", ", ".join(places))

    def let_go(self) -> None:
        """Give the data folder back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _places_faults(data: Path) -> Iterator[str]:
    """Folders of images and of results of the present plan, one within the other."""
    study = active_plan().study
    tasks = {name: options.placed(active_place) for name, options in study.tasks.items()}
    return checks.places_faults(tasks, data, Path(active_place(study.models_folder)))


def _without_versions(names: Iterable[str], catalog: CatalogProtocol) -> Iterator[str]:
    """A line for each entry of which `--load-versions` names a version that Kedro would not look for."""
    for name in names:
        if not isinstance(catalog.get(name), AbstractVersionedDataset):
            yield f"--load-versions {name}: this entry keeps no versions: leave the option out"


def _options_of_command() -> dict[str, Any]:
    """Options that Kedro does not pass to its hooks; the runner where another than the default was chosen."""
    context = click.get_current_context(silent=True)
    if context is None:
        return {"runner": None}
    is_default = context.get_parameter_source("runner") is ParameterSource.DEFAULT
    given = {name: context.params.get(name) for name in ("runner", "runner_params", "conf_source")}
    return given | ({"runner": None} if is_default else {})


def refuse(faults: Iterable[str]) -> None:
    """Raise one error that lists all faults, if there are any."""
    messages = list(faults)
    if messages:
        raise CommandLineError(one_message(messages))


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    try:
        yield
    except CommandLineError:
        raise
    except Exception as error:  # of Kedro, around ours
        mistake = users_mistake(error)
        if mistake is None:
            raise
        raise CommandLineError(f"{where}{mistake}") from error


def _folders(pipeline: Pipeline, catalog: CatalogProtocol) -> list[str]:
    """The folders in which the results of a pipeline lie, up to that of the task."""
    files = [name for name in pipeline.all_outputs() if place_of(catalog[name]) is not None]
    places = {name: Path(shown_place(catalog, name)) for name in files}
    return sorted({str(_above(place, EntryName.parse(name).task)) for name, place in places.items()})


def _above(place: Path, task: str | None) -> Path:
    """The task's folder in a path, or the folder of a file that belongs to no task."""
    return next((folder for folder in place.parents if folder.name == task), place.parent)
