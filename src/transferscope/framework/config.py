"""The configuration loader that turns the user's parameters into a plan.

Every entry point of Kedro (run, Kedro-Viz, the catalog commands, notebooks) builds the loader before it asks for the
pipelines, so the loader is where the plan is made. It remembers itself as the active one; the registry reads
`active_plan()`. Expanded parts of the plan are added to the parameters and to the catalog (`plan_parameters`).
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
import yaml
from kedro.config import MissingConfigException, OmegaConfigLoader
from kedro.framework.project import pipelines
from kedro.utils import find_kedro_project
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from transferscope.datasets.picture_size import AUTO, choose_size
from transferscope.experiment.plan import Plan, make_plan
from transferscope.experiment.run import RunSpec
from transferscope.experiment.study import TaskOptions
from transferscope.framework.kedro_private import forget_pipelines, is_kedro_viz
from transferscope.framework.overlays import EXTENDS, check_own_data, environments_below
from transferscope.framework.plan_parameters import plan_parameters, pretrained_entries, source_entries
from transferscope.framework.table_schemas import with_table_names
from transferscope.framework.viz_view import group_entries
from transferscope.framework.yaml_files import read_mapping
from transferscope.models.hub_cache import is_hub_name
from transferscope.system.errors import UserError, one_line, one_message
from transferscope.system.references import allow, is_reference, source_file
from transferscope.system.stored import remembered_digests

log = logging.getLogger("transferscope")

STUDY_KEYS = ("tasks", "generated", "runs", "feature_reuse", "source_epochs")
"""Keys that an environment with `inherit_study: false` does not take from base."""

CONFIG_SUFFIXES = (".yml", ".yaml", ".json")
"""Of the files that Kedro reads."""

NAMING_TASKS = {
    "mistakes": ("replace",),
    "landscape": ("cross_domain", "planes", "basin", "criticality", "connection"),
    "spectrum": ("layer_pages", "padding", "network_tasks"),
    "merging": ("merges", "alphas", "scales", "statistics", "fisher_examples"),
}
"""Options of analyses that name tasks or runs of base, or are costly for other networks, and go with the study."""

_active: PlanConfigLoader | None = None


class CommandLineError(UserError, click.ClickException):
    """A user's mistake, shown at the command line without a traceback: one line, or a line for each of several."""

    def __init__(self, message: str):
        click.ClickException.__init__(self, "\n".join(_escaped(line) for line in message.splitlines()))

    def __str__(self) -> str:
        return self.message


def _escaped(line: str) -> str:
    """A line without characters that a terminal would obey; its indentation stays."""
    return line[: len(line) - len(line.lstrip())] + one_line(line)


