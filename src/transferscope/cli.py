"""The command line of this project: Kedro's, with a runner for all GPUs and cores, and commands of its own.

A user's typing mistake ends in one line.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable
from copy import copy
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import env_option
from kedro.framework.startup import ProjectMetadata
from kedro.io.core import DatasetError
from kedro.runner import AbstractRunner
from kedro.utils import load_obj
from kedro_viz.launchers.cli.main import viz
from omegaconf.errors import OmegaConfBaseException

from transferscope.experiment.names import Namespace
from transferscope.framework.comparing.command import compare
from transferscope.framework.config import present_plan
from transferscope.framework.kedro_private import SELECTING_FILES
from transferscope.framework.viz_offline import stay_on_this_machine
from transferscope.framework.yaml_files import check_numbers, read_mapping
from transferscope.system.errors import UserError, one_line
from transferscope.system.nested import laid_over

RUNNERS = "transferscope.framework.runners"
DEFAULT_RUNNER = f"{RUNNERS}.GpuRunner"
PARAMS_HINT = "commas part the items, so a value with commas needs a file: --config"
OF_KEDRO = ("SequentialRunner", "ThreadRunner", "ParallelRunner")
OF_OURS = ("GpuRunner", "RayRunner")


def _in_one_line(callback: Callable[..., Any]) -> Callable[..., Any]:
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


def _our_run(command: click.Command) -> click.Command:
    """Kedro's `run` with our runner, and with checks of `--config` and `--params`."""
    changed = copy(command)
    assert changed.callback is not None
    changed.callback = _in_one_line(_with_runner(changed.callback))
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


class _Sizes(click.ParamType):
    """`imagenet=1281167,50000` as a task with its numbers of train and test images."""

    name = "TASK=TRAIN,TEST"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int, int]:
        task, _, numbers = value.partition("=")
        try:
            train, test = (int(number) for number in numbers.split(","))
        except ValueError:
            self.fail(f"{value!r}: write TASK=TRAIN,TEST, e.g. imagenet=1281167,50000", param, ctx)
        return task, train, test


def _overlay(ctx: click.Context, param: click.Parameter, value: Any) -> dict[str, Any]:
    """Read the options below `run:` in a file of `kedro run --config`; {} without a file."""
    options: dict[str, Any] = read_mapping(value)["run"] if value else {}
    return options


def _with_overlays(command: click.Command) -> click.Command:
    """The same command with the `--config` and `--params` of `kedro run`, read and checked in the same way."""
    by_name = {parameter.name: copy(parameter) for parameter in kedro_run.params}
    options = sorted(str(name) for name in by_name if name != "config")
    by_name["config"].callback = _checked_file(options, _overlay)
    by_name["params"].callback = _checked_params(by_name["params"].callback, PARAMS_HINT)
    command.params += [by_name["config"], by_name["params"]]
    return command


@click.command()
@env_option
@click.option("--images", multiple=True, type=_Sizes(), help="Images of a task, in place of counting them.")
@click.option("--train-speed", type=click.FloatRange(0, min_open=True), help="Images/s of training, one device.")
@click.option("--forward-speed", type=click.FloatRange(0, min_open=True), help="Images/s of a forward pass.")
@click.option("--markdown", is_flag=True, help="Tables in Markdown.")
def cost(
    env: str | None,
    images: tuple[tuple[str, int, int], ...],
    train_speed: float | None,
    forward_speed: float | None,
    markdown: bool,
    config: dict[str, Any],
    params: dict[str, Any],
) -> None:
    """Estimate what the plan needs before it runs: per figure its runs, and in all, hours on one device and disk.

    Images are counted in the folders that are there; of others the plan or --images says how many there will be.
    Without both speeds this machine is measured for some seconds, on random images, at what the plan will do.
    """
    from kedro.framework.project import pipelines

    from transferscope.cost.device_speed import Speed, Speeds, measure_speeds
    from transferscope.cost.plan_cost import plan_costs
    from transferscope.framework.command_line import CommandLineError
    from transferscope.framework.config import load_plan
    from transferscope.framework.counted_images import counted_images
    from transferscope.tables.terminal import print_tables

    plan = load_plan(env or config.get("env"), laid_over(config.get("params") or {}, params))
    nodes = pipelines["__default__"].nodes
    num_figures = sum(name.endswith(".figure") for node in nodes for name in node.outputs)
    try:
        sizes = counted_images(plan, {task: (train, test) for task, train, test in images})
        given = Speed(train_speed, forward_speed) if train_speed and forward_speed else None
        speeds: Speeds = given or measure_speeds(plan)
        tables = plan_costs(plan, sizes, speeds, num_figures=num_figures, num_nodes=len(nodes))
    except UserError as error:
        raise CommandLineError(str(error)) from None
    print_tables(tables, markdown=markdown)
    for speed in dict.fromkeys([speeds] if isinstance(speeds, Speed) else speeds.values()):
        click.echo(
            f"At {speed.train:,.0f} images/s trained and {speed.forward:,.0f} images/s evaluated "
            f"({speed.in_analyses:,.0f} in analyses), one device."
        )


