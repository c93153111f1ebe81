"""Check that the inputs of a pipeline exist, are whole, and were made by the present plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kedro.framework.project import pipelines
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from transferscope.experiment.names import EntryName
from transferscope.experiment.run import RunSpec
from transferscope.framework.command_line import CommandLineError
from transferscope.framework.config import active_plan
from transferscope.framework.kedro_private import place_of
from transferscope.framework.runners.failures import run_command, users_mistake
from transferscope.system.errors import UserError
from transferscope.system.stored import DamagedError


def input_faults(pipeline: Pipeline, catalog: CatalogProtocol) -> Iterator[str]:
    """Free inputs of the pipeline that do not exist, are damaged, or are checkpoints of another plan."""
    missing = []
    for name in sorted(pipeline.inputs()):
        if name.startswith("params:") or name == "parameters":
            continue
        dataset = catalog.get(name)
        if dataset is None or not dataset.exists():
            damage = _damage(dataset)
            if damage is None:
                missing.append(name)
            else:
                yield f"{damage.path} is damaged ({damage.reason}): {_repair(name)}"
        elif name.endswith(".checkpoints"):
            try:
                check_fingerprint(name, dataset.load().fingerprint)
            except Exception as error:  # of Kedro, around ours
                yield str(users_error(error))
    sources = [name for name in missing if name.endswith(".source")]
    for name in dict.fromkeys(shown_place(catalog, name) for name in sources):
        yield f"the folder {name} does not exist: put the images there{_or_without(sources)}"
    others = [name for name in missing if name not in sources]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        yield f"{others[0]}{more}: not there yet; {_how_to_make(others[0])}"


def _or_without(sources: Iterable[str]) -> str:
    """Advice on comparing checkpoint files without images, where a task has no other runs."""
    plan = active_plan()
    for task in (EntryName.parse(source).task or "" for source in sources):
        if all(run.checkpoint is not None for run in plan.runs_of(task)):
            key = f"tasks.{task}.root"
            return f", name another as {key}, or compare the weights alone by `--params {key}=null`"
    return ""


def check_fingerprint(name: str, fingerprint: str) -> None:
    """The checkpoints of a run were made as the present plan would make them."""
    plan = active_plan()
    run = plan.runs.get(EntryName.parse(name).owner)
    if run is not None and fingerprint != run.fingerprint:
        raise CommandLineError(
            f"{name}: made by another plan{_or_file(run)} (fingerprint {fingerprint}, now {run.fingerprint}); "
            f"train again with `{run_command('--nodes', str(plan.node_of(run)))}`, or undo the change of "
            "parameters"
        )


def _or_file(run: RunSpec) -> str:
    """The file that a run is read from, whose content is part of its fingerprint."""
    return "" if run.checkpoint is None else f", or from another content of {run.checkpoint}"


def _how_to_make(name: str) -> str:
    """The command that makes a missing entry."""
    return f"make it with `{run_command('--pipelines', _maker(name))}`"


def _maker(name: str) -> str:
    """The pipeline that makes an entry."""
    makers = (maker for maker, made in pipelines.items() if maker != "__default__" and name in made.all_outputs())
    return next(makers, "__default__")


def _damage(dataset: Any) -> DamagedError | None:
    """The damage of an entry that is not as it was written; None for one that does not exist."""
    from transferscope.images.split import PackedSplit
    from transferscope.models.series import CheckpointSeries

    try:
        if dataset is not None:
            content = dataset.load()
            if isinstance(content, CheckpointSeries | PackedSplit):
                content.check()
    except Exception as error:  # of Kedro, around ours
        mistake = users_mistake(error)
        return mistake if isinstance(mistake, DamagedError) else None
    return None


def _repair(name: str) -> str:
    """The command that makes a damaged entry anew."""
    entry, plan = EntryName.parse(name), active_plan()
    run = plan.runs.get(entry.owner) if entry.form == "checkpoints" else None
    if run is not None:
        return f"`{run_command('--nodes', str(plan.node_of(run)))}` repairs it"
    return f"make it anew with `{run_command('--pipelines', _maker(name))}`"


def users_error(error: Exception) -> UserError:
    """The user's mistake behind an error; any other error goes on."""
    mistake = users_mistake(error)
    if mistake is None:
        raise error
    return mistake


def shown_place(catalog: CatalogProtocol, name: str) -> str:
    """The path of an entry, relative to the working folder where possible."""
    place = place_of(catalog.get(name))
    assert place is not None
    path = place.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
