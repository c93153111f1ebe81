"""Hooks around a run: checks before it, its failures, and the place of the report after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from transferscope.experiment.names import EntryName, Namespace
from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.framework.config import CommandLineError, active_place, active_plan, active_run
from transferscope.framework.kedro_private import place_of
from transferscope.framework.runners.failures import NodesFailed, repeat_command, run_command, users_mistake
from transferscope.framework.runners.run_tables import failures_table
from transferscope.framework.staleness import has_entry
from transferscope.pipelines.wiring import ON_A_GPU
from transferscope.system.errors import UserError, one_message
from transferscope.system.folder_lock import FolderLock
from transferscope.system.stored import DamagedError
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
                self._lock = FolderLock(folder, shared=trains_on_several_machines(pipeline, catalog))
        try:
            with _one_line(""):
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
            logger.info("the report: %s", _place(catalog, "report"))
        elif places := _folders(pipeline, catalog):
            logger.info("the results: %s", ", ".join(places))

    def let_go(self) -> None:
        """Give the data folder back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


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


class Before:
    """Check all that would fail later before the first node, and estimate what the run takes."""

    def __init__(self, pipeline: Pipeline, catalog: CatalogProtocol, *, only_missing: bool = False) -> None:
        """only_missing: nodes whose results are there will not run."""
        self.pipeline, self.catalog, self.plan = pipeline, catalog, active_plan()
        self.runs = [active_run(run) for run in _trained_in(pipeline)]
        self.packed = _packed_in(pipeline)
        if only_missing:
            self.runs = [run for run in self.runs if not has_entry(catalog, f"{run.full_name}.checkpoints")]
            self.packed = [task for task in self.packed if not has_entry(catalog, f"{task}.test_split")]
        self.measures = any(node.tags & set(ON_A_GPU) for node in pipeline.nodes)
        self.sizes: dict[str, tuple[int, int]] = {}
        """Images in train and test of the tasks whose folders were read."""

    def faults(self) -> Iterator[str]:
        """A line each, of the nodes that will run."""
        from transferscope.framework import checks

        yield from input_faults(self.pipeline, self.catalog)
        known: dict[str, tuple[str, ...]] = {}
        drawn = self.pipeline.all_outputs()
        read = [task for task in self.packed if f"{task}.source" not in drawn]
        there = [task for task in read if has_entry(self.catalog, f"{task}.source")]
        dropping = {task for task in there if self.plan.study.tasks[task].on_bad_image == "drop"}
        yield from checks.images_faults(there, partial(_load_source, self.catalog), known, self.sizes, dropping)
        _add_known_classes(known, self.runs, self.packed, self.catalog)
        yield from checks.networks_faults(self.plan, self.runs, known)
        yield from checks.parts_faults(self.runs)
        yield from checks.optimizers_faults(self.runs)
        yield from checks.sizes_faults(self.plan, self.runs)
        yield from checks.layers_faults(self.plan, self.plan.runs.values(), _analyses_in(self.pipeline))
        if "mistakes" in _analyses_in(self.pipeline):
            yield from checks.groups_faults(self.plan, self._columns)
        yield from checks.paths_faults(self.plan, self.runs, active_place(self.plan.study.models_folder))
        yield from checks.packages_faults(self.runs)
        if self.runs or self.measures:
            yield from checks.gpus_faults(self.plan, self.runs, analyses=self.measures)

    def unused_keys(self) -> Iterator[str]:
        """A line for each option that has no effect on the runs of the pipeline."""
        from transferscope.framework import checks

        yield from checks.unused_keys(self.plan, self.runs)

    def _columns(self, task: str) -> Any:
        """Columns of the test examples of a task, without values of images yet to be drawn; None where not known."""
        import pandas as pd

        from transferscope.generated.patients import COLUMNS
        from transferscope.images.chexpert import other_columns
        from transferscope.images.example_columns import join_columns

        union = self.plan.study.tasks[task].union
        if union is not None:
            parts = [(part, self._columns(part)) for part in union]
            return None if any(table is None for _, table in parts) else join_columns(parts)
        if f"{task}.source" in self.pipeline.all_outputs():
            return pd.DataFrame(columns=list(other_columns(COLUMNS)) if self.plan.is_multi_label(task) else [])
        if task in self.packed:
            return _load_source(self.catalog, task).test.texts() if has_entry(self.catalog, f"{task}.source") else None
        split = f"{task}.test_split"
        return self.catalog.load(split).columns if has_entry(self.catalog, split) else None

    def note(self) -> str | None:
        """Warn of a comparison of checkpoint files that takes more than minutes."""
        from transferscope.framework import checks

        names = (node.name for node in self.pipeline.nodes)
        return checks.cost_note(self.plan, self.runs, names, self.sizes) if self.measures else None


