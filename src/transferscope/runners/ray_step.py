"""One step in a worker of a Ray cluster."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline.node import Node
from kedro.runner import Task
from pluggy import PluginManager

from transferscope.config import StudySource, open_study
from transferscope.runners.failures import reason, users_mistake


@dataclass(frozen=True)
class Step:
    """All that a worker needs: the node, the entries that it reads and writes, where the study's configuration lies."""

    node: Node
    datasets: dict[str, AbstractDataset[Any, Any] | None]
    study: StudySource | None
    folder: Path
    run_id: str | None
    is_async: bool


@dataclass(frozen=True)
class Failure:
    """What is told of an error: not every error can be sent to another process, and none keeps its cause."""

    reason: str
    is_users: bool


def carry_out(step: Step) -> Failure | None:
    """Run the node with the project's hooks; its traceback goes to the log, which Ray passes on."""
    import torch

    from transferscope.memory import keep_freed_memory

    os.chdir(step.folder)
    torch.set_num_threads(1)
    keep_freed_memory()
    hooks = _hooks()
    if step.study is not None:
        open_study(step.study)
    catalog = DataCatalog({name: dataset for name, dataset in step.datasets.items() if dataset is not None})
    try:
        Task(step.node, catalog, step.is_async, hook_manager=hooks, run_id=step.run_id)()
    except Exception as error:
        is_users = users_mistake(error) is not None
        if not is_users:
            traceback.print_exc()
        return Failure(reason(error), is_users)
    return None


@cache
def _hooks() -> PluginManager:
    """The project's own hooks, as Kedro makes them; once for each worker."""
    from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
    from kedro.framework.project import configure_project, settings

    configure_project("transferscope")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("transferscope").setLevel(logging.INFO)
    manager = _create_hook_manager()
    _register_hooks(manager, settings.HOOKS)
    return manager
