"""The base of this project's runners: independent nodes at once, failures, status, tables."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, Protocol

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import AbstractRunner
from pluggy import PluginManager

from transferscope.cost.node_costs import node_costs
from transferscope.framework.command_line import CommandLineError
from transferscope.framework.config import present_plan
from transferscope.framework.runners.failures import NodesFailed, reason, users_mistake
from transferscope.framework.runners.node_progress import Ended, NodeProgress
from transferscope.framework.runners.notes import let_go
from transferscope.framework.runners.run_status import Status
from transferscope.framework.runners.run_tables import plan_table, tables_after
from transferscope.system.errors import UserError
from transferscope.tables.terminal import print_tables

logger = logging.getLogger("transferscope")

POLL_SECONDS = 1.0


class Workers(Protocol):
    """Whatever carries nodes out."""

    def submit(self, node: Node) -> None:
        """Queue a node whose inputs are there."""

    def started(self) -> list[Node]:
        """Nodes that have started since the last call; short ones may end without having been among them."""
        ...

    def ended(self, seconds: float) -> list[Ended]:
        """Wait for at most `seconds`; nodes that have ended since the last call."""
        ...


class NodeRunner(AbstractRunner):
    """Runs each node as soon as its inputs are there and there is room for it.

    A node that fails stops those that need its outputs, and no others. At the end NodesFailed says which failed.
    """

    @abstractmethod
    def _workers(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager,
        run_id: str | None,
        costs: Mapping[str, float],
    ) -> AbstractContextManager[Workers]:
        """Check that everything can run, and open what carries it out; ends it however the run ends."""

    def _is_over(self) -> bool:
        """True if no node goes on after an interrupt."""
        return True

    def _get_executor(self, max_workers: int) -> None:
        return None

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        assert hook_manager is not None
        try:
            self._run_steps(pipeline, catalog, hook_manager, run_id)
        except Exception:
            raise
        except BaseException:
            if self._is_over():
                let_go(hook_manager)
            raise

    def _run_steps(
        self, pipeline: Pipeline, catalog: CatalogProtocol, hook_manager: PluginManager, run_id: str | None
    ) -> None:
        progress = NodeProgress(pipeline)
        costs = _costs()
        status = Status(progress, costs)
        unread = Counter(chain.from_iterable(node.inputs for node in progress.all))
        with self._workers(pipeline, catalog, hook_manager, run_id, costs) as workers:
            if progress.all:
                print_tables({"To be done": plan_table(progress.all)})
            else:
                logger.info("nothing is to be done")
            with status.shown() as update:
                while not progress.are_over:
                    for node in progress.take_ready():
                        workers.submit(node)
                    for node in workers.started():
                        progress.start(node)
                    update()
                    for ended in workers.ended(POLL_SECONDS):
                        progress.end(ended)
                        _report(progress, ended)
                        if ended.error is None:
                            self._release_datasets(ended.node, catalog, unread, pipeline)
        print_tables(tables_after(progress.seconds, catalog, present_plan()))
        if progress.failed:
            raise NodesFailed(progress) from next(iter(progress.failed.values()))


def _report(progress: NodeProgress, ended: Ended) -> None:
    node, seconds, error = ended
    if error is None:
        logger.info("[%d/%d] %s %.1f s", len(progress.seconds), len(progress.all), node.name, seconds)
        return
    details = None if users_mistake(error) else error
    logger.error("%s failed, what does not need it goes on: %s", node.name, reason(error), exc_info=details)


def _costs() -> Mapping[str, float]:
    """Images through networks by node; nothing where there is no plan, or the plan does not say how many images."""
    plan = present_plan()
    try:
        return node_costs(plan) if plan else {}
    except UserError:
        return {}


def gpus_asked(node: Node) -> int | str | None:
    """Number of GPUs that the node's tag `gpus-N` asks for, "auto", or None without such a tag."""
    for tag in node.tags:
        if tag.startswith("gpus-"):
            count = tag.removeprefix("gpus-")
            return count if count == "auto" else int(count)
    return None


def positive(name: str, value: Any) -> int:
    """A count that was given by `--runner-params`."""
    if not isinstance(value, int) or value < 1:
        raise CommandLineError(f"--runner-params {name}={value}: give a whole number above 0")
    return value


def refuse_unknown(runner: str, unknown: Mapping[str, Any], *known: str) -> None:
    """One line for an option that the runner does not have."""
    if unknown:
        raise CommandLineError(f"--runner-params {next(iter(unknown))}: {runner} has only {', '.join(known)}")