def without_images(plan: Plan) -> Iterator[str]:
    """A line for each task without images that says what is left out."""
    for task in plan.study.tasks:
        if not plan.has_images(task):
            yield (
                f"{task} has no images (tasks.{task}.root): distances and spectra of the weights are measured; left "
                "out is what needs images, such as mistakes, similarity of features, margins and the landscape"
            )


def of_other_networks(plan: Plan) -> Iterator[str]:
    """A line for each pair of different networks whose features are compared, on the distance that it has not."""
    similarity = plan.study.analyses.similarity
    for task in plan.targets() if similarity else ():
        assert similarity is not None
        for pair in plan.pairs(task, similarity.pairs):
            if not pair.same_network:
                a, b = pair.run_a, pair.run_b
                yield (
                    f"{a.full_name} is a {a.model.name} and {b.full_name} a {b.model.name}: features are compared, and "
                    "a distance between weights is not defined"
                )


def input_faults(pipeline: Pipeline, catalog: CatalogProtocol) -> Iterator[str]:
    """Free inputs of the pipeline that do not exist, are damaged, or are checkpoints of another plan."""
    missing = []
    for name in sorted(pipeline.inputs()):
        if name.startswith("params:") or name == "parameters":
            continue
        dataset = catalog.get(name)
        if dataset is None or not dataset.exists():
            damage = _damage(dataset)
            if damage is None:
                missing.append(name)
            else:
                yield f"{damage.path} is damaged ({damage.reason}): {_repair(name)}"
        elif name.endswith(".checkpoints"):
            try:
                check_fingerprint(name, dataset.load().fingerprint)
            except Exception as error:  # of Kedro, around ours
                yield str(_users(error))
    sources = [name for name in missing if name.endswith(".source")]
    for name in dict.fromkeys(_place(catalog, name) for name in sources):
        yield f"the folder {name} does not exist: put the images there{_or_without(sources)}"
    others = [name for name in missing if name not in sources]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield f"{others[0]}{more}: not there yet; {_how_to_make(others[0])}"


def _or_without(sources: Iterable[str]) -> str:
    """Advice on comparing checkpoint files without images, where a task has no other runs."""
    plan = active_plan()
    for task in (EntryName.parse(source).task or "" for source in sources):
        if all(run.checkpoint is not None for run in plan.runs_of(task)):
            key = f"tasks.{task}.root"
            return f", name another as {key}, or compare the weights alone by `--params {key}=null`"
    return ""


def _packed_in(pipeline: Pipeline) -> list[str]:
    """Tasks whose images the pipeline packs."""
    outputs = pipeline.all_outputs()
    tasks = active_plan().study.tasks
    return [task for task, options in tasks.items() if f"{task}.test_split" in outputs and options.union is None]


def _analyses_in(pipeline: Pipeline) -> set[str]:
    """Names of the analyses whose nodes the pipeline has."""
    return {Namespace.parse(node.namespace).pipeline for node in pipeline.nodes if node.namespace}


def _load_source(catalog: CatalogProtocol, task: str) -> Any:
    try:
        return catalog.load(f"{task}.source")
    except Exception as error:  # of Kedro, around ours
        raise _users(error) from error


def _users(error: Exception) -> UserError:
    """The user's mistake behind an error; any other error goes on."""
    mistake = users_mistake(error)
    if mistake is None:
        raise error
    return mistake


def _add_known_classes(
    known: dict[str, tuple[str, ...]], runs: Iterable[RunSpec], packed: Iterable[str], catalog: CatalogProtocol
) -> None:
    """The classes of tasks that runs adopt checkpoints for: of packed splits, and of a union those of its parts."""
    tasks = active_plan().study.tasks
    for task in dict.fromkeys(run.task for run in runs if run.checkpoint is not None and tasks[run.task].has_images):
        first = (tasks[task].union or (task,))[0]
        if first not in known and first not in packed and has_entry(catalog, f"{first}.test_split"):
            known[first] = tuple(catalog.load(f"{first}.test_split").class_names)
        if first in known:
            known[task] = known[first]


