"""Kedro's `run` command with a runner for all GPUs and cores, and with a user's mistakes in one line each.

Other commands take its `--config` and `--params`, read and checked in the same way (`with_overlays`).
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from copy import copy
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.io.core import DatasetError
from kedro.runner import AbstractRunner
from kedro.utils import load_obj
from omegaconf.errors import OmegaConfBaseException

from transferscope.experiment.names import Namespace
from transferscope.framework.config import present_plan
from transferscope.framework.kedro_private import SELECTING_FILES
from transferscope.framework.yaml_files import check_numbers, read_mapping
from transferscope.system.errors import UserError, one_line

RUNNERS = "transferscope.framework.runners"
DEFAULT_RUNNER = f"{RUNNERS}.GpuRunner"
PARAMS_HINT = "commas separate the items, so a value with commas needs a file: --config"
OF_KEDRO = ("SequentialRunner", "ThreadRunner", "ParallelRunner")
OF_OURS = ("GpuRunner", "RayRunner")


def in_one_line(callback: Callable[..., Any]) -> Callable[..., Any]:
    """The same command; names of pipelines, nodes and namespaces that do not exist end in a line with what is near."""

    @wraps(callback)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return callback(*args, **options)
        except click.ClickException:
            raise
        except (DatasetError, OmegaConfBaseException) as error:  # an entry of the catalog that cannot be made
            raise click.ClickException(one_line(str(error))) from error
        except ValueError as error:
            raised_in = traceback.extract_tb(error.__traceback__)[-1].filename.replace("\\", "/")
            if not raised_in.endswith(SELECTING_FILES):
                raise
            raise click.ClickException(_with_hint(str(error))) from error

    return run


def _with_runner(callback: Callable[..., Any]) -> Callable[..., Any]:
    """The same command, which knows our runners by their names, and refuses others and options that a runner lacks."""

    @wraps(callback)
    def run(*args: Any, runner: str, runner_params: dict[str, Any], **options: Any) -> Any:
        path = f"{RUNNERS}.{runner}" if runner in OF_OURS else runner
        known = [*signature(_runner_class(path, runner)).parameters.values()]
        names = [parameter.name for parameter in known if parameter.kind is not Parameter.VAR_KEYWORD]
        unknown = next((key for key in runner_params if key not in names), None)
        if unknown is not None and len(names) == len(known):
            raise click.ClickException(f"--runner-params {unknown}: {runner} has only {', '.join(names)}")
        return callback(*args, runner=path, runner_params=runner_params, **options)

    return run


def _runner_class(path: str, name: str) -> type[AbstractRunner]:
    try:
        runner = load_obj(path, "kedro.runner")
    except (ImportError, AttributeError, ValueError):
        runner = None
    if not (isinstance(runner, type) and issubclass(runner, AbstractRunner)):
        there = ", ".join((*OF_OURS, *OF_KEDRO))
        raise click.ClickException(f"--runner {name}: no runner has this name; give {there}, or package.module.Class")
    return runner


def _with_hint(message: str) -> str:
    """Kedro's message in one line, and the names of the study that are nearest to those that it quotes."""
    from kedro.framework.project import pipelines

    message = " ".join(message.split())
    missing = re.search(r"pipeline named '([^']*)'", message)
    if missing:
        near = get_close_matches(missing[1], pipelines, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(pipelines))}"
        return f"there is no pipeline '{missing[1]}': {hint}"
    with_others = _trained_with_others()
    for word in re.findall(r"'([^']+)'", message):
        if word in with_others:
            return f"{word} is trained with others (training.together): choose the node {with_others[word]}"
    if "Did you mean" in message:
        return message
    nodes = pipelines["__default__"].nodes
    known = {
        name
        for node in nodes
        for name in (node.name, *(Namespace.parse(node.namespace).levels if node.namespace else ()))
    }
    near = [name for word in re.findall(r"'([^']+)'", message) for name in get_close_matches(word, known)]
    hint = f"did you mean {', '.join(near)}?" if near else "`kedro registry describe` lists the nodes"
    return f"{message.rstrip('.')}: {hint}"


