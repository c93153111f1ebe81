"""Kedro's configuration loader with environments that extend one another, and with checks of the files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from kedro.config import OmegaConfigLoader

from transferscope.framework.overlays import EXTENDS, check_own_data, environments_below
from transferscope.framework.yaml_files import read_mapping
from transferscope.system.errors import UserError, one_message

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


class EnvironmentLoader(OmegaConfigLoader):
    """`OmegaConfigLoader` that lays an environment over those that it extends, with or without the study of base."""

    def __init__(self, conf_source: str | Path, *args: Any, **kwargs: Any):
        self._checked: set[str] = set()
        self._below: list[str] | None = None
        super().__init__(conf_source, *args, **kwargs)

    def checked_item(self, key: str) -> dict[str, Any]:
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
                    if name == "data" and not is_place(value):
                        shown = "no value" if value is None else repr(value)
                        raise UserError(
                            f"{path}: {name}: must be the path of a folder, relative to the project or in full, as in "
                            f"`{name}: data/my_study` (got {shown})"
                        )

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


def _yaml_below(conf: Path) -> Iterator[Path]:
    """The files of all environments, which may be links to folders elsewhere."""
    for folder in (conf, *(path for path in conf.iterdir() if path.is_dir())):
        named = folder.glob("*.y*ml") if folder == conf else folder.rglob("*.y*ml")
        yield from (path for path in named if path.is_file())


def is_place(value: Any) -> bool:
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