class PlanConfigLoader(OmegaConfigLoader):
    """`OmegaConfigLoader` whose parameters hold the expanded plan."""

    def __init__(self, conf_source: str | Path, *args: Any, **kwargs: Any):
        global _active
        self._plan: Plan | None = None
        self._checked: set[str] = set()
        self._below: list[str] | None = None
        with _one_line(""):
            _check_is_folder(conf_source)
            super().__init__(conf_source, *args, **kwargs)
        _active = self
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
            with _one_line("", is_needed=True):
                parameters = self._with_own_study(self._checked_item("parameters"))
                parameters = self._with_files(self._without_absent_folders(parameters))
            self._name_formats(parameters)
            digest = remembered_digests(_memory())
            with _one_line("parameters: "):
                self._plan = make_plan(self._with_sizes(parameters), lambda name: digest(self._file_of(name)))
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
        found = dict(runs)
        for kind, options in runs.items():
            pattern = options.get("checkpoints") if isinstance(options, dict) else None
            if not isinstance(pattern, str) or not glob.has_magic(pattern):
                continue
            files = sorted(glob.glob(self.place(pattern)), key=by_numbers)
            if not files:
                raise UserError(f"runs.{kind}.checkpoints: no file is there for {pattern}")
            found[kind] = options | {"checkpoints": [self._relative(file) for file in files]}
        return parameters | {"runs": found}

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
        tasks = {}
        for name, values in (parameters.get("tasks") or {}).items():
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

    def _file_of(self, name: str) -> str:
        """The checkpoint file of a path, or the file with the code of a network of the user's own."""
        code = source_file(name, self.project) if is_reference(name) else None
        return self.place(str(code or name))

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

    def _checked_item(self, key: str) -> dict[str, Any]:
        """The configuration of `key` as Kedro reads it, after a check of its files."""
        if self._protocol == "file" and key in self.config_patterns and key not in self._checked:
            self._check_environment()
            self._check_files(key)
            self._checked.add(key)
        return super().__getitem__(key)

    def _check_environment(self) -> None:
        conf, env = Path(str(self.conf_source)), self.env or self.default_run_env
        if env and not (conf / env).is_dir():
            known = sorted(path.name for path in conf.iterdir() if path.is_dir() and not path.name.startswith("."))
            raise UserError(f"--env {env}: the folder {conf / env} does not exist; there are: {', '.join(known)}")

    def _environments(self) -> list[str]:
        """Base, the environments that the present one extends, and the present one, the lowest first."""
        env = self.env or self.default_run_env
        if self._below is None:
            self._below = []
            if env != self.base_env:
                folder = Path(self._get_conf_env_path(env)).parent
                known = sorted(
                    Path(path).name for path in self._fs.ls(str(folder), detail=False) if self._fs.isdir(path)
                )
                self._below = environments_below(env, self.base_env, self._extended_by, known)
        return list(dict.fromkeys((self.base_env, *self._below, env)))

    def _extended_by(self, env: str) -> tuple[str, Any] | None:
        """The file of an environment's parameters that has the key `extends`, and its value."""
        for path in sorted(self._files(Path(self._get_conf_env_path(env)), "parameters")):
            content = read_mapping(path) if self._protocol == "file" else yaml.safe_load(self._fs.cat_file(str(path)))
            if EXTENDS in (content or {}):
                return str(path), content[EXTENDS]
        return None

    def _check_files(self, key: str) -> None:
        """UserError that lists the files that are no YAML, or in one folder hold the same keys."""
        faults = []
        for env in self._environments():
            folder, first = Path(str(self.conf_source)) / env, dict[Any, Path]()
            for path in sorted(self._named(folder, key)):
                try:
                    for name in read_mapping(path):
                        if name in first and not str(name).startswith("_"):
                            faults.append(f"{path}: the key '{name}' is in {first[name].name} of the same folder, too")
                        first.setdefault(name, path)
                except UserError as error:
                    faults.append(str(error))
        if faults:
            raise UserError(one_message(faults))
        if key == "globals":
            self._check_globals()
        if key == "parameters":
            self._check_names()

    def _check_names(self) -> None:
        """UserError for a file whose name is nearly one that is read; other packages have files of other names."""
        for env in self._environments():
            for path in sorted((Path(str(self.conf_source)) / env).glob("*.y*ml")):
                near = get_close_matches(path.stem.casefold(), self.config_patterns, 1, cutoff=0.8)
                if near and not path.stem.startswith(near[0]):
                    raise UserError(f"{path}: no file of this name is read; did you mean {near[0]}{path.suffix}?")

    def _files(self, folder: Path, key: str) -> set[Path]:
        """The files that Kedro reads from an environment's folder for `key`."""
        return {path for path in self._named(folder, key) if self._is_valid_config_path(path)}

    def _named(self, folder: Path, key: str) -> set[Path]:
        """All that has the name of such a file; Kedro passes over folders, pipes and links to nothing."""
        patterns = self.config_patterns[key]
        paths = {Path(path) for pattern in patterns for path in self._fs.glob(f"{folder}/{pattern}")}
        paths |= {folder / name for name in patterns if (folder / name).is_symlink()}  # also those that lead nowhere
        return {path for path in paths if path.suffix in CONFIG_SUFFIXES and not self._is_passed_over(path)}

    def _is_passed_over(self, path: Path) -> bool:
        """True for a hidden file; not for a link that leads to itself, at which Kedro's own question fails."""
        try:
            return self._is_hidden(str(path))
        except RuntimeError:
            return False

    def _check_globals(self) -> None:
        """Every key of `globals.yml` is one that some file of the configuration refers to; `data` is a path."""
        conf, texts = Path(str(self.conf_source)), list[str]()
        for env in self._environments():
            for path in self._files(conf / env, "globals"):
                for name, value in read_mapping(path).items():
                    texts = texts or [file.read_text(errors="replace") for file in _yaml_below(conf)]
                    used = re.compile(rf"\$\{{\s*globals\s*:\s*{re.escape(str(name))}\s*[.,}}\[]")
                    if not any(used.search(text) for text in texts):
                        raise UserError(f"{path}: unknown key '{name}': nothing refers to it as ${{globals:{name}}}")
                    if name == "data" and not _is_place(value):
                        shown = "no value" if value is None else repr(value)
                        raise UserError(
                            f"{path}: {name}: must be the path of a folder, relative to the project or in full, as in "
                            f"`{name}: data/my_study` (got {shown})"
                        )

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key == "parameters":
            return plan_parameters(self.plan, self)
        with _one_line(""):
            entries = self._checked_item(key)
        if key == "globals":  # of the command go before those of files, as other parameters do
            return entries | ((self.runtime_params or {}).get("globals") or {})
        if key == "catalog":
            made = source_entries(self.plan, self.place) | pretrained_entries(self.plan, entries)
            entries = with_table_names(entries | made)
            return entries | group_entries(pipelines.values()) if is_kedro_viz() else entries
        return entries

    def _merge_configs(self, config: dict[str, Any], env_config: dict[str, Any], key: str, env_path: str) -> Any:
        """Lay the environment over base, and before it those that it extends."""
        *below, env = self._environments()[1:]
        for name in below:
            path = self._get_conf_env_path(name)
            values = self.load_and_merge_dir_config(path, self.config_patterns[key], key, set(), key == "credentials")
            config = self._merge_environment(config, values, key, path)
        if below and key == "globals":
            check_own_data(env_config, env, env_path)
        return self._merge_environment(config, env_config, key, env_path)

    def _merge_environment(self, config: dict[str, Any], env_config: dict[str, Any], key: str, env_path: str) -> Any:
        if key == "parameters":
            env_config.pop(EXTENDS, None)
        if key == "parameters" and not _inherits(env_config, env_path):
            config = {name: value for name, value in config.items() if name not in STUDY_KEYS}
            analyses = config.get("analyses")
            for analysis, options in NAMING_TASKS.items():
                inside = analyses.get(analysis) if isinstance(analyses, dict) else None
                if isinstance(inside, dict):  # else null, or reported by the plan
                    for option in options:
                        inside.pop(option, None)
                    if not inside and analysis == "merging":  # nothing is merged without names of runs
                        config["analyses"].pop(analysis)
        fault = _list_for_mapping(config, env_config) if key == "parameters" else None
        if fault is not None:
            raise UserError(f"{env_path}: {fault}: a list, where `key: value` lines belong")
        return super()._merge_configs(config, env_config, key, env_path)