def _trained_with_others() -> dict[str, str]:
    """The node of each run that is trained with others, by the name that it has for a run alone."""
    plan = present_plan()
    groups = plan.run_groups if plan is not None else []
    return {str(run.node): str(group.node) for group in groups for run in group.runs}


def with_our_runner(command: click.Command) -> click.Command:
    """Kedro's `run` with our runner, and with checks of `--config` and `--params`."""
    changed = copy(command)
    assert changed.callback is not None
    changed.callback = in_one_line(_with_runner(changed.callback))
    changed.params = [copy(parameter) for parameter in command.params]
    by_name = {parameter.name: parameter for parameter in changed.params}
    by_name["runner"].default = DEFAULT_RUNNER
    options = sorted(str(name) for name in by_name if name != "config")
    by_name["config"].callback = _checked_file(options, by_name["config"].callback)
    hints = {"params": PARAMS_HINT, "runner_params": PARAMS_HINT, "load_versions": "write entry:version"}
    for name, hint in hints.items():
        by_name[name].callback = _checked_params(by_name[name].callback, hint)
    return changed


Callback = Callable[[click.Context, click.Parameter, Any], Any]


def _checked_file(options: list[str], callback: Callback | None) -> Callback:
    """Kedro's reading of `--config`, after a check that the file holds `run:` and below it options of `kedro run`."""

    def read(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        assert callback is not None
        if value:
            try:
                content = read_mapping(value)
            except UserError as error:
                raise click.ClickException(f"--config: {error}") from None
            _check_overlay(value, content, options)
        return callback(ctx, param, value)

    return read


def _check_overlay(path: str, content: dict[Any, Any], options: list[str]) -> None:
    inside = content.get("run")
    others = [key for key in content if key != "run"]
    if others or not isinstance(inside, dict):
        keys = f"has the key '{others[0]}'" if others else "has no key 'run'"
        raise click.ClickException(
            one_line(f"--config {path}: the file {keys}; options stand below `run:`, e.g. run: {{env: paper}}")
        )
    for key, value in inside.items():
        if key not in options:
            near = get_close_matches(str(key), options, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(options)}"
            raise click.ClickException(one_line(f"--config {path}: run.{key}: unknown option; {hint}"))
        if key in ("params", "runner_params") and not isinstance(value, dict | str):
            raise click.ClickException(f"--config {path}: run.{key}: write `key: value` lines below it")


def _checked_params(callback: Callback | None, hint: str) -> Callback:
    """Kedro's reading of `--params` and its like; an option that it cannot parse is one line, with a hint."""

    def read(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        assert callback is not None
        name = "--" + str(param.name).replace("_", "-")
        try:
            check_numbers(value)
            return callback(ctx, param, value)
        except UserError as error:
            raise click.ClickException(f"{name}: {error}") from None
        except Exception as error:  # of Kedro, of OmegaConf and of its YAML parser
            reason = error.message if isinstance(error, click.ClickException) else str(error)
            raise click.ClickException(f"{name}: cannot be read ({one_line(reason)}); {hint}") from None

    return read


def _overlay(ctx: click.Context, param: click.Parameter, value: Any) -> dict[str, Any]:
    """Read the options below `run:` in a file of `kedro run --config`; {} without a file."""
    options: dict[str, Any] = read_mapping(value)["run"] if value else {}
    return options


def with_overlays(command: click.Command) -> click.Command:
    """The same command with the `--config` and `--params` of `kedro run`, read and checked in the same way."""
    by_name = {parameter.name: copy(parameter) for parameter in kedro_run.params}
    options = sorted(str(name) for name in by_name if name != "config")
    by_name["config"].callback = _checked_file(options, _overlay)
    by_name["params"].callback = _checked_params(by_name["params"].callback, PARAMS_HINT)
    command.params += [by_name["config"], by_name["params"]]
    return command
