"""One node in a worker of a Ray cluster."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline.node import Node
from kedro.runner import Task
from pluggy import PluginManager

from transferscope.framework.config import StudySource, open_study
from transferscope.framework.kedro_private import add_validators, project_hooks
from transferscope.framework.runners.failures import reason, users_mistake
from transferscope.framework.runners.notes import Notes, notes_of

if TYPE_CHECKING:
    from kedro.validation import ValidatorSpec


@dataclass(frozen=True)
class NodeTask:
    """All that a worker needs: the node, the entries that it reads and writes, where the study's configuration lies."""

    node: Node
    datasets: dict[str, AbstractDataset[Any, Any] | None]
    study: StudySource | None
    folder: Path
    run_id: str | None
    is_async: bool
    validators: Mapping[str, ValidatorSpec] = field(default_factory=dict)
    """Checks of the entries, which their datasets do not know."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a node as text, for not every error can be sent to another process, and none keeps its cause."""

    seconds: float
    failure: str | None = None
    """Its error in one line; None where it is done."""
    is_users: bool = False
    notes: Notes = field(default_factory=dict)
    """Notes of the project's hooks on it."""


class Board:
    """An actor beside the driver, on which nodes write that they began and where, which Ray does not report."""

    def __init__(self) -> None:
        self._begun: list[tuple[str, str]] = []

    def note(self, name: str, machine: str) -> None:
        self._begun.append((name, machine))

    def take(self) -> list[tuple[str, str]]:
        """Names and machines since the last call."""
        begun, self._begun = self._begun, []
        return begun


def carry_out(task: NodeTask, board: Any) -> Outcome:
    """Run the node with the project's hooks; its traceback goes to the log, which Ray passes on."""
    import ray.util

    board.note.remote(task.node.name, ray.util.get_node_ip_address())
    begin = time.perf_counter()
    os.chdir(task.folder)
    hooks = _hooks()
    error = _run(task, hooks)
    seconds, notes = time.perf_counter() - begin, notes_of(hooks)
    if error is None:
        return Outcome(seconds, notes=notes)
    return Outcome(seconds, reason(error), users_mistake(error) is not None, notes)


def _run(task: NodeTask, hooks: PluginManager) -> Exception | None:
    import torch
    from threadpoolctl import threadpool_limits

    from transferscope.system.memory import keep_freed_memory

    torch.set_num_threads(1)
    threadpool_limits(1, "blas")
    keep_freed_memory()
    if task.study is not None:
        open_study(task.study)
    catalog = DataCatalog({name: dataset for name, dataset in task.datasets.items() if dataset is not None})
    add_validators(catalog, task.validators)
    hooks.hook.after_catalog_created(
        catalog=catalog, conf_catalog={}, conf_creds={}, parameters={}, save_version=None, load_versions={}
    )
    try:
        Task(task.node, catalog, task.is_async, hook_manager=hooks, run_id=task.run_id)()
    except Exception as error:
        if users_mistake(error) is None:
            traceback.print_exc()
        return error
    return None


@cache
def _hooks() -> PluginManager:
    """The project's own hooks, as Kedro makes them; once for each worker."""
    from kedro.framework.project import configure_project

    configure_project("transferscope")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("transferscope").setLevel(logging.INFO)
    return project_hooks()