def _damage(dataset: Any) -> DamagedError | None:
    """The damage of an entry that is not as it was written; None for one that does not exist."""
    from transferscope.images.split import PackedSplit
    from transferscope.models.series import CheckpointSeries

    try:
        if dataset is not None:
            content = dataset.load()
            if isinstance(content, CheckpointSeries | PackedSplit):
                content.check()
    except Exception as error:  # of Kedro, around ours
        mistake = users_mistake(error)
        return mistake if isinstance(mistake, DamagedError) else None
    return None


def _repair(name: str) -> str:
    """The command that makes a damaged entry anew."""
    entry = EntryName.parse(name)
    run = active_plan().runs.get(entry.owner) if entry.form == "checkpoints" else None
    if run is not None:
        return f"`{run_command('--nodes', str(run.node))}` repairs it"
    return f"make it anew with `{run_command('--pipelines', _maker(name))}`"


def trains_on_several_machines(pipeline: Pipeline, catalog: CatalogProtocol) -> bool:
    """True if each of several machines runs this command, for the one training that it holds.

    CommandLineError where it holds more: all machines would do the other nodes too, into the same files, and might
    come to the trainings in different orders.
    """
    waiting = [run for run in _trained_in(pipeline) if run.training.num_nodes > 1 and not _is_done(run, catalog)]
    if waiting and len(pipeline.nodes) > 1:
        run = waiting[0]
        raise CommandLineError(
            f"training.num_nodes is {run.training.num_nodes} for {run.full_name}: run that training alone, by the same "
            f"command on each machine, `--nodes {run.node}`, before it on one machine what it "
            "needs, and after it the rest"
        )
    return bool(waiting)


def _is_done(run: RunSpec, catalog: CatalogProtocol) -> bool:
    series = catalog.get(f"{run.full_name}.checkpoints")
    return series is not None and series.exists() and series.load().fingerprint == run.fingerprint


def _trained_in(pipeline: Pipeline) -> list[RunSpec]:
    names = {node.name for node in pipeline.nodes}
    return [run for run in active_plan().runs.values() if f"{run.task}.training.{run.name}" in names]


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


def check_fingerprint(name: str, fingerprint: str) -> None:
    """The checkpoints of a run were made as the present plan would make them."""
    run = active_plan().runs.get(EntryName.parse(name).owner)
    if run is not None and fingerprint != run.fingerprint:
        raise CommandLineError(
            f"{name}: made by another plan{_or_file(run)} (fingerprint {fingerprint}, now {run.fingerprint}); "
            f"train again with `{run_command('--nodes', str(run.node))}`, or undo the change of "
            "parameters"
        )


def _or_file(run: RunSpec) -> str:
    """The file that a run is read from, whose content is part of its fingerprint."""
    return "" if run.checkpoint is None else f", or from another content of {run.checkpoint}"


def _how_to_make(name: str) -> str:
    """The command that makes a missing entry."""
    return f"make it with `{run_command('--pipelines', _maker(name))}`"


def _maker(name: str) -> str:
    """The pipeline that makes an entry."""
    makers = (maker for maker, made in pipelines.items() if maker != "__default__" and name in made.all_outputs())
    return next(makers, "__default__")


def _folders(pipeline: Pipeline, catalog: CatalogProtocol) -> list[str]:
    """The folders in which the results of a pipeline lie, up to that of the task."""
    files = [name for name in pipeline.all_outputs() if place_of(catalog[name]) is not None]
    places = {name: Path(_place(catalog, name)) for name in files}
    return sorted({str(_above(place, EntryName.parse(name).task)) for name, place in places.items()})


def _above(place: Path, task: str | None) -> Path:
    """The task's folder in a path, or the folder of a file that belongs to no task."""
    return next((folder for folder in place.parents if folder.name == task), place.parent)


def _place(catalog: CatalogProtocol, name: str) -> str:
    """The path of an entry, relative to the working folder where possible."""
    place = place_of(catalog.get(name))
    assert place is not None
    path = place.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
