"""The configuration loader that turns the user's parameters into a plan.

Every entry point of Kedro (run, Kedro-Viz, the catalog commands, notebooks) builds the loader before it asks for the
pipelines, so the loader is where the plan is made. It remembers itself as the active one; the registry reads
`active_plan()`. Expanded parts of the plan are added to the parameters under `plan`, and the image sources to the
catalog, so that nodes and datasets refer to them by name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from kedro.config import MissingConfigException, OmegaConfigLoader
from kedro.framework.project import pipelines
from omegaconf.errors import OmegaConfBaseException
from yaml.parser import ParserError

from transferscope.experiment.plan import Pair, Plan, make_plan, pictures_of
from transferscope.experiment.study import ONLY_FOR
from transferscope.system.errors import UserError

STUDY_KEYS = ("tasks", "generated", "runs")
"""What an environment with `inherit_study: false` takes nothing of from base."""

NAMING_TASKS = {"landscape": ("cross_domain", "planes", "basin", "criticality"), "spectrum": ("layer_pages",)}
"""Options of analyses that name tasks or runs of base, and go with them."""

SOURCE_KEYS = {"format", *ONLY_FOR}
"""Options of a task that decide which images and labels are read."""

_active: PlanConfigLoader | None = None


class CommandLineError(UserError, click.ClickException):
    """A user's mistake, shown at the command line as one line without a traceback."""

    def __init__(self, message: str):
        click.ClickException.__init__(self, message)

    def __str__(self) -> str:
        return self.message


class PlanConfigLoader(OmegaConfigLoader):
    """`OmegaConfigLoader` whose parameters hold the expanded plan."""

    def __init__(self, *args: Any, **kwargs: Any):
        global _active
        super().__init__(*args, **kwargs)
        self._plan: Plan | None = None
        _active = self
        _forget_pipelines()

    @property
    def plan(self) -> Plan:
        """The plan of this environment with its runtime parameters; made on first use."""
        if self._plan is None:
            try:
                self._plan = make_plan(super().__getitem__("parameters"))
            except UserError as error:
                raise CommandLineError(f"parameters: {error}") from None
            except (MissingConfigException, ParserError, OmegaConfBaseException) as error:
                raise CommandLineError(self._unreadable(error)) from None
        return self._plan

    def _unreadable(self, error: Exception) -> str:
        """What to say of configuration that cannot be read."""
        folder = Path(self.conf_source) / (self.env or self.default_run_env)
        if folder.is_dir():
            return " ".join(str(error).split())
        known = sorted(path.name for path in Path(self.conf_source).iterdir() if path.is_dir())
        return f"--env {folder.name}: the folder {folder} does not exist; there are: {', '.join(known)}"

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key == "parameters":
            return plan_parameters(self.plan)
        if key == "catalog":
            entries = super().__getitem__(key)
            return entries | source_entries(self.plan) | pretrained_entries(self.plan, entries)
        return super().__getitem__(key)

    def _merge_configs(self, config: dict[str, Any], env_config: dict[str, Any], key: str, env_path: str) -> Any:
        if key == "parameters" and not env_config.pop("inherit_study", True):
            config = {name: value for name, value in config.items() if name not in STUDY_KEYS}
            for analysis, options in NAMING_TASKS.items():
                for option in options:
                    config.get("analyses", {}).get(analysis, {}).pop(option, None)
        return super()._merge_configs(config, env_config, key, env_path)


def active_plan() -> Plan:
    """The plan of the loader that Kedro built last; without one (`kedro registry list`), that of `KEDRO_ENV`."""
    return load_plan(os.environ.get("KEDRO_ENV")) if _active is None else _active.plan


def present_plan() -> Plan | None:
    """The plan of the loader that Kedro built last; None outside a session."""
    return None if _active is None else _active.plan


@dataclass(frozen=True)
class StudySource:
    """Where a plan comes from, for another process that needs the same."""

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


def load_plan(env: str | None) -> Plan:
    """The plan of an environment of the project in the present folder."""
    from kedro.framework.project import settings

    conf = Path.cwd() / settings.CONF_SOURCE
    return PlanConfigLoader(str(conf), env=env, **settings.CONFIG_LOADER_ARGS).plan


def plan_parameters(plan: Plan) -> dict[str, Any]:
    """The study as validated, and under `plan` each task, run and scenario that a node takes.

    `plan.study` is the study as written, from which `make_plan` makes the whole plan again.
    """
    study = plan.study.model_dump(mode="json")
    runs: dict[str, dict[str, Any]] = {}
    for run in plan.runs.values():
        runs.setdefault(run.task, {})[run.name] = run.model_dump(mode="json")
    expanded = {
        "study": plan.study.model_dump(mode="json", exclude_unset=True),
        "runs": runs,
        "tasks": _task_parameters(plan),
        "notes": _notes(plan),
        "labels": _labels(plan),
    }
    return study | {"plan": expanded | _pair_parameters(plan)}


