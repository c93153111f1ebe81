"""A Ray cluster: a task per node."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from kedro.io import CatalogProtocol, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from pluggy import PluginManager

from transferscope.framework.command_line import CommandLineError
from transferscope.framework.runners.failures import RemoteError
from transferscope.framework.runners.node_progress import Ended
from transferscope.framework.runners.node_runner import NodeRunner, gpus_asked, positive, refuse_unknown
from transferscope.framework.runners.node_task import NodeTask, Outcome
from transferscope.framework.runners.notes import Notes, add_notes
from transferscope.framework.runners.ray_cluster import connected, machines_of
from transferscope.framework.runners.ray_node import Board, carry_out
from transferscope.framework.runners.slots import DevicePool
from transferscope.framework.runners.urgency import urgency
from transferscope.system.errors import UserError

logger = logging.getLogger("transferscope")

LOOK_SECONDS = 10.0
"""Between looks at which machines are there."""

WAITING = 1
"""Nodes more than cores, so that none is idle until the driver hears that a node has ended.

Not so on GPUs: Ray might start the one too many first, and a training on all GPUs would wait for a long one on one.
"""


class RayRunner(NodeRunner):
    """Runs each node as a Ray task as soon as its inputs are there; Ray decides where.

    A node gets the GPUs that its tag `gpus-N` asks for, all of one machine (`gpus-auto`: as many as the largest machine
    has), and a core for each; in a cluster without GPUs the cores alone. The project folder and everything in the
    catalog lie on storage that all machines see at the same path. The project's hooks run where the node runs.

    A node whose worker or machine is lost is run again, up to `retries` times: a training goes on from its snapshot.
    An error of a node is not retried.

    address: of a cluster that runs, as for `ray.init` (`auto`, `host:6379`, `ray://host:10001`); None: the one that
    RAY_ADDRESS or this machine has, else a new one on this machine.
    """

    def __init__(self, address: str | None = None, retries: int = 3, is_async: bool = False, **unknown: Any) -> None:
        super().__init__(is_async=is_async)
        refuse_unknown("RayRunner", unknown, "address", "retries", "is_async")
        self._address = address
        self._retries = positive("retries", retries)

    @contextmanager
    def _workers(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager,
        run_id: str | None,
        costs: Mapping[str, float],
    ) -> Iterator[_Tasks]:
        _refuse_memory(pipeline, catalog)
        with connected(self._address) as ray:
            machines = machines_of(ray)
            asked = {node: _resources(node, machines) for node in pipeline.nodes}
            again = {"max_retries": self._retries, "retry_exceptions": False}
            on_cores = ray.remote(**again)(carry_out)
            # A worker that has used a GPU ends with its node: CUDA keeps to the GPUs that it saw first, and to memory.
            on_gpus = ray.remote(num_gpus=1, max_calls=1, **again)(carry_out)
            board = _put_up_board(ray)

            def start(node: Node) -> Any:
                task = NodeTask.of(node, catalog, run_id, is_async=self._is_async)
                remote = on_gpus if asked[node]["num_gpus"] else on_cores
                return remote.options(name=node.name, **asked[node]).remote(task, board)

            def lost(node: Node, error: Exception) -> None:
                hook_manager.hook.on_node_error(
                    error=error, node=node, catalog=catalog, inputs={}, is_async=self._is_async, run_id=run_id
                )

            needed = {node: int(asked[node]["num_gpus"] or asked[node]["num_cpus"]) for node in pipeline.nodes}
            on_gpu = {node for node in pipeline.nodes if asked[node]["num_gpus"]}
            first = urgency(pipeline, costs, needed.__getitem__).__getitem__
            room = Room(ray, needed, on_gpu, first)
            yield _Tasks(ray, start, room, board, partial(add_notes, hook_manager), lost)


def _refuse_memory(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Refuse results in memory: other machines would not have them."""
    made = {name for node in pipeline.nodes for name in node.outputs}
    lost = sorted(name for name in made if isinstance(catalog.get(name), MemoryDataset))
    if lost:
        raise CommandLineError(
            f"RayRunner: in memory only: {', '.join(lost)}; what one node hands to another needs an entry "
            "in conf/base/catalog.yml, on storage that all machines see"
        )


