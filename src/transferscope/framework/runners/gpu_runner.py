"""All GPUs and cores of one machine: the default of `kedro run`.

A node asks by its tag `gpus-<number>`, for a training `training.num_processes` and for an analysis one; `slots` decides
who is next, and `system.gpu_grants` gives the node's thread its GPUs.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import Task
from pluggy import PluginManager
from threadpoolctl import threadpool_limits

from transferscope.framework.command_line import CommandLineError
from transferscope.framework.runners.beside import figures_beside
from transferscope.framework.runners.gpu_processes import GpuProcesses
from transferscope.framework.runners.node_progress import Ended
from transferscope.framework.runners.node_runner import NodeRunner, gpus_asked, positive, refuse_unknown
from transferscope.framework.runners.slots import DevicePool
from transferscope.framework.runners.urgency import urgency
from transferscope.system.gpu_grants import give_back_memory, granted
from transferscope.system.processes import side_processes, unwind

PATIENCE_SECONDS = 10.0


class GpuRunner(NodeRunner):
    """Runs independent nodes at once, in threads, each on GPUs of its own or on a core of its own.

    A node's tag `gpus-N` says how many GPUs it gets (`gpus-auto`: all). Nodes from which the longest work hangs start
    first, equals first in, first out. Those without a tag run beside them, one for each core. With several GPUs, nodes
    that measure networks on one run in a process for each (`gpu_processes`). Where there is no GPU, cores take their
    place: a training with N processes gets N, and small runs train side by side with one thread each. Small networks
    gain little from several threads within an operation, and nearly all from a second run beside the first
    (docs/log.md). Results are those of one node after the other with as many threads in an operation; another number of
    threads rounds differently.

    gpus: how many GPUs to use, the first ones; None: all. max_workers: nodes without a GPU that run at once, which
    share the cores; None: one for each core.
    """

    def __init__(
        self, gpus: int | None = None, max_workers: int | None = None, is_async: bool = False, **unknown: Any
    ) -> None:
        super().__init__(is_async=is_async)
        refuse_unknown("GpuRunner", unknown, "gpus", "max_workers", "is_async")
        self._threads: _Threads | None = None
        self._gpus = None if gpus is None else positive("gpus", gpus)
        self._cores = (os.cpu_count() or 1) if max_workers is None else positive("max_workers", max_workers)

    @contextmanager
    def _workers(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager,
        run_id: str | None,
        costs: Mapping[str, float],
    ) -> Iterator[_Threads]:
        import torch

        from transferscope.system.memory import keep_freed_memory

        there = gpus_there()
        if self._gpus is not None and self._gpus > there:
            raise CommandLineError(f"--runner-params gpus={self._gpus}: there are {there} GPUs here")
        size = (self._gpus or there) if there else self._cores
        requests = {node: _devices_asked(node, size, has_gpus=there > 0) for node in pipeline.nodes}
        first = urgency(pipeline, costs, requests.__getitem__).__getitem__
        cores: DevicePool[Node] = DevicePool(range(self._cores), first)
        gpus: DevicePool[Node] = DevicePool(range(size), first) if there else cores
        threads = max(1, (os.cpu_count() or 1) // self._cores)
        torch.set_num_threads(threads)
        keep_freed_memory()
        carried_out = figures_beside(pipeline.nodes)
        processes = GpuProcesses(catalog, hook_manager, run_id, is_async=self._is_async, threads=threads)
        in_processes = {node for node in pipeline.nodes if processes.takes(node)} if there and size > 1 else set()
        if len(in_processes) < 2:  # it would wait for nobody
            in_processes.clear()

        def carry_out(node: Node) -> None:
            if node in in_processes:
                processes.carry_out(node)
                return
            node = carried_out(node)
            Task(node=node, catalog=catalog, hook_manager=hook_manager, is_async=self._is_async, run_id=run_id)()

        self._threads = workers = _Threads(carry_out, requests, gpus, cores, has_gpus=there > 0)
        # For all nodes at once: one thread of a process cannot limit BLAS for itself.
        with threadpool_limits(1, "blas"), side_processes(self._cores):
            try:
                yield workers
            finally:
                workers.interrupt()
                processes.end()

    def _is_over(self) -> bool:
        return self._threads is None or self._threads.are_over()


def gpus_there() -> int:
    """Number of GPUs that torch finds."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _devices_asked(node: Node, size: int, *, has_gpus: bool) -> int:
    """Number of its pool's `size` devices that a node gets, at most all; 0 for a core beside GPUs."""
    asked = gpus_asked(node)
    if asked is None:
        return 0
    if asked == "auto":
        return size if has_gpus else 1
    assert isinstance(asked, int)
    return min(asked, size)


class _Threads:
    """A thread for each node that runs; those that have no devices yet wait in the pools."""

    def __init__(
        self,
        carry_out: Any,
        requests: dict[Node, int],
        gpus: DevicePool[Node],
        cores: DevicePool[Node],
        *,
        has_gpus: bool,
    ) -> None:
        self._carry_out = carry_out
        self._requests = requests
        self._gpus, self._cores, self._has_gpus = gpus, cores, has_gpus
        self._running: dict[Node, threading.Thread] = {}
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()

    def submit(self, node: Node) -> None:
        self._pool(node).request(node, max(1, self._requests[node]))

    def started(self) -> list[Node]:
        served = [*self._gpus.grant(), *(self._cores.grant() if self._has_gpus else ())]
        for node, devices in served:
            # A daemon, so that a node that cannot be interrupted does not keep the process alive.
            thread = threading.Thread(target=self._work, args=(node, devices), name=node.name, daemon=True)
            self._running[node] = thread
            thread.start()
        return [node for node, _ in served]

    def ended(self, seconds: float) -> list[Ended]:
        ended = []
        try:
            ended.append(self._ended.get(timeout=seconds))
            while True:
                ended.append(self._ended.get_nowait())
        except queue.Empty:
            pass
        for node, *_ in ended:
            del self._running[node]
            self._pool(node).give_back(node)
        return ended

    def interrupt(self) -> None:
        """Stop what still runs as Ctrl-C would: trainings in processes of their own end with their node."""
        for thread in self._running.values():
            unwind(thread)
        deadline = time.monotonic() + PATIENCE_SECONDS
        for thread in self._running.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def are_over(self) -> bool:
        """True if none runs, not even one that could not be interrupted."""
        return not any(thread.is_alive() for thread in self._running.values())

    def _pool(self, node: Node) -> DevicePool[Node]:
        return self._gpus if self._requests[node] else self._cores

    def _work(self, node: Node, devices: tuple[int, ...]) -> None:
        begin = time.perf_counter()
        error: BaseException | None = None
        try:
            with granted(devices) if self._has_gpus and self._requests[node] else nullcontext():
                self._carry_out(node)
        except BaseException as raised:  # whatever it is, the runner must hear of it
            error = raised
        if self._has_gpus and self._requests[node]:
            with suppress(Exception):  # CUDA may be broken by the node's own error, which is reported
                give_back_memory()
        self._ended.put(Ended(node, time.perf_counter() - begin, error))
