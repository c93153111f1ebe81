"""A process for each GPU, in which the nodes that measure networks on it are carried out one after the other.

Threads of one interpreter launch their kernels one at a time: of eight GPUs each would wait for the other seven.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from inspect import unwrap
from logging.handlers import QueueHandler
from typing import Any

from kedro.io import CatalogProtocol, MemoryDataset
from kedro.pipeline.node import Node
from pluggy import PluginManager

from transferscope.framework.runners.failures import RemoteError
from transferscope.framework.runners.node_runner import gpus_asked
from transferscope.framework.runners.node_task import NodeTask, Outcome, own_hooks, perform
from transferscope.framework.runners.notes import add_notes
from transferscope.pipelines.training import nodes as training
from transferscope.system.errors import UserError
from transferscope.system.gpu_grants import give_back_memory, granted_gpus, visible_to_child
from transferscope.system.own_process import OwnProcess, ProcessDiedError, Send
from transferscope.system.progress import BarNews, BarsOfOthers, bars_elsewhere

logger = logging.getLogger("transferscope")

WITH_WORKERS = (training.train, training.train_together)
"""Functions of nodes that use GPUs in workers of their own."""


class GpuProcesses:
    """Carries out nodes in the process of the GPU that was granted to the present thread.

    A process is started for the first node on its GPU, and sees this GPU alone. It loads the inputs and saves the
    outputs itself, with the project's hooks; its log and its bars are those of the run. After an error that is not the
    user's another process takes its place, since CUDA may be broken in it.
    """

    def __init__(
        self, catalog: CatalogProtocol, hook_manager: PluginManager, run_id: str | None, *, is_async: bool, threads: int
    ) -> None:
        self._catalog, self._hook_manager, self._run_id = catalog, hook_manager, run_id
        self._is_async, self._threads = is_async, threads
        self._processes: dict[tuple[int, ...] | None, OwnProcess] = {}

    def takes(self, node: Node) -> bool:
        """True for a node that computes on one GPU itself, and hands on by files."""
        if gpus_asked(node) != 1 or unwrap(node.func) in WITH_WORKERS:
            return False
        return not any(isinstance(self._catalog.get(name), MemoryDataset) for name in node.outputs)

    def carry_out(self, node: Node) -> None:
        """Run the node in its GPU's process. Raises its error, UserError or RemoteError."""
        process = self._processes.setdefault(granted_gpus(), OwnProcess(visible_to_child()))
        task = NodeTask.of(node, self._catalog, self._run_id, is_async=self._is_async, threads=self._threads)
        bars = BarsOfOthers()
        try:
            outcome = process.call(_perform, task, lambda message: _hear(message, bars))
        except ProcessDiedError as died:
            error = RemoteError(str(died))
            self._hook_manager.hook.on_node_error(
                error=error, node=node, catalog=self._catalog, inputs={}, is_async=self._is_async, run_id=self._run_id
            )
            raise error from None
        finally:
            bars.close()
        try:
            add_notes(self._hook_manager, node, outcome.notes)
        except (OSError, UserError) as fault:  # the node itself has ended, and others go on
            logger.warning("%s has ended, but what was recorded of it could not be saved: %s", node.name, fault)
        if outcome.error is not None:
            if not outcome.is_users:
                process.end()
            raise outcome.error

    def end(self) -> None:
        """End all processes, whatever they do."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.end()


def _hear(message: object, bars: BarsOfOthers) -> None:
    if isinstance(message, logging.LogRecord):
        own = logging.getLogger(message.name)
        if own.isEnabledFor(message.levelno):
            own.handle(message)
    elif isinstance(message, BarNews):
        bars.take(message)


def _perform(task: NodeTask, send: Send) -> Outcome:
    _speak_to(send)
    outcome = perform(task)
    with suppress(Exception):  # CUDA may be broken by the node's own error, which is reported
        give_back_memory()  # a training in a process of its own may be next on this GPU
    return outcome


@cache
def _speak_to(send: Send) -> None:
    """Let the log and the bars of this process be those of the run."""
    own_hooks()  # Kedro sets up its log first
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(_Sender(send))
    bars_elsewhere(send)


class _Sender(QueueHandler):
    """Sends what is logged as text, without arguments and errors; attributes of `extra` must be picklable."""

    queue: Any

    def __init__(self, send: Callable[[object], None]) -> None:
        super().__init__(send)  # type: ignore[arg-type]

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue(record)
