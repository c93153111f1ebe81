"""The command `kedro compare`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from omegaconf import OmegaConf

from transferscope.experiment.options import Pairing
from transferscope.framework.command_line import CommandLineError
from transferscope.framework.plan_loader import by_numbers
from transferscope.system.errors import UserError, one_line
from transferscope.system.nested import laid_over

if TYPE_CHECKING:
    from transferscope.framework.comparing.study_of_files import Comparison

ENVIRONMENT = "own_checkpoints"
OUTPUT = "data/compare"
"""The folder of all results, below the project's."""
_BETWEEN_PARAMS = re.compile(r",(?![^\[{]*[\]}])")
"""A comma that is in no list or mapping."""


def _parameters(context: click.Context, option: click.Parameter, text: str) -> dict[str, Any]:
    """`a.b=1,c=[2,3]` as nested parameters."""
    try:
        items = [item.strip() for item in _BETWEEN_PARAMS.split(text) if item.strip()]
        if any("=" not in item for item in items):
            raise ValueError("write key=value")
        return dict(OmegaConf.to_container(OmegaConf.from_dotlist(items)))  # type: ignore[arg-type]
    except Exception as error:  # of OmegaConf and of its YAML parser
        raise click.BadParameter(f"{text} cannot be read ({one_line(str(error))})", context, option) from None


@click.command()
@click.argument("checkpoints", nargs=-1, required=True)
@click.option(
    "--images",
    multiple=True,
    metavar="FOLDER",
    help="A folder per class, alone or below train/ and val/ or test/; again for each further task.",
)
@click.option("--model", "models", multiple=True, metavar="NAME", help="Architecture, file.py:function; one per file.")
@click.option("--parent", metavar="FILE", help="The checkpoint that all files were fine-tuned from.")
@click.option("--classes", metavar="FILE", help="All classes of the models, a line each, in the order of outputs.")
@click.option(
    "--pairs",
    type=click.Choice(get_args(Pairing)),
    help="Which files are compared: all up to 5, of more each with the first.",
)
@click.option("--max-images", type=click.IntRange(4), default=1000, show_default=True, help="Images that are used.")
@click.option("--size", type=click.IntRange(8), help="Side in pixels at which images are shown; else their own.")
@click.option("--output", metavar="FOLDER", help=f"Folder of all results; {OUTPUT} of the project.")
@click.option("--env", default=ENVIRONMENT, show_default=True, help="The environment with the options of analyses.")
@click.option("--params", default="", callback=_parameters, help="Other values of parameters, as for kedro run.")
def compare(
    checkpoints: tuple[str, ...],
    images: tuple[str, ...],
    models: tuple[str, ...],
    parent: str | None,
    classes: str | None,
    pairs: Pairing | None,
    max_images: int,
    size: int | None,
    output: str | None,
    env: str,
    params: dict[str, Any],
) -> None:
    """Compare checkpoint files: mistakes, features, weights, the line between them, spectra, and their averages.

    Architecture, classes and image size are recognised from the files. Without --images weights alone are compared.
    """
    paths = {"--images": images, "--model": models, "--parent": [parent], "--classes": [classes], "--output": [output]}
    for option, values in {"CHECKPOINTS": checkpoints, **paths}.items():
        if any(value is not None and not value.strip() for value in values):
            raise CommandLineError(f"{option} is given an empty name: name a file or folder, or leave it out")
    click.echo(f"reading {', '.join(checkpoints)}")
    try:
        comparison = read(checkpoints, images, models, parent, classes, pairs, max_images, size, params)
    except UserError as error:
        raise CommandLineError(str(error)) from None
    for line in comparison.undefined():
        click.echo(line)
    folder = {"data": str(Path.cwd() / output) if output else OUTPUT}
    run(env, laid_over(comparison.parameters() | {"globals": folder}, params))


def read(
    checkpoints: Sequence[str],
    images: Sequence[str],
    models: Sequence[str],
    parent: str | None,
    classes: str | None,
    pairs: Pairing | None,
    max_images: int,
    size: int | None,
    params: Mapping[str, Any],
) -> Comparison:
    """Read all files, print what they are recognised as, and check that they can be compared.

    Raises UserError for what cannot.
    """
    from transferscope.framework.comparing import compared_files as of_files
    from transferscope.framework.comparing import study_of_files as study

    paths = [of_files.absolute(path) for path in checkpoints]
    if pairs == "consecutive" and len(models) < 2:  # a shell puts epoch_10 before epoch_2
        paths = sorted(paths, key=by_numbers)
    all_paths = [*paths, *([of_files.absolute(parent)] if parent else [])]
    of_files.check_different(all_paths)
    if len(models) not in (0, 1, len(paths)):
        raise UserError(f"--model is given {len(models)} times for {len(paths)} files: give it once, or for each file")
    names: list[str | None] = [of_files.absolute_model(name) for name in models] or [None]
    named = [names[0]] * len(paths) if len(names) == 1 else names
    options = _model_options(params)
    files = []
    for path, label, name in zip(all_paths, of_files.labels_of(all_paths), [*named, named[0]], strict=False):
        files.append(of_files.read_file(path, label, name, options))
        click.echo(str(files[-1]))
    compared, ancestor = tuple(files[: len(paths)]), files[len(paths)] if parent else None
    class_list = of_files.absolute(classes) if classes else None
    folders = [of_files.absolute(folder) for folder in images]
    of_files.check_different(folders, "give each folder of images once")
    images_by_task: dict[str, study.Images] = {}
    for task, root, folder in zip(study.task_names(folders), folders, images, strict=True):
        images_by_task[task] = study.read_images(root, class_list, max_images)
        study.check_classes(compared, images_by_task[task])
        click.echo(f"{folder}: {images_by_task[task]}")
    if images_by_task:
        click.echo(study.normalisation(params.get("pictures") or {}))
    if ancestor is not None:
        of_files.check_ancestor(ancestor, compared)
    pairing = pairs or ("all" if len(paths) <= study.APART else "first")
    comparison = study.Comparison(compared, images_by_task, ancestor, pairing, size)
    comparison.check()
    return comparison


def _model_options(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """`model.options` of --params. Raises UserError where they are no mapping."""
    model = params.get("model") or {}
    options = model.get("options") or {} if isinstance(model, Mapping) else None
    if not isinstance(options, Mapping):
        raise UserError("--params model: write model.options.width=16; the architecture itself is given by --model")
    return options


def run(env: str, parameters: dict[str, Any]) -> None:
    """Run all pipelines of a study that is given as parameters, and print its answers."""
    from kedro.framework.session.session import KedroSession

    from transferscope.framework.runners import GpuRunner

    with KedroSession.create(project_path=_project(), env=env, runtime_params=parameters) as session:
        assert isinstance(session, KedroSession)
        session.run(runner=GpuRunner())
        click.echo(str(session.load_context().catalog.load("answers")))


def _project() -> Path:
    from kedro.utils import find_kedro_project

    return Path(find_kedro_project(Path.cwd()) or Path.cwd())