def _resources(node: Node, machines: list[dict[str, float]]) -> dict[str, float]:
    """Resources that a task asks of one machine, at most those of the largest."""
    asked = gpus_asked(node)
    most_gpus = int(max((machine.get("GPU", 0) for machine in machines), default=0))
    most_cores = int(max((machine.get("CPU", 0) for machine in machines), default=0))
    if asked is None:
        return {"num_cpus": 1, "num_gpus": 0}
    most = most_gpus or most_cores
    count = min(asked, max(1, most)) if isinstance(asked, int) else max(1, most_gpus)
    return {"num_cpus": min(count, most_cores), "num_gpus": count if most_gpus else 0}


def _put_up_board(ray: Any) -> Any:
    """On the driver's machine: if that is lost, all is."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()


class Room:
    """Choose the nodes that are handed to Ray, the most urgent first: those with room, and a few that wait.

    Ray starts what it has in an order of its own, so it has no more than it can start.
    """

    def __init__(self, ray: Any, needed: dict[Node, int], on_gpu: set[Node], urgency: Callable[[Node], float]) -> None:
        self._ray, self._needed, self._on_gpu = ray, needed, on_gpu
        cores, gpus = self._there()
        self._cores: DevicePool[Node] = DevicePool(range(cores), urgency)
        self._gpus: DevicePool[Node] = DevicePool(range(gpus), urgency)
        self._looked = time.monotonic()

    def request(self, node: Node) -> None:
        self._pool(node).request(node, self._needed[node])

    def grant(self) -> list[Node]:
        """Nodes to hand over now; machines that have come in the meantime count."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            for pool, there in zip((self._cores, self._gpus), self._there(), strict=True):
                pool.add(max(0, there - pool.size))
        return [node for pool in (self._gpus, self._cores) for node, _ in pool.grant()]

    def give_back(self, node: Node) -> None:
        self._pool(node).give_back(node)

    def _pool(self, node: Node) -> DevicePool[Node]:
        return self._gpus if node in self._on_gpu else self._cores

    def _there(self) -> tuple[int, int]:
        """Cores of all machines, and a few more for what is to wait at Ray until one is free, and their GPUs."""
        machines = machines_of(self._ray)
        cores, gpus = (int(sum(machine.get(kind, 0) for machine in machines)) for kind in ("CPU", "GPU"))
        return cores + WAITING, gpus


class _Tasks:
    """Ray tasks by node."""

    def __init__(
        self,
        ray: Any,
        start: Callable[[Node], Any],
        room: Room,
        board: Any,
        noted: Callable[[Node, Notes], None],
        lost: Callable[[Node, Exception], None],
    ) -> None:
        self._ray = ray
        self._start = start
        self._room = room
        self._board = board
        self._noted = noted
        self._lost = lost
        self._nodes: dict[Any, Node] = {}
        self._begun: set[str] = set()

    def submit(self, node: Node) -> None:
        self._room.request(node)

    def started(self) -> list[Node]:
        for node in self._room.grant():
            self._nodes[self._start(node)] = node
        submitted = {node.name: node for node in self._nodes.values()}
        begun = [(name, machine) for name, machine in self._news() if name in submitted]
        for name, machine in begun:
            if name in self._begun:
                logger.warning("%s: its worker or machine was lost; it begins again on %s", name, machine)
            self._begun.add(name)
        return [submitted[name] for name, _ in begun]

    def _news(self) -> list[tuple[str, str]]:
        try:
            return self._ray.get(self._board.take.remote())
        except self._ray.exceptions.RayError:  # the board is lost: nodes go on untold
            return []

    def ended(self, seconds: float) -> list[Ended]:
        references = list(self._nodes)
        if not references:
            return []
        done, _ = self._ray.wait(references, num_returns=1, timeout=seconds)
        more, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return [self._ending(reference) for reference in dict.fromkeys([*done, *more])]

    def _ending(self, reference: Any) -> Ended:
        node = self._nodes.pop(reference)
        self._room.give_back(node)
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the worker was lost more often than it may be
            failure = RemoteError(f"{type(error).__name__}: {error}")
            self._lost(node, failure)
            return Ended(node, 0.0, failure)
        try:
            self._noted(node, outcome.notes)
        except (OSError, UserError) as error:  # the node itself is done, and others go on
            logger.warning("%s is done, but what was recorded of it could not be saved: %s", node.name, error)
        return Ended(node, outcome.seconds, outcome.error)
