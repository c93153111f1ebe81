"""The command line of this project: Kedro's, with a runner for all GPUs and cores, and commands of its own.

A user's typing mistake ends in one line.
"""

from __future__ import annotations

import os
from copy import copy
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import env_option
from kedro.framework.startup import ProjectMetadata
from kedro_viz.launchers.cli.main import viz

from transferscope.framework.comparing.command import compare
from transferscope.framework.kedro_run import in_one_line, with_our_runner, with_overlays
from transferscope.framework.viz_offline import stay_on_this_machine
from transferscope.system.errors import UserError
from transferscope.system.nested import laid_over


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
    "--notebooks/--no-notebooks", default=True, help="Execute the notebooks, which describe the default study."
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
    changed.callback = in_one_line(changed.callback)
    return changed


run = with_our_runner(kedro_run)
"""The command by which `python -m transferscope` runs the packaged project, where Kedro looks for it."""

viz.callback = stay_on_this_machine  # a command of the plugin, which Kedro lets no project replace

cli = click.Group(
    name="transferscope",
    commands={
        "run": run,
        "cost": with_overlays(cost),
        "compare": _our_compare(compare),
        "study": study,
        "site": site,
    },
)