def _labels(plan: Plan) -> dict[str, Any]:
    """For every task, and across them, the role of each label, a role's first one first, and the label of each run."""
    scopes = {task: [*plan.runs_of(task), *plan.in_role(task, "source")] for task in plan.study.tasks}
    order = list(plan.study.runs)
    labels: dict[str, Any] = {}
    for scope, runs in {**scopes, "cross_domain": list(plan.runs.values())}.items():
        roles: dict[str, str] = {}
        for run in sorted(runs, key=lambda run: order.index(run.kind)):
            roles.setdefault(run.label, run.role)
        labels[scope] = {"roles": roles, "runs": {run.full_name: run.label for run in runs}}
    return labels


def _notes(plan: Plan) -> dict[str, str | None]:
    """What every figure of a task must say of its images."""
    generated = {task: plan.is_generated(task) for task in plan.study.tasks}
    generated["cross_domain"] = any(generated.values())
    return {scope: "generated images" if value else None for scope, value in generated.items()}


def _task_parameters(plan: Plan) -> dict[str, Any]:
    """What the packing of each part of each task depends on."""
    study = plan.study
    return {
        task: {
            part: {
                "task": task,
                "part": part,
                "pictures": pictures_of(study, task).model_dump(mode="json"),
                "on_bad_image": options.on_bad_image,
                "num_workers": options.num_workers,
            }
            for part in options.parts
        }
        for task, options in study.tasks.items()
    }


def _pair_parameters(plan: Plan) -> dict[str, Any]:
    """Every pair of every analysis by task and name, and the cross-domain scenarios."""
    analyses = plan.study.analyses
    compared = [options for options in (analyses.mistakes, analyses.similarity, analyses.landscape) if options]
    pairs = {task: _pairs(plan, task, *compared) for task in plan.targets()}
    alike = {task: _pairs(plan, task, analyses.similarity) for task in plan.targets()} if analyses.similarity else {}
    scenarios = {item.figure: item for item in (analyses.landscape.cross_domain if analyses.landscape else ())}
    across = {
        name: _pair(pair) | {"scenario": figure, "evaluated_on": scenario.evaluated_on}
        for figure, scenario in scenarios.items()
        for name, pair in plan.cross_domain_pairs(scenario).items()
    }
    return {
        "pairs": pairs,
        "similarity_pairs": alike,
        "cross_domain": {figure: scenario.model_dump(mode="json") for figure, scenario in scenarios.items()},
        "cross_domain_pairs": across,
        "planes": _plane_parameters(plan),
    }


def _plane_parameters(plan: Plan) -> dict[str, Any]:
    """The planes of every task by name."""
    landscape = plan.study.analyses.landscape
    found: dict[str, Any] = {}
    for plane in landscape.planes if landscape else ():
        found.setdefault(plane.task, {})[plane.name] = plane.model_dump(mode="json")
    return found


def _pairs(plan: Plan, task: str, *analyses: Any) -> dict[str, dict[str, str]]:
    return {pair.name: _pair(pair) for options in analyses for pair in plan.pairs(task, options.pairs)}


def _pair(pair: Pair) -> dict[str, str]:
    return {"kind": pair.kind, "run_a": pair.run_a.full_name, "run_b": pair.run_b.full_name}


def source_entries(plan: Plan) -> dict[str, Any]:
    """A catalog entry for the images of each task as distributed."""
    entries = {}
    for name, task in plan.study.tasks.items():
        if task.union is None:
            options = task.model_dump(mode="json", include=SOURCE_KEYS)
            entries[f"{name}.source"] = {
                "type": "transferscope.datasets.image_source.ImageSourceDataset",
                "filepath": task.root,
                "task": name,
                "options": options,
                "metadata": {"kedro-viz": {"layer": "raw"}},
            }
    return entries


def pretrained_entries(plan: Plan, patterns: dict[str, Any]) -> dict[str, Any]:
    """What target tasks read of a run that others start from: model input to them, like their images.

    As model output it would stand before the splits of the targets and after those of its own task, and Kedro-Viz
    shows no layers where they go in a circle.
    """
    entries = {}
    starts = {run.pretrained for run in plan.runs.values()}
    for run in (run for name, run in plan.runs.items() if name in starts):
        for kind in ("checkpoints", "singular_values"):
            pattern = patterns[f"{{task}}.{{run}}.{kind}"]
            place = pattern["filepath"].replace("{task}", run.task).replace("{run}", run.name)
            layer = {"metadata": {"kedro-viz": {"layer": "model_input"}}}
            entries[f"{run.full_name}.{kind}"] = pattern | {"filepath": place} | layer
    return entries


def _forget_pipelines() -> None:
    """Pipelines follow from the plan, so another environment or other parameters need other pipelines."""
    pipelines._is_data_loaded = False
    pipelines._content = {}