@click.command()
@env_option
@click.option("--output", type=click.Path(file_okay=False), help="Folder of the site; `site` in the study's data.")
@click.option("--docs/--no-docs", default=True, help="Add the documentation, where the project has it.")
@click.option(
    "--notebooks/--no-notebooks", default=True, help="Execute the notebooks, which speak of the default study."
)
def site(env: str | None, output: str | None, docs: bool, notebooks: bool) -> None:
    """Write a static site of a finished study: report, pipelines with previews, documentation with notebooks.

    It opens from a disk, without a server and without network; index.html leads to its parts.
    """
    from kedro.framework.session import KedroSession

    from transferscope.framework.command_line import CommandLineError
    from transferscope.framework.config import active_plan
    from transferscope.framework.kedro_private import place_of
    from transferscope.framework.publish.static_site import build_site

    context = KedroSession.create(env=env).load_context()
    report = place_of(context.catalog.get("report"))
    assert report is not None
    folder = report.parents[1] / "site" if output is None else Path(output)
    try:
        execute = notebooks and context.env in (None, "local")
        build_site(active_plan(), report, context.project_path, folder, env=env, docs=docs, notebooks=execute)
    except UserError as error:
        raise CommandLineError(str(error)) from None
    click.echo(f"the site: {os.path.relpath(folder / 'index.html')}")


@click.group()
def study() -> None:
    """Begin a study of your own."""


@study.command("new")
@click.argument("name")
@click.option("--from", "copied", metavar="STUDY", help="Study of conf/ to copy with its comments, e.g. own_images.")
@click.option("--extends", "extended", metavar="STUDY", help="Study of conf/ over which the new one lays its changes.")
@click.pass_obj
def new_study(metadata: ProjectMetadata, name: str, copied: str | None, extended: str | None) -> None:
    """Write the folder conf/NAME, whose results go to data/NAME."""
    from kedro.framework.project import settings

    from transferscope.framework.new_study import copy_study, extend_study

    if (copied is None) == (extended is None):
        raise click.ClickException("give --from STUDY for a copy, or --extends STUDY for changes on top of one")
    conf = Path(metadata.project_path, settings.CONF_SOURCE)
    try:
        paths = copy_study(conf, name, copied) if copied is not None else extend_study(conf, name, str(extended))
    except UserError as error:
        raise click.ClickException(str(error)) from None
    for path in paths:
        click.echo(f"wrote {path.relative_to(metadata.project_path)}")
    click.echo(f"Edit it, then `uv run kedro run --env {name}`.")


def _our_compare(command: click.Command) -> click.Command:
    """`kedro compare`, with Kedro's errors in one line."""
    changed = copy(command)
    assert changed.callback is not None
    changed.callback = _in_one_line(changed.callback)
    return changed


run = _our_run(kedro_run)
"""The command by which `python -m transferscope` runs the packaged project, where Kedro looks for it."""

viz.callback = stay_on_this_machine  # a command of the plugin, which Kedro lets no project replace

cli = click.Group(
    name="transferscope",
    commands={
        "run": run,
        "cost": _with_overlays(cost),
        "compare": _our_compare(compare),
        "study": study,
        "site": site,
    },
)
