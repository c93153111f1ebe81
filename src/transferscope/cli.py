"""The command line of this project: Kedro's, with a runner that uses all GPUs and cores, and `kedro cost`.

What a user mistypes ends in one line.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from copy import copy
from difflib import get_close_matches
from functools import wraps
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import env_option

DEFAULT_RUNNER = "transferscope.framework.runners.GpuRunner"


KEDRO_SELECTS = ("kedro/pipeline/pipeline.py", "kedro/framework/session/session.py")
"""Where Kedro finds the steps that were asked for, or raises a ValueError."""


def _in_one_line(callback: Callable[..., Any]) -> Callable[..., Any]:
    """The same command; names of pipelines, steps and namespaces that do not exist end in a line with what is near."""

    @wraps(callback)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return callback(*args, **options)
        except ValueError as error:
            raised_in = traceback.extract_tb(error.__traceback__)[-1].filename.replace("\\", "/")
            if not raised_in.endswith(KEDRO_SELECTS):
                raise
            raise click.ClickException(_with_hint(str(error))) from error

    return run


def _with_hint(message: str) -> str:
    """Kedro's message in one line, and the names of the study that are nearest to those that it quotes."""
    from kedro.framework.project import pipelines

    message = " ".join(message.split())
    if "Did you mean" in message:
        return message
    nodes = pipelines["__default__"].nodes
    known = {
        name for node in nodes for name in (node.name, node.namespace, (node.namespace or "").split(".")[0]) if name
    }
    near = [name for word in re.findall(r"'([^']+)'", message) for name in get_close_matches(word, known)]
    hint = f"did you mean {', '.join(near)}?" if near else "`kedro registry describe` lists the steps"
    return f"{message.rstrip('.')}: {hint}"


def _with_default_runner(command: click.Command) -> click.Command:
    changed = copy(command)
    assert changed.callback is not None
    changed.callback = _in_one_line(changed.callback)
    changed.params = [copy(parameter) for parameter in command.params]
    runner = next(parameter for parameter in changed.params if parameter.name == "runner")
    runner.default = DEFAULT_RUNNER
    return changed


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


@click.command()
@env_option
@click.option("--images", multiple=True, type=_Sizes(), help="Images of a task where the plan does not say how many.")
@click.option("--train-speed", type=click.FloatRange(0, min_open=True), help="Images/s of a training step, one device.")
@click.option("--forward-speed", type=click.FloatRange(0, min_open=True), help="Images/s of a forward pass.")
@click.option("--markdown", is_flag=True, help="Tables in Markdown.")
def cost(
    env: str | None,
    images: tuple[tuple[str, int, int], ...],
    train_speed: float | None,
    forward_speed: float | None,
    markdown: bool,
) -> None:
    """What the plan needs before it is run: per figure its runs, hours on one device, disk.

    Without both speeds this machine is measured for some seconds, on random images.
    """
    from transferscope.cost.plan_cost import Speed, measure_speed, plan_costs
    from transferscope.experiment.plan import pictures_of
    from transferscope.framework.config import CommandLineError, load_plan
    from transferscope.system.errors import UserError
    from transferscope.tables.terminal import print_tables

    plan = load_plan(env)
    try:
        if train_speed and forward_speed:
            speed = Speed(train_speed, forward_speed)
        else:
            task = next(iter(plan.study.tasks))
            speed = measure_speed(plan.study.model, pictures_of(plan.study, task).seen_size)
        tables = plan_costs(plan, {task: (train, test) for task, train, test in images}, speed)
    except UserError as error:
        raise CommandLineError(str(error)) from None
    print_tables(tables, markdown=markdown)
    click.echo(f"At {speed.train:,.0f} images/s trained and {speed.forward:,.0f} images/s evaluated, one device.")


cli = click.Group(name="transferscope", commands={"run": _with_default_runner(kedro_run), "cost": cost})
