"""The present plan: that of the configuration loader that Kedro built last, in this process or for another one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedro.framework.project import settings
from kedro.utils import find_kedro_project

from transferscope.experiment.plan import Plan
from transferscope.experiment.run import RunSpec
from transferscope.framework.command_line import CommandLineError as CommandLineError
from transferscope.framework.plan_loader import PlanConfigLoader


def active_plan() -> Plan:
    """The plan of the loader that Kedro built last; without one (`kedro registry list`), that of `KEDRO_ENV`."""
    return present_plan() or load_plan(os.environ.get("KEDRO_ENV"))


def present_plan() -> Plan | None:
    """The plan of the loader that Kedro built last; None outside a session."""
    loader = PlanConfigLoader.latest
    return None if loader is None else loader.plan


def active_run(run: RunSpec) -> RunSpec:
    """A run of the active plan with absolute paths of the files that it reads."""
    loader = PlanConfigLoader.latest
    return run if loader is None else loader.with_places(run)


def active_place(path: str) -> str:
    """A path of the parameters, absolute."""
    loader = PlanConfigLoader.latest
    return path if loader is None else loader.place(path)


@dataclass(frozen=True)
class StudySource:
    """Origin of a plan, for another process that needs the same."""

    conf: str
    env: str | None
    runtime_params: dict[str, Any]


def present_source() -> StudySource | None:
    """That of the loader that Kedro built last; None outside a session."""
    loader = PlanConfigLoader.latest
    if loader is None:
        return None
    return StudySource(str(loader.conf_source), loader.env, dict(loader.runtime_params or {}))


def open_study(source: StudySource) -> None:
    """Make the plan of another process the present one."""
    if present_source() != source:
        PlanConfigLoader(
            source.conf, env=source.env, runtime_params=source.runtime_params, **settings.CONFIG_LOADER_ARGS
        )


def load_plan(env: str | None, params: dict[str, Any] | None = None) -> Plan:
    """The plan of an environment of the project that the present folder lies in, with parameters laid over it."""
    conf = Path(find_kedro_project(Path.cwd()) or Path.cwd()) / settings.CONF_SOURCE
    return PlanConfigLoader(str(conf), env=env, runtime_params=params or {}, **settings.CONFIG_LOADER_ARGS).plan
