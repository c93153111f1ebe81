"""The command line of this project: Kedro's, with a runner that uses all cores unless another is asked for."""

from __future__ import annotations

from copy import copy

import click
from kedro.framework.cli.project import run as kedro_run

DEFAULT_RUNNER = "transferscope.runners.CoresRunner"


def _with_default_runner(command: click.Command) -> click.Command:
    changed = copy(command)
    changed.params = [copy(parameter) for parameter in command.params]
    runner = next(parameter for parameter in changed.params if parameter.name == "runner")
    runner.default = DEFAULT_RUNNER
    return changed


cli = click.Group(name="transferscope", commands={"run": _with_default_runner(kedro_run)})
