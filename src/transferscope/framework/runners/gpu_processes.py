"""A process for each GPU, in which the nodes that measure networks on it are carried out one after the other.

Threads of one interpreter launch kernels one at a time: with eight GPUs each would wait for the other seven.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kedro.io import CatalogProtocol, MemoryDataset
from kedro.pipeline.node import Node
from pluggy import PluginManager

from transferscope.experiment.names import Namespace
from transferscope.framework.config import present_source
from transferscope.framework.kedro_private import validators_of
from transferscope.framework.runners.node_runner import gpus_asked
from transferscope.framework.runners.node_task import NodeTask, Outcome, perform
from transferscope.framework.runners.notes import add_notes
from transferscope.system.gpu_grants import give_back_memory, granted_gpus, visible_to_child
from transferscope.system.processes import OwnProcess


class GpuProcesses:
    """Carries out analyses in the process of the GPU that was granted to the present thread."""

    def __init__(
        self, catalog: CatalogProtocol, hook_manager: PluginManager, run_id: str | None, is_async: bool
    ) -> None:
        self._catalog, self._hook_manager = catalog, hook_manager
        self._run_id, self._is_async = run_id, is_async
        self._processes: dict[tuple[int, ...] | None, OwnProcess] = {}

    def takes(self, node: Node) -> bool:
        """True for a node that asks for one GPU and hands on by files; not for trainings, which have workers."""
        trains = Namespace.parse(node.namespace or "other").pipeline == "training"
        kept = all(not isinstance(self._catalog.get(name), MemoryDataset) for name in node.outputs)
        return gpus_asked(node) == 1 and not trains and kept

    def carry_out(self, node: Node) -> None:
        """Run the node in its GPU's process, which is started for the first; its error is raised here."""
        gpus = granted_gpus()
        process = self._processes.setdefault(gpus, OwnProcess(visible_to_child()))
        datasets = {name: self._catalog.get(name) for name in {*node.inputs, *node.outputs}}
        checks = validators_of(self._catalog, datasets)
        task = NodeTask(node, datasets, present_source(), Path.cwd(), self._run_id, self._is_async, checks)
        outcome = process.call(_perform, task)
        add_notes(self._hook_manager, node, outcome.notes)
        if outcome.error is not None:
            raise outcome.error

    def end(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.end()


@contextmanager
def gpu_processes(
    catalog: CatalogProtocol, hook_manager: PluginManager, run_id: str | None, *, is_async: bool, number: int
) -> Iterator[GpuProcesses | None]:
    """Inside, a process for each of several GPUs; of one or none there is None, since threads do as well."""
    if number < 2:
        yield None
        return
    processes = GpuProcesses(catalog, hook_manager, run_id, is_async)
    try:
        yield processes
    finally:
        processes.end()


def _perform(task: NodeTask) -> Outcome:
    outcome = perform(task)
    give_back_memory()  # a training in a process of its own may be next on this GPU
    return outcome
