"""One node carried out in another process than the runner's, with all that it needs."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, CatalogProtocol, DataCatalog
from kedro.pipeline.node import Node
from kedro.runner import Task
from pluggy import PluginManager

from transferscope.framework.config import StudySource, open_study, present_source
from transferscope.framework.kedro_private import add_validators, project_hooks, validators_of
from transferscope.framework.runners.failures import RemoteError, reason, users_mistake
from transferscope.framework.runners.notes import Notes, notes_of
from transferscope.system.errors import UserError

if TYPE_CHECKING:
    from kedro.validation import ValidatorSpec

logger = logging.getLogger("transferscope")


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
    threads: int = 1
    """Threads that an operation of torch may use."""

    @classmethod
    def of(
        cls, node: Node, catalog: CatalogProtocol, run_id: str | None, *, is_async: bool, threads: int = 1
    ) -> NodeTask:
        """The task of a node of the present run."""
        datasets = {name: catalog.get(name) for name in {*node.inputs, *node.outputs}}
        checks = validators_of(catalog, datasets)
        return cls(node, datasets, present_source(), Path.cwd(), run_id, is_async, checks, threads)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a node as text, for not every error can be sent to another process, and none keeps its cause."""

    seconds: float
    failure: str | None = None
    """Its error in one line; None where it is done."""
    is_users: bool = False
    notes: Notes = field(default_factory=dict)
    """Notes of the project's hooks on it."""

    @property
    def error(self) -> Exception | None:
        """Its error as one of this process; None where it is done."""
        if self.failure is None:
            return None
        return UserError(self.failure) if self.is_users else RemoteError(self.failure)


def perform(task: NodeTask) -> Outcome:
    """Run the node with the project's hooks; the traceback of an error that is not the user's goes to the log."""
    begin = time.perf_counter()
    os.chdir(task.folder)
    hooks = own_hooks()
    error = _run(task, hooks)
    seconds, notes = time.perf_counter() - begin, notes_of(hooks)
    if error is None:
        return Outcome(seconds, notes=notes)
    return Outcome(seconds, reason(error), users_mistake(error) is not None, notes)


def _run(task: NodeTask, hooks: PluginManager) -> Exception | None:
    import torch
    from threadpoolctl import threadpool_limits

    from transferscope.system.memory import keep_freed_memory

    torch.set_num_threads(task.threads)
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
            logger.error("%s failed", task.node.name, exc_info=error)
        return error
    return None


@cache
def own_hooks() -> PluginManager:
    """The project's own hooks, as Kedro makes them; once for each worker."""
    from kedro.framework.project import configure_project

    configure_project("transferscope")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("transferscope").setLevel(logging.INFO)
    return project_hooks()