def by_numbers(path: str) -> list[tuple[int, str]]:
    """A key that sorts `epoch_2` before `epoch_10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def _yaml_below(conf: Path) -> Iterator[Path]:
    """The files of all environments, which may be links to folders elsewhere."""
    for folder in (conf, *(path for path in conf.iterdir() if path.is_dir())):
        named = folder.glob("*.y*ml") if folder == conf else folder.rglob("*.y*ml")
        yield from (path for path in named if path.is_file())


def _is_place(value: Any) -> bool:
    """True if a value names a folder that Kedro and we find at the same place."""
    return isinstance(value, str) and bool(value.strip()) and not value.startswith("~") and "\0" not in value


def _inherits(env_config: dict[str, Any], env_path: str) -> bool:
    """True if an environment takes over the study of base; takes the key that says so out of its parameters."""
    value = env_config.pop("inherit_study", True)
    if not isinstance(value, bool):
        raise UserError(f"{env_path}: inherit_study: must be true or false (got {value!r})")
    return value


def _list_for_mapping(config: Any, env_config: Any, prefix: str = "") -> str | None:
    """The first key that holds a mapping in base and a list in an environment, which cannot be merged."""
    for name, value in env_config.items():
        other = config.get(name)
        if isinstance(other, dict) and isinstance(value, list):
            return f"{prefix}{name}"
        if isinstance(other, dict) and isinstance(value, dict):
            below = _list_for_mapping(other, value, f"{prefix}{name}.")
            if below is not None:
                return below
    return None


def _memory() -> Path:
    """File that remembers digests of the user's checkpoint files, so that a command need not read them again."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "transferscope" / "file_digests.json"


