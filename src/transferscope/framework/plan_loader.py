"""The configuration loader that turns the user's parameters into a plan.

Every entry point of Kedro (run, Kedro-Viz, the catalog commands, notebooks) builds the loader before it asks for the
pipelines, so the loader is where the plan is made. It remembers itself as the latest one, whose plan `config` gives to
the registry. Expanded parts of the plan are added to the parameters and to the catalog (`plan_parameters`).
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import click
from kedro.framework.project import pipelines
from kedro.utils import find_kedro_project
from pydantic import ValidationError

from transferscope.datasets.picture_size import AUTO, choose_size
from transferscope.experiment.plan import Plan, make_plan
from transferscope.experiment.run import RunSpec
from transferscope.experiment.run_groups import present_nodes
from transferscope.experiment.study import TaskOptions
from transferscope.framework.command_line import CommandLineError, in_one_line
from transferscope.framework.environments import STUDY_KEYS, EnvironmentLoader, is_place
from transferscope.framework.kedro_private import forget_pipelines, is_kedro_viz
from transferscope.framework.plan_parameters import plan_parameters, pretrained_entries, source_entries
from transferscope.framework.table_schemas import with_table_names
from transferscope.framework.viz_view import group_entries
from transferscope.models.hub_cache import is_hub_name
from transferscope.system.errors import UserError
from transferscope.system.references import allow, is_reference, source_files
from transferscope.system.stored import remembered_digests

log = logging.getLogger("transferscope")


class PlanConfigLoader(EnvironmentLoader):
    """Configuration loader whose parameters hold the expanded plan."""

    latest: ClassVar[PlanConfigLoader | None] = None
    """The loader that Kedro built last."""

    def __init__(self, conf_source: str | Path, *args: Any, **kwargs: Any):
        self._plan: Plan | None = None
        with in_one_line(""):
            _check_is_folder(conf_source)
            super().__init__(conf_source, *args, **kwargs)
        PlanConfigLoader.latest = self
        present_nodes(lambda: {} if self._plan is None else self._plan.nodes_of_runs)
        forget_pipelines()

    @property
    def project(self) -> Path:
        """The project's folder, to which relative paths in parameters and on the command line belong.

        That of the configuration; where it lies in no project, as with `--conf-source`, that of the working folder.
        """
        folders = (Path(str(self.conf_source)).resolve(), Path.cwd())
        projects = (find_kedro_project(folder) for folder in folders)
        return next((Path(folder) for folder in projects if folder is not None), Path.cwd())

    @property
    def plan(self) -> Plan:
        """The plan of this environment with its runtime parameters; made on first use."""
        if self._plan is None:
            with in_one_line("", is_needed=True):
                parameters = self._with_own_study(self.checked_item("parameters"))
                parameters = self._with_files(self._without_absent_folders(parameters))
            self._name_formats(parameters)
            digest = remembered_digests(_memory())
            with in_one_line("parameters: "):
                self._plan = make_plan(self._with_sizes(parameters), partial(self._digest, digest))
            for run in self._plan.runs.values():
                if is_reference(run.model.name):
                    allow(run.model.name, self.project)
        return self._plan

    def _with_own_study(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters with the study of the command alone, where that says `inherit_study: false`, as a file may.

        Without `globals`, which are none of the study.
        """
        given = self.runtime_params or {}
        parameters = {key: value for key, value in parameters.items() if key != "globals"}
        if given.get("inherit_study", True) is not False:
            return parameters
        kept = {key: value for key, value in parameters.items() if key not in (*STUDY_KEYS, "inherit_study")}
        return kept | {key: given[key] for key in STUDY_KEYS if key in given}

    def _with_files(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters with the files of patterns, as `checkpoints: folder/*.pth`, by the numbers in their names."""
        runs = parameters.get("runs")
        if not isinstance(runs, dict):
            return parameters
        kinds = dict(runs)
        for kind, options in runs.items():
            pattern = options.get("checkpoints") if isinstance(options, dict) else None
            if not isinstance(pattern, str) or not glob.has_magic(pattern):
                continue
            files = sorted(glob.glob(self.place(pattern)), key=by_numbers)
            if not files:
                raise UserError(f"runs.{kind}.checkpoints: no file is there for {pattern}")
            kinds[kind] = options | {"checkpoints": [self._relative(file) for file in files]}
        return parameters | {"runs": kinds}

    def _relative(self, file: str) -> str:
        """The path of a file from the project's folder, where it lies there: the study may move with it."""
        path = Path(file)
        return str(path.relative_to(self.project)) if path.is_relative_to(self.project) else file

    def _without_absent_folders(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters without the image folders that are not there, where the command asks for spectra alone.

        They are noted as if they came with `--params`, so that processes of the same run have them too.
        """
        context = click.get_current_context(silent=True)
        tasks = parameters.get("tasks")
        if context is None or context.params.get("pipelines") != ["spectrum"] or not isinstance(tasks, dict):
            return parameters
        for name in [name for name in tasks if self._lacks_images(parameters, name)]:
            folder = self.place(tasks[name]["root"])
            log.warning("%s does not exist: spectra of checkpoint files need no images", folder)
            tasks = tasks | {name: tasks[name] | {"root": None}}
            given = self.runtime_params or {}
            others = given.get("tasks") or {}
            own = (others.get(name) or {}) | {"root": None}
            self.runtime_params = given | {"tasks": others | {name: own}}
        return parameters | {"tasks": tasks}

    def _lacks_images(self, parameters: dict[str, Any], task: str) -> bool:
        """True where the folder of a task, to which only checkpoint files belong, does not exist."""
        values, runs = parameters["tasks"][task], parameters.get("runs")
        root = values.get("root") if isinstance(values, dict) and values.get("format") == "image_folder" else None
        if not isinstance(root, str) or not isinstance(runs, dict):
            return False
        own = [run for run in runs.values() if isinstance(run, dict) and task in (run.get("tasks") or ())]
        files = bool(own) and all(run.get("checkpoint") for run in own)
        return files and not Path(self.place(root)).exists()

    def _name_formats(self, parameters: dict[str, Any]) -> None:
        """Note the user's own formats, of which relative files begin at the project's folder."""
        tasks = parameters.get("tasks")
        for task in tasks.values() if isinstance(tasks, dict) else ():
            name = task.get("format") if isinstance(task, dict) else None
            if isinstance(name, str) and is_reference(name):
                allow(name, self.project)

    def _with_sizes(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters with a number in place of `pictures.store_size: auto`, as the images of all tasks have it."""
        pictures = parameters.get("pictures")
        if not isinstance(pictures, dict) or pictures.get("store_size") != AUTO:
            return parameters
        tasks, written = {}, parameters.get("tasks")
        for name, values in written.items() if isinstance(written, dict) else ():
            with suppress(ValidationError):  # reported by the plan
                task = TaskOptions.model_validate(values)
                if task.pictures is None:
                    tasks[name] = task.placed(self.place)
        size = choose_size(tasks)
        if any(task.has_images for task in tasks.values()):
            log.info("pictures.store_size is auto: images are stored at %d px, as their short sides have it", size)
        else:
            log.info("pictures.store_size is auto and there are no images: spectra are for images of %d px", size)
        return parameters | {"pictures": pictures | {"store_size": size}}

    def _digest(self, digest: Callable[[str], str | None], name: str) -> str | None:
        """Of a checkpoint file, or of the user's own code of a network: its file and those that it imports."""
        if not is_reference(name):
            return digest(self.place(name))
        files = source_files(name, self.project) or [Path(self.place(name))]
        digests = [digest(str(file)) for file in files]
        return digests[0] if len(digests) == 1 else " ".join(map(str, digests))

    def place(self, path: str) -> str:
        """A path of the parameters, absolute: relative ones begin at the project's folder; names of the hub stay."""
        if is_hub_name(path):
            return path
        try:
            return str(self.project / Path(path).expanduser())
        except RuntimeError:
            raise UserError(f"{path}: no user of this name has a home folder: write the path in full") from None

    def with_places(self, run: RunSpec) -> RunSpec:
        """The run with absolute paths of the files that it reads; its fingerprint is of those that the user wrote."""
        files = {
            key: self.place(path)
            for key, path in (("checkpoint", run.checkpoint), ("pretrained", run.pretrained))
            if path is not None and path not in self.plan.runs
        }
        return run.model_copy(update=files)

    def _given_globals(self, known: Collection[str]) -> dict[str, Any]:
        """`globals` of the command, whose keys are known from files; `data` is the path of a folder."""
        given = (self.runtime_params or {}).get("globals")
        if given is None:
            return {}
        if not isinstance(given, dict):
            raise CommandLineError(f"--params globals: write globals.data=folder (got {given!r})")
        for key, value in given.items():
            if key not in known:
                raise CommandLineError(f"--params globals.{key}: unknown key; there are: {', '.join(sorted(known))}")
            if key == "data" and not is_place(value):
                raise CommandLineError(f"--params globals.data: must be the path of a folder (got {value!r})")
        return given

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key == "parameters":
            return plan_parameters(self.plan, self)
        with in_one_line(""):
            entries = self.checked_item(key)
        if key == "globals":  # of the command go before those of files, as other parameters do
            return entries | self._given_globals(entries)
        if key == "catalog":
            made = source_entries(self.plan, self.place) | pretrained_entries(self.plan, entries)
            entries = with_table_names(entries | made)
            return entries | group_entries(pipelines.values()) if is_kedro_viz() else entries
        return entries


def by_numbers(path: str) -> list[tuple[int, str]]:
    """A key that sorts `epoch_2` before `epoch_10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def _memory() -> Path:
    """File that remembers digests of the user's checkpoint files, so that a command need not read them again."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "transferscope" / "file_digests.json"


def _check_is_folder(conf_source: str | Path) -> None:
    if "://" not in str(conf_source) and not Path(conf_source).exists():
        project = find_kedro_project(Path(conf_source).resolve().parent)
        unpack = "unpack conf-transferscope.tar.gz, which `kedro package` makes, here, or name it with --conf-source"
        hint = f": run this command in the project's folder, {project}" if project else f": {unpack}"
        raise UserError(f"the folder of the configuration, {conf_source}, does not exist{hint}")