@contextmanager
def _one_line(where: str, *, is_needed: bool = False) -> Iterator[None]:
    """Turn mistakes in the configuration into errors of the command line.

    Where files may be missing, as those of credentials, Kedro gets its own error.
    """
    try:
        yield
    except CommandLineError:
        raise
    except (UserError, OmegaConfBaseException, yaml.YAMLError) as error:
        key = getattr(error, "full_key", None)
        raise CommandLineError(f"{where}{f'{key}: ' if key else ''}{_first_lines(error)}") from None
    except MissingConfigException as error:
        if not is_needed:
            raise
        raise CommandLineError(f"{where}{one_line(str(error))}") from None


def _first_lines(error: Exception) -> str:
    """The message; of OmegaConf's, which go on about its classes, the first line."""
    return str(error) if isinstance(error, UserError) else one_line(str(error).strip().partition("\n")[0])


def _check_is_folder(conf_source: str | Path) -> None:
    if "://" not in str(conf_source) and not Path(conf_source).exists():
        project = find_kedro_project(Path(conf_source).resolve().parent)
        unpack = "unpack conf-transferscope.tar.gz, which `kedro package` makes, here, or name it with --conf-source"
        hint = f": run this command in the project's folder, {project}" if project else f": {unpack}"
        raise UserError(f"the folder of the configuration, {conf_source}, does not exist{hint}")


def active_plan() -> Plan:
    """The plan of the loader that Kedro built last; without one (`kedro registry list`), that of `KEDRO_ENV`."""
    return load_plan(os.environ.get("KEDRO_ENV")) if _active is None else _active.plan


def present_plan() -> Plan | None:
    """The plan of the loader that Kedro built last; None outside a session."""
    return None if _active is None else _active.plan


def active_run(run: RunSpec) -> RunSpec:
    """A run of the active plan with absolute paths of the files that it reads."""
    return run if _active is None else _active.with_places(run)


def active_place(path: str) -> str:
    """A path of the parameters, absolute."""
    return path if _active is None else _active.place(path)


@dataclass(frozen=True)
class StudySource:
    """Origin of a plan, for another process that needs the same."""

    conf: str
    env: str | None
    runtime_params: dict[str, Any]


def present_source() -> StudySource | None:
    """That of the loader that Kedro built last; None outside a session."""
    if _active is None:
        return None
    return StudySource(str(_active.conf_source), _active.env, dict(_active.runtime_params or {}))


def open_study(source: StudySource) -> None:
    """Make the plan of another process the present one."""
    if present_source() != source:
        from kedro.framework.project import settings

        PlanConfigLoader(
            source.conf, env=source.env, runtime_params=source.runtime_params, **settings.CONFIG_LOADER_ARGS
        )


def load_plan(env: str | None, params: dict[str, Any] | None = None) -> Plan:
    """The plan of an environment of the project that the present folder lies in, with parameters laid over it."""
    from kedro.framework.project import settings

    conf = Path(find_kedro_project(Path.cwd()) or Path.cwd()) / settings.CONF_SOURCE
    return PlanConfigLoader(str(conf), env=env, runtime_params=params or {}, **settings.CONFIG_LOADER_ARGS).plan
